/** The examples run and say something sensible. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const run = (example: string, ...args: string[]) =>
  execFileSync(process.execPath, [join(import.meta.dirname, "../../examples", example), ...args], { encoding: "utf8" });

test("ask.ts answers a question", () => {
  assert.match(run("ask.ts", "What is the capital of France?"), /Paris[\s\S]*\(\d+ tokens, stop\)/);
});

test("branch-a-session.ts uses what was computed in both branches", () => {
  const shared = [...run("branch-a-session.ts").matchAll(/\((\d+) of (\d+) prompt tokens were there\)/g)];
  assert.equal(shared.length, 2);
  for (const [, cached, total] of shared) assert.ok(Number(cached) > Number(total) / 2);
});
