/** The server as users start it, with the embedded model and one of V4.1: what is computed once is never computed again, whatever is killed. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, type TestContext, test } from "node:test";
import { v41Folder } from "../v41-folder.ts";

const program = join(import.meta.dirname, "../../bin/freehold.js");

interface RunningServer {
  readonly url: string;
  readonly process: ChildProcess;
}

/** `freehold serve` in a process group of its own, so that all of it can be killed at once. */
async function startServer(t: TestContext, options: readonly string[]): Promise<RunningServer> {
  const args = [program, "serve", "--port", "0", "--json", "--log", "off", ...options];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  t.after(() => killAll(child));
  const [line] = (await once(createInterface(child.stdout!), "line")) as [string];
  return { url: (JSON.parse(line) as { url: string }).url, process: child };
}

function killAll(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, "SIGKILL");
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ESRCH");
  }
}

interface Message {
  readonly content: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly { readonly id: string }[];
}

interface Answer {
  readonly choices: readonly { readonly message: Message }[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
}

function ask(url: string, messages: readonly object[]): Promise<Answer> {
  return post(url, { messages, thinking: { type: "disabled" }, temperature: 0, max_tokens: 16 });
}

async function post(url: string, body: object): Promise<Answer> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200);
  return (await response.json()) as Answer;
}

const folder = await v41Folder();
after(() => folder[Symbol.asyncDispose]());

/** Sentences that make about 1,900 tokens: near the end of what the embedded model has room for. The other one has a token a byte. */
const models = [
  { name: "the embedded model", modelOptions: [], sentences: 116 },
  { name: "V4.1", modelOptions: ["--model", folder.path], sentences: 29 },
];

for (const { name, modelOptions, sentences } of models) {
  describe(`a conversation of 1,900 tokens with ${name} that is sent again`, { timeout: 60_000 }, () => {
    const story = "Once upon a time there was a little cat who lived in a red house. ".repeat(sentences);
    const conversation = [{ role: "user", content: `${story}What is the capital of France?` }];

    test("is not computed again: not at once, and not after everything was killed and started anew", async (t) => {
      const directory = mkdtempSync(join(tmpdir(), "freehold-restart-"));
      t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
      const options = [...modelOptions, "--cache-dir", directory];
      const first = await startServer(t, options);
      const cold = await ask(first.url, conversation);
      assert.ok(cold.usage.prompt_tokens > 1800, `${cold.usage.prompt_tokens} tokens`);
      assert.equal(cold.usage.prompt_tokens_details.cached_tokens, 0);
      const again = await ask(first.url, conversation);
      assertReused(again, cold);

      await flushed(first.url);
      killAll(first.process);
      await once(first.process, "exit");
      const second = await startServer(t, options);
      const restored = await ask(second.url, conversation);
      assertReused(restored, cold);
    });
  });
}

describe("a turn with a tool call", { timeout: 60_000 }, () => {
  const tool = {
    type: "function",
    function: {
      name: "calculator",
      description: "Calculates.",
      parameters: { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] },
    },
  };
  const question = { role: "user", content: "Use the calculator: what is 12 + 30?" };

  test("that a client sends back without its reasoning is completed, also by a server that was started since", async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "freehold-turns-"));
    t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
    const body = { tools: [tool], thinking: { type: "enabled" }, seed: 3, max_tokens: 200 };
    const first = await startServer(t, ["--cache-dir", directory]);
    const answer = await post(first.url, { ...body, messages: [question] });
    const { message } = answer.choices[0]!;
    assert.ok(message.tool_calls !== undefined, JSON.stringify(message));
    assert.ok(message.reasoning_content, JSON.stringify(message));
    await flushed(first.url);
    killAll(first.process);
    await once(first.process, "exit");

    const second = await startServer(t, ["--cache-dir", directory]);
    const call = { role: "assistant", content: null, tool_calls: message.tool_calls };
    const result = { role: "tool", tool_call_id: message.tool_calls[0]!.id, content: "42" };
    const next = await post(second.url, { ...body, messages: [question, call, result] });
    // All but the answer's last token, which nobody computed, and the result.
    const known = answer.usage.prompt_tokens + answer.usage.completion_tokens - 2;
    assert.ok(next.usage.prompt_tokens_details.cached_tokens >= known, JSON.stringify([answer.usage, next.usage]));
  });
});

function assertReused(answer: Answer, cold: Answer): void {
  const { prompt_tokens: prompt, prompt_tokens_details: details } = answer.usage;
  assert.ok(details.cached_tokens >= 0.99 * prompt, `${details.cached_tokens} of ${prompt} tokens were known`);
  assert.equal(answer.choices[0]!.message.content, cold.choices[0]!.message.content);
}

/** What was answered is on disk when no more bytes are written: the write follows the answer. */
async function flushed(url: string): Promise<void> {
  for (let before = -1; ; ) {
    const status = (await (await fetch(`${url}/status.json`)).json()) as {
      counters: { cache: { diskWrittenBytes: number } };
    };
    const { diskWrittenBytes } = status.counters.cache;
    if (diskWrittenBytes > 0 && diskWrittenBytes === before) return;
    before = diskWrittenBytes;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
