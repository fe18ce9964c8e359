/** Images over HTTP, with the recorded V4.1 model in `freehold serve`: the tokens are those of the library, for every API. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { loadModel } from "../../src/engine/load-model.ts";
import { makeVisionFolder } from "../vision-folder.ts";

const program = join(import.meta.dirname, "../../bin/freehold.js");
const folder = makeVisionFolder();
after(() => folder[Symbol.dispose]());
const model = await loadModel(folder.path, { device: "cpu" });
after(() => model[Symbol.dispose]());

const file = (name: string) => readFileSync(join(import.meta.dirname, "../data/media", name)).toString("base64");
const lossless = Buffer.from(file("lossless.webp"), "base64");
const changedPng = Buffer.from(file("rgb.png"), "base64");
const dataUrl = (name: string) => `data:image/png;base64,${file(name)}`;
const part = (url: string) => ({ type: "image_url", image_url: { url } });
const see = (url: string, text = "What is this?") => [{ role: "user", content: [part(url), { type: "text", text }] }];
const settings = { temperature: 0, thinking: { type: "disabled" }, max_tokens: 8 };

let url = "";
let server: ChildProcess;
before(async () => {
  const args = ["serve", "--model", folder.path, "--port", "0", "--json", "--log", "off", "--cache-disk", "off"];
  server = spawn(process.execPath, [program, ...args, "--max-images", "3"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(createInterface(server.stdout!), "line")) as [string];
  url = (JSON.parse(line) as { url: string }).url;
});
after(() => server.kill());

// biome-ignore lint/suspicious/noExplicitAny: the answers of three APIs and their errors, each looked into at its place
async function post(path: string, body: object): Promise<{ status: number; body: any; milliseconds: number }> {
  const started = performance.now();
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  return { status: response.status, body: answer, milliseconds: performance.now() - started };
}

const ask = (messages: object[], more: object = {}) => post("/v1/chat/completions", { ...settings, ...more, messages });

/** The bytes of the answer, one a token; special tokens have more. */
async function bytesOfAnswer(messages: object[]): Promise<number[]> {
  const { status, body } = await ask(messages, { logprobs: true });
  assert.equal(status, 200, JSON.stringify(body));
  const tokens: { bytes: number[] }[] = body.choices[0].logprobs.content;
  return tokens.filter(({ bytes }) => bytes.length === 1).map(({ bytes }) => bytes[0]!);
}

async function library(messages: object[]) {
  return model.complete({ messages, thinking: { type: "disabled" } }, { temperature: 0, maxTokens: 8 });
}

describe("a server whose model reads images", () => {
  test("answers the same tokens as the library", async () => {
    for (const name of ["rgb.png", "baseline.jpg", "plain.gif", "lossy.webp"]) {
      const expected = await library(see(dataUrl(name)));
      const bytes = expected.tokenIds.filter((id) => id >= 10).map((id) => id - 10);
      assert.deepEqual(await bytesOfAnswer(see(dataUrl(name))), bytes, name);
    }
  });

  test("counts what was computed for the same image, and nothing for another one", async () => {
    const once = see(dataUrl("rgba.png"), "Look.");
    const first = await ask(once);
    assert.equal(first.status, 200);
    const { prompt_tokens: prompt } = first.body.usage;
    assert.equal(prompt, (await library(once)).promptTokens);
    const same = await ask(once);
    assert.equal(same.body.usage.prompt_tokens_details.cached_tokens, prompt - 1);
    assert.deepEqual(same.body.choices, first.body.choices);
    const other = await ask(see(dataUrl("grey.png"), "Look."));
    assert.equal(other.body.usage.prompt_tokens, prompt, "of the same size");
    assert.ok(other.body.usage.prompt_tokens_details.cached_tokens <= 3, "no token behind the beginning of the image");
  });

  test("takes images in the Messages API, in results of tools too, and counts their tokens", async () => {
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: file("rgb.png") } };
    const tools = [{ name: "look", input_schema: { type: "object" } }];
    const direct = { messages: [{ role: "user", content: [image, { type: "text", text: "What is this?" }] }] };
    const { status, body } = await post("/v1/messages", { ...direct, max_tokens: 8, temperature: 0 });
    assert.equal(status, 200, JSON.stringify(body));
    const { promptTokens, text } = await library(see(dataUrl("rgb.png")));
    const { input_tokens, cache_read_input_tokens } = body.usage;
    assert.equal(input_tokens + cache_read_input_tokens, promptTokens);
    assert.equal(body.content[0].text, text);
    assert.equal((await post("/v1/messages/count_tokens", direct)).body.input_tokens, promptTokens);

    const result = (content: object[]) => ({
      max_tokens: 4,
      tools,
      messages: [
        { role: "user", content: "Look" },
        { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "look", input: {} }] },
        { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content }] },
      ],
    });
    const tokensOf = async (content: object[]) =>
      (await post("/v1/messages/count_tokens", result(content))).body.input_tokens;
    const words = { type: "text", text: "it" };
    const tokens = (await tokensOf([words, image])) - (await tokensOf([words])) - 2; // two newlines between parts
    assert.equal(tokens, (await model.preparePrompt({ prompt: [4], images: [dataUrl("rgb.png")] })).tokenIds.length);
    assert.equal((await post("/v1/messages", result([image]))).status, 200);
  });

  test("takes images in the Responses API", async () => {
    const input = [
      {
        role: "user",
        content: [
          { type: "input_image", image_url: dataUrl("rgb.png"), detail: "auto" },
          { type: "input_text", text: "What is this?" },
        ],
      },
    ];
    const { status, body } = await post("/v1/responses", {
      input,
      temperature: 0,
      reasoning: { effort: "none" },
      max_output_tokens: 8,
    });
    assert.equal(status, 200, JSON.stringify(body));
    const { promptTokens, text } = await library(see(dataUrl("rgb.png")));
    assert.equal(body.usage.input_tokens, promptTokens);
    assert.equal(body.output[0].content[0].text, text);
    const stored = [{ role: "user", content: [{ type: "input_image", file_id: "file-1" }] }];
    assert.match((await post("/v1/responses", { input: stored })).body.error.message, /no stored files/);
  });

  test("streams, and gives several answers to one prompt", async () => {
    const { body } = await ask(see(dataUrl("rgb.png")), { n: 2 });
    assert.equal(body.choices.length, 2);
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...settings, messages: see(dataUrl("rgb.png")), stream: true }),
    });
    assert.match(await response.text(), /\[DONE\]/);
  });

  test("goes on when the engine is killed, with the images that the next one does not have", async () => {
    const messages = see(dataUrl("interlaced.png"), "Look at it.");
    const expected = (await library(messages)).text;
    const answers = Array.from({ length: 3 }, () => ask(messages));
    await new Promise((resolve) => setTimeout(resolve, 20)); // somewhere on the way
    process.kill(engineOf(server.pid!), "SIGKILL");
    const later = ask(messages);
    for (const { status, body } of await Promise.all([...answers, later])) {
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal(body.choices[0].message.content, expected);
    }
  });

  const refusals = [
    { name: "an address", url: "https://example.com/cat.png", code: "image-url" },
    { name: "a file of this machine", url: "file:///etc/passwd", code: "image-url" },
    { name: "a picture that is text", url: `data:image/png;base64,${btoa("hello there")}`, code: "image-type" },
    { name: "an SVG", url: `data:image/svg+xml;base64,${btoa("<svg xmlns='x'/>")}`, code: "image-type" },
    { name: "an empty file", url: "data:image/png;base64,", code: "image-empty" },
    { name: "base64 with blanks", url: "data:image/png;base64,AAAA AAAA", code: "data-url" },
    { name: "half a picture", url: dataUrl("rgb.png").slice(0, -80), code: "image-truncated" },
    { name: "a picture of 30,000 x 30,000", url: bomb(30_000), code: "image-pixels" },
  ];
  for (const { name, url: image, code } of refusals) {
    test(`refuses ${name} with ${code}, and goes on`, async () => {
      const { status, body } = await ask(see(image));
      assert.equal(status, 400, JSON.stringify(body));
      assert.equal(body.error.code, code);
      assert.match(body.error.message, /^Image 1 of the request: /);
    });
  }

  const damaged = {
    "a GIF that ends among its pixels": cutUrl("plain.gif", 0.75, []),
    "a JPEG that ends among its pixels, with an end": cutUrl("baseline.jpg", 0.9, [0xff, 0xd9]),
    "a WebP of noise": `data:;base64,${lossless.fill(255, 26).toString("base64")}`,
    "a PNG with a wrong checksum": `data:;base64,${changedPng.fill(0, 60, 64).toString("base64")}`,
  };
  const oneAfterAnother = { "what the header tells": bomb(30_000), ...damaged };
  for (const [name, image] of Object.entries(oneAfterAnother)) {
    test(`refuses ${name} within 50 ms, one after another`, async () => {
      const times: number[] = [];
      for (let i = 0; i < 5; i++) {
        const { status, milliseconds } = await ask(see(image));
        assert.equal(status, 400);
        times.push(milliseconds);
      }
      assert.ok(Math.min(...times.slice(1)) < 50, `${times}`);
    });
  }

  const skipsMemory = process.platform === "linux" ? false : "only Linux tells the memory of other processes in /proc";
  test("refuses it within 64 MiB of all processes", { skip: skipsMemory }, async () => {
    const processes = [server.pid!, ...childrenOf(server.pid!).map(({ id }) => id)];
    const memory = (field: string) =>
      processes.reduce((sum, id) => {
        const [, kilobytes] = new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${id}/status`, "utf8"))!;
        return sum + Number(kilobytes) / 1024;
      }, 0);
    const large = readFileSync(join(import.meta.dirname, "../data/media/rgb.png"));
    large.writeUInt32BE(6000, 16);
    large.writeUInt32BE(4000, 20); // not too many pixels, but far more than the file can have
    const hostile = [
      ...refusals.map(({ url }) => url),
      ...Object.values(damaged),
      `data:;base64,${large.toString("base64")}`,
    ];
    for (const image of hostile) await ask(see(image)); // code is loaded and compiled
    for (const image of hostile) {
      for (const id of processes) writeFileSync(`/proc/${id}/clear_refs`, "5");
      const before = memory("VmRSS");
      const { status } = await ask(see(image));
      assert.equal(status, 400);
      assert.ok(memory("VmHWM") - before < 64, `${image.slice(0, 60)}: ${memory("VmHWM") - before} MiB`);
    }
  });

  test("refuses more images than it takes", async () => {
    const content = Array.from({ length: 4 }, () => part(dataUrl("rgb.png")));
    const { status, body } = await ask([{ role: "user", content }]);
    assert.deepEqual([status, body.error.code], [400, "image-count"]);
  });
});

describe("freehold run --image", () => {
  const path = (name: string) => join(import.meta.dirname, "../data/media", name);
  const run = async (...args: string[]) => {
    const options = ["--temperature", "0", "--max-tokens", "6", "--json"];
    const { stdout } = await promisify(execFile)(process.execPath, [program, "run", ...args, ...options]).catch(
      (error: { stdout: string }) => error,
    );
    return JSON.parse(stdout);
  };

  test("answers as the library does, with images in front of the text", async () => {
    const content = [part(dataUrl("rgb.png")), part(dataUrl("baseline.jpg")), { type: "text", text: "Hi" }];
    const messages = [{ role: "user", content }];
    const expected = await model.complete(
      { messages, thinking: { type: "disabled" } },
      { temperature: 0, maxTokens: 6 },
    );
    const files = ["--image", path("rgb.png"), "--image", path("baseline.jpg")];
    const answer = await run("--model", folder.path, ...files, "Hi");
    assert.deepEqual([answer.token_ids, answer.prompt_tokens], [expected.tokenIds, expected.promptTokens]);
    const raw = await run("--model", folder.path, "--image", path("rgb.png"), "--ids", "0,4,20");
    assert.equal(raw.finish_reason !== undefined, true, JSON.stringify(raw));
  });

  test("says what is wrong", async () => {
    const codeOf = async (...args: string[]) => (await run(...args)).error.code;
    assert.equal(await codeOf("--model", folder.path, "--image", "/nowhere.png", "Hi"), "file");
    assert.equal(await codeOf("--model", folder.path, "--image", program, "Hi"), "image-type");
    assert.equal(await codeOf("--image", path("rgb.png"), "Hi"), "unsupported_image");
    using blind = makeVisionFolder({ withVision: false });
    assert.equal(await codeOf("--model", blind.path, "--image", path("rgb.png"), "Hi"), "unsupported_image");
    assert.equal(await codeOf("--model", folder.path, "--image", path("rgb.png"), "--ids", "0,20"), "image-count");
  });
});

function childrenOf(supervisor: number): { id: number; args: string }[] {
  const lines = execFileSync("ps", ["--ppid", String(supervisor), "-o", "pid=,args="], { encoding: "utf8" });
  return lines
    .trim()
    .split("\n")
    .map((line) => ({ id: Number.parseInt(line, 10), args: line }));
}

/** The process of the server's engine. */
function engineOf(supervisor: number): number {
  return childrenOf(supervisor).find(({ args }) => args.includes("engine-process"))!.id;
}

/** The beginning of a file, with other bytes behind it. */
function cutUrl(name: string, share: number, end: readonly number[]): string {
  const bytes = Buffer.from(file(name), "base64");
  return `data:;base64,${Buffer.from([...bytes.subarray(0, Math.floor(share * bytes.length)), ...end]).toString("base64")}`;
}

/** A PNG whose header promises so many pixels a side. */
function bomb(side: number): string {
  const bytes = readFileSync(join(import.meta.dirname, "../data/media/rgb.png"));
  bytes.writeUInt32BE(side, 16);
  bytes.writeUInt32BE(side, 20);
  return `data:image/png;base64,${bytes.toString("base64")}`;
}
