/** npm run soak: it says how it is used, refuses what it does not know, and runs a part with the rounds that it is given. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const soak = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, "run.ts"), ...args], { encoding: "utf8" });

test("npm run soak tells its usage, refuses what is wrong with it, and runs one part of a few rounds", () => {
  const help = soak("--help");
  assert.deepEqual([help.status, help.stderr], [0, ""]);
  assert.match(help.stdout, /^Usage: npm run soak/);
  for (const [args, why] of [
    [["--bogus"], /^Unknown option '--bogus'/],
    [["--model", "v9"], /^There is no model "v9"; there are v4, v4\.1/],
    [["--only", "nothing"], /^There is no part "nothing" with v4; there are conversations/],
    [["--only", "streams", "--model", "v4.1"], /^There is no part "streams" with v4\.1/],
    [["--rounds", "many"], /^--rounds is "many", not a whole number/],
  ] as const) {
    const { status, stderr, stdout } = soak(...args);
    assert.deepEqual([status, stdout], [2, ""]);
    assert.match(stderr, why);
    assert.match(stderr, /\n\nUsage: npm run soak/);
  }
  const few = soak("--only", "flips,kills", "--rounds", "3", "--minutes", "0", "--seed", "5");
  assert.equal(few.status, 0, few.stderr);
  assert.match(few.stdout, /^flips, v4, seed 5\n {2}[\d.]+ s \{"flips":3,/);
});
