/** A served model with an MTP module: the same answers with any --draft, and what was drafted in the metrics. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, test } from "node:test";
import { synthesizeModel } from "../../src/engine/synthesize-model.ts";

const program = join(import.meta.dirname, "../../bin/freehold.js");
const scratch = mkdtempSync(join(tmpdir(), "freehold-drafting-"));
const running: ChildProcess[] = [];
after(() => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(scratch, { recursive: true });
});

const model = join(scratch, "model.gguf");

async function serve(draft: string): Promise<{ url: string; stop(): Promise<void> }> {
  const options = ["--model", model, "--draft", draft, "--threads", "1", "--cache-disk", "off", "--single-process"];
  const args = [program, "serve", "--port", "0", "--json", "--log", "off", ...options];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  running.push(child);
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  const stop = async () => {
    child.kill("SIGTERM");
    await once(child, "exit");
  };
  return { url: (JSON.parse(line) as { url: string }).url, stop };
}

async function complete(url: string, prompt: string, temperature: number): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt, temperature, seed: 7, max_tokens: 24, ignore_eos: true }),
  });
  assert.equal(response.status, 200);
  const { choices } = (await response.json()) as { choices: { text: string }[] };
  return choices[0]!.text;
}

describe("freehold serve --draft", () => {
  test("gives the same answers with mtp, ngram and off, and counts by drafter", { timeout: 120_000 }, async () => {
    await synthesizeModel(model, { preset: "tiny", type: "f32", mtp: true });
    const prompts = ["one two one two one two", "abc", "hello there"];
    const found: string[][] = [];
    for (const [draft, drafter] of [
      ["off", "off"],
      ["auto", "mtp"],
      ["ngram", "ngram"],
    ] as const) {
      const { url, stop } = await serve(draft);
      const asked = prompts.flatMap((prompt) => [0, 1].map((temperature) => complete(url, prompt, temperature)));
      found.push(await Promise.all(asked));
      const metrics = await (await fetch(`${url}/metrics`)).text();
      const total = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(metrics)?.[1]);
      for (const name of ["drafts", "draft_tokens", "accepted_tokens"]) {
        const own = total(`freehold_${name}_total\\{drafter="${drafter}"\\}`);
        const alias = total(`vllm:spec_decode_num_${name}_total`);
        assert.equal(own, alias);
        if (drafter === "mtp" && name !== "accepted_tokens") assert.ok(own > 0, name);
        if (drafter === "off") assert.equal(own, 0);
      }
      await stop();
    }
    assert.deepEqual(found[1], found[0]);
    assert.deepEqual(found[2], found[0]);
  });
});
