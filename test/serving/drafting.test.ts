/** Served models with modules that draft: the same answers with any --draft, and what was drafted in the metrics. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, test } from "node:test";
import { synthesizeModel } from "../../src/engine/synthesize-model.ts";
import { idOfByte, makeVisionFolder } from "../vision-folder.ts";
import { streamEvents } from "./start-server.ts";

const program = join(import.meta.dirname, "../../bin/freehold.js");
const scratch = mkdtempSync(join(tmpdir(), "freehold-drafting-"));
const running: ChildProcess[] = [];
after(() => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(scratch, { recursive: true });
});

async function serve(model: string, draft: string): Promise<{ url: string; stop(): Promise<void> }> {
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
    const model = join(scratch, "model.gguf");
    await synthesizeModel(model, { preset: "tiny", type: "f32", mtp: true });
    const prompts = ["one two one two one two", "abc", "hello there"];
    const found: string[][] = [];
    for (const [draft, drafter] of [
      ["off", "off"],
      ["auto", "mtp"],
      ["ngram", "ngram"],
    ] as const) {
      const { url, stop } = await serve(model, draft);
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

  test("streams the same chat with dspark, ngram and off, and counts what was right", {
    timeout: 120_000,
  }, async () => {
    using folder = makeVisionFolder({ recorded: "dspark" });
    const found: unknown[] = [];
    for (const [draft, drafter] of [
      ["off", "off"],
      ["auto", "dspark"],
      ["ngram", "ngram"],
    ] as const) {
      const { url, stop } = await serve(folder.path, draft);
      const asked = [0, 1].flatMap((temperature) => [
        streamChat(url, { temperature }),
        // What the answer is sure to say, the drafter says too: it chooses as the answer does.
        streamChat(url, { temperature, logit_bias: { [idOfByte(0x61)]: 100 } }),
      ]);
      const answers = await Promise.all(asked);
      assert.equal(answers[1]!.text, "a".repeat(40));
      found.push(answers);
      const metrics = await (await fetch(`${url}/metrics`)).text();
      const total = (name: string) =>
        Number(new RegExp(`^freehold_${name}_total\\{drafter="${drafter}"\\} (\\d+)$`, "m").exec(metrics)?.[1]);
      const [drafts, drafted, accepted] = ["drafts", "draft_tokens", "accepted_tokens"].map(total);
      if (drafter === "off") assert.deepEqual([drafts, drafted, accepted], [0, 0, 0]);
      if (drafter === "dspark") {
        assert.ok(drafts! > 0 && drafted! > drafts!, `${drafts} drafts of ${drafted} tokens`);
        assert.ok(accepted! > 0 && accepted! < drafted!, `${accepted} of ${drafted} right`);
      }
      await stop();
    }
    assert.deepEqual(found[1], found[0]);
    assert.deepEqual(found[2], found[0]);
  });
});

/** Text and bytes of every token of a streamed answer. */
async function streamChat(url: string, options: object): Promise<{ text: string; bytes: number[] }> {
  const messages = [{ role: "user", content: "one two one two one two" }];
  const rest = {
    thinking: { type: "disabled" },
    seed: 7,
    max_tokens: 40,
    ignore_eos: true,
    logprobs: true,
    stream: true,
  };
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages, ...rest, ...options }),
  });
  assert.equal(response.status, 200);
  let text = "";
  const bytes: number[] = [];
  for await (const { data } of streamEvents(response)) {
    if (data === "[DONE]") break;
    const { delta, logprobs } = JSON.parse(data).choices[0];
    text += delta.content ?? "";
    for (const token of logprobs?.content ?? []) bytes.push(...token.bytes);
  }
  return { text, bytes };
}
