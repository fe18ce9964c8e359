/** The program as a user meets it: output, errors, exit statuses, interrupts. */
import assert from "node:assert/strict";
import { type StdioOptions, spawn, spawnSync } from "node:child_process";
import { closeSync, cpSync, mkdirSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";

const root = join(import.meta.dirname, "../..");
const scratch = mkdtempSync(join(tmpdir(), "freehold-cli-"));
after(() => rmSync(scratch, { recursive: true }));

interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

interface Run {
  readonly stdin?: string;
  /** Called with what stdout gave so far. */
  readonly onOutput?: (stdout: string, child: ReturnType<typeof spawn>) => void;
}

function freehold(args: readonly string[], { stdin = "", onOutput }: Run = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [join(root, "bin/freehold.js"), ...args]);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => {
    stdout += data;
    onOutput?.(stdout, child);
  });
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  child.stdin.on("error", () => undefined); // a program that does not read is free to
  child.stdin.end(stdin);
  return new Promise((resolve) => child.on("close", (status) => resolve({ stdout, stderr, status })));
}

/** One clear line on stderr, nothing on stdout, and the status. */
async function assertError(args: readonly string[], status: number, pattern: RegExp, run: Run = {}): Promise<void> {
  const outcome = await freehold(args, run);
  assert.match(outcome.stderr, pattern);
  assert.match(outcome.stderr, /^error: [^\n]+\n$/, "one line");
  assert.equal(outcome.stdout, "");
  assert.equal(outcome.status, status);
}

describe("run", () => {
  const answer = "I am Freehold seed, a tiny demonstration model that lives on this machine.";
  test("answers an argument, and stdin", async () => {
    assert.deepEqual(await freehold(["run", "Who are you?"]), { stdout: `${answer}\n`, stderr: "", status: 0 });
    assert.deepEqual(await freehold(["run"], { stdin: "Who are you?\n" }), {
      stdout: `${answer}\n`,
      stderr: "",
      status: 0,
    });
  });
  test("without a command and a terminal answers stdin", async () => {
    assert.equal((await freehold([], { stdin: "Who are you?\n" })).stdout, `${answer}\n`);
  });
  test("--json gives one document with the fields of the contract", async () => {
    const { stdout, status } = await freehold(["run", "Who are you?", "--json"]);
    const document = JSON.parse(stdout);
    assert.equal(document.text, answer);
    assert.equal(document.finish_reason, "stop");
    assert.equal(document.generated_tokens, document.token_ids.length);
    const { drafter, drafted, accepted, tokens_per_step } = document.draft;
    assert.equal(drafter, "ngram");
    assert.ok(accepted <= drafted && tokens_per_step >= 1);
    assert.deepEqual(document.tool_calls, []);
    for (const phase of ["load", "prefill", "decode"]) assert.equal(typeof document.seconds[phase], "number");
    assert.equal(status, 0);
  });
  test("--raw and --ids send exactly what they are given", async () => {
    const raw = "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>";
    const byRaw = JSON.parse((await freehold(["run", "--raw", raw, "--json"])).stdout);
    const byIds = JSON.parse((await freehold(["run", "--ids", "0,4036,1816,4037,4055", "--json"])).stdout);
    assert.deepEqual(byRaw.token_ids, byIds.token_ids);
    assert.equal(byRaw.prompt_tokens, 5);
  });
  test("reasoning goes to stderr, the answer to stdout", async () => {
    const { stdout, stderr } = await freehold(["run", "--think", "low", "What is 47 + 38?"]);
    assert.match(stdout, /^47 \+ 38 = 85/);
    assert.match(stderr, /carry 1/);
    assert.equal((await freehold(["run", "--think", "low", "--quiet", "What is 47 + 38?"])).stderr, "");
  });
});

test("chat answers a message a line and remembers the conversation", async () => {
  const { stdout } = await freehold(["chat", "--json"], { stdin: "Hi\n\nWho are you?\n" });
  const lines = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(lines.length, 2);
  assert.match(lines[0].text, /^Hello/);
  assert.match(lines[1].text, /Freehold seed/);
  assert.ok(lines[1].cached_tokens > 0);
});

describe("tools for text", () => {
  test("tokenize and detokenize are inverse, also in files of items", async () => {
    const text = "Hello 世界 🦀\n";
    const { token_ids } = JSON.parse((await freehold(["tokenize", "--json"], { stdin: text })).stdout);
    assert.deepEqual(JSON.parse((await freehold(["detokenize", token_ids.join(","), "--json"])).stdout), { text });
    const file = join(scratch, "items.json");
    writeFileSync(file, JSON.stringify([{ text: "a" }, { text: "<think>", special: true }, { text: 5 }]));
    const items = await freehold(["tokenize", "--file", file, "--json"]);
    const results = JSON.parse(items.stdout);
    assert.equal(results.length, 3);
    assert.equal(results[1].token_ids.length, 1);
    assert.equal(results[2].error.code, "request");
    assert.equal(items.status, 1);
    writeFileSync(file, JSON.stringify([token_ids, [0]]));
    const lists = JSON.parse((await freehold(["detokenize", "--file", file, "--json"])).stdout);
    assert.deepEqual(lists, [{ text }, { text: "<｜begin▁of▁sentence｜>" }]);
  });
  test("render gives the exact prompt, parse takes an answer apart", async () => {
    const file = join(scratch, "request.json");
    writeFileSync(file, '{"messages": [{"role": "user", "content": "Hi"}], "thinking": {"type": "disabled"}}');
    const rendered = JSON.parse((await freehold(["render", file, "--json"])).stdout);
    assert.equal(rendered.prompt, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>");
    assert.deepEqual(rendered.token_ids, [0, 4036, 1816, 4037, 4055]);
    writeFileSync(file, '{"prefix": "a", "suffix": "b"}');
    const gap = JSON.parse((await freehold(["render", file, "--json"])).stdout);
    assert.equal(gap.prompt, "<｜begin▁of▁sentence｜><｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>");
    writeFileSync(file, JSON.stringify([{ messages: [] }, { messages: [{ role: "user", content: "x" }] }]));
    const list = await freehold(["render", file, "--json"]);
    assert.equal(JSON.parse(list.stdout)[0].error.code, "request");
    assert.equal(list.status, 1);
    writeFileSync(
      file,
      JSON.stringify({
        text: 'r</think>ok\n\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="false">1',
      }),
    );
    const parsed = JSON.parse((await freehold(["parse", file, "--json"])).stdout);
    assert.deepEqual([parsed.reasoning, parsed.content, parsed.complete], ["r", "ok", false]);
    assert.deepEqual(parsed.tool_calls, [{ name: "f", arguments: '{"a": 1' }]);
  });
});

describe("numbers", () => {
  test("logits in chunks, in steps, alone and in a batch are bitwise the same", async () => {
    const file = join(scratch, "ids.json");
    const ids = [0, 4036, 1816, 4037, 4055, 908, 3];
    writeFileSync(file, JSON.stringify([ids, ids.slice(0, 3)]));
    const run = async (...args: string[]) => JSON.parse((await freehold(["logits", "--json", ...args])).stdout);
    const whole = await run("--ids", ids.join(","));
    assert.deepEqual(whole.positions, [0, 1, 2, 3, 4, 5, 6]);
    assert.deepEqual(await run("--ids", ids.join(","), "--steps"), whole);
    assert.deepEqual(await run("--ids", ids.join(","), "--chunk", "3"), whole);
    const batch = await run("--ids-file", file);
    assert.deepEqual(batch[0], whole);
    assert.deepEqual(batch[1].logits, whole.logits.slice(0, 3));
    const last = await run("--ids", ids.join(","), "--last");
    assert.deepEqual([last.positions, last.logits], [[6], [whole.logits[6]]]);
  });
  test("perplexity by documents and by window", async () => {
    const file = join(scratch, "text.txt");
    writeFileSync(file, "Nora was a cheerful frog.\n\nOnce there lived a quiet deer called Peter.");
    const documents = JSON.parse((await freehold(["perplexity", "--documents", file, "--json"])).stdout);
    assert.equal(documents.documents, 2);
    assert.equal(
      documents.bytes,
      Buffer.byteLength("Nora was a cheerful frog.Once there lived a quiet deer called Peter."),
    );
    writeFileSync(
      file,
      "Nora was a cheerful frog. She lived in a tall tree. Her favourite thing in the world was a wooden flute. But one sunny day, Nora could not find the wooden flute.",
    );
    const windows = [7, 16, 2048].map((window) => freehold(["perplexity", file, "--window", String(window), "--json"]));
    const results = (await Promise.all(windows)).map(({ stdout }) => JSON.parse(stdout));
    assert.equal(new Set(results.map(({ tokens }) => tokens)).size, 1, "every token counts once, whatever the window");
    assert.ok(results[0].perplexity > results[2].perplexity, "a longer window predicts better");
  });
  test("a text that holds nothing to score is refused, whichever way it is cut", async () => {
    for (const [i, text] of ["", "\n\n\n", "\r\n\r\n"].entries()) {
      const file = join(scratch, `nothing-${i}.txt`);
      writeFileSync(file, text);
      for (const options of text === "" ? [[], ["--documents"]] : [["--documents"]]) {
        await assertError(["perplexity", file, ...options], 1, /The text is empty/);
      }
    }
  });
  test("a benchmark that the context has no room for is refused", async () => {
    for (const [prompt, generate] of [
      [3000, 1],
      [2000, 49],
    ]) {
      const lengths = ["--prompt-tokens", String(prompt), "--generate-tokens", String(generate)];
      const message = new RegExp(`The prompt has ${prompt} tokens.*, the context only 2048`);
      await assertError(["bench", ...lengths, "--runs", "1"], 1, message);
    }
  });
  test("inspect reads headers, doctor looks around", async () => {
    const report = JSON.parse((await freehold(["inspect", "--json", "--context", "1000"])).stdout);
    assert.equal(report.parameters.total, 6_704_353);
    assert.equal(report.memory.context, 1000);
    assert.equal(report.tensors.length, 172);
    assert.equal(report.drafter, undefined);
    const folder = join(root, "test/data/v4.1/dspark");
    const { drafter, memory, tensors } = JSON.parse((await freehold(["inspect", folder, "--json"])).stdout);
    assert.equal(drafter.kind, "dspark");
    const ofDrafter = tensors.filter(({ name }: { name: string }) => name.startsWith("mtp."));
    const bytesOf = (list: { bytes: number }[]) => list.reduce((sum, { bytes }) => sum + bytes, 0);
    // The files hold a bias or two that only training reads.
    const isMostOf = (part: number, all: number) => part <= all && part > 0.99 * all;
    assert.ok(isMostOf(drafter.weights_bytes, bytesOf(ofDrafter)));
    const rest = bytesOf(tensors) - bytesOf(ofDrafter);
    assert.ok(isMostOf(memory.weights_bytes, rest), "what drafts is loaded when it is to draft");
    const doctor = JSON.parse((await freehold(["doctor", "--json"])).stdout);
    assert.ok(
      doctor.devices.some((device: { name: string; available: boolean }) => device.name === "cpu" && device.available),
    );
  });
});

test("a benchmark of drafting tells what it gained, for every drafter that a model has", async () => {
  const dspark = join(root, "test/data/v4.1/dspark");
  for (const [model, draft, drafter] of [
    [[], "ngram", "ngram"],
    [["--model", dspark], "auto", "dspark"],
  ] as const) {
    const lengths = ["--prompt-tokens", "16", "--generate-tokens", "24", "--runs", "1"];
    const { stdout } = await freehold(["bench", ...model, "--draft", draft, ...lengths, "--json"]);
    const { drafting } = JSON.parse(stdout);
    assert.equal(drafting.drafter, drafter);
    assert.equal(drafting.tokens, 24);
    assert.ok(drafting.drafted >= (drafter === "dspark" ? 1 : 0) && drafting.accepted <= drafting.drafted);
    assert.ok(Math.abs(drafting.gain - drafting.tokens_per_second / drafting.plain_tokens_per_second) < 1e-9);
    assert.ok(drafting.tokens_per_step >= 1);
    assert.ok(Math.abs(drafting.accepted_per_step / drafting.tokens_per_step - drafting.accepted / 24) < 1e-9);
  }
  await assertError(["bench", "--draft", "mtp", "--runs", "1"], 1, /mtp/i);
});

test("a synthesised model is written, inspected and timed", async () => {
  const file = join(scratch, "tiny.gguf");
  const written = JSON.parse(
    (await freehold(["synthesize-model", file, "--preset", "tiny", "--quant", "mxfp4", "--json"])).stdout,
  );
  const report = JSON.parse((await freehold(["inspect", file, "--json"])).stdout);
  assert.ok(Math.abs(report.parameters.total / written.parameters - 1) < 0.001);
  assert.deepEqual(Object.keys(report.dtypes).sort(), ["F16", "F32", "I32", "MXFP4", "Q8_0"]);
  const bench = [
    "bench",
    "--model",
    file,
    "--prompt-tokens",
    "40",
    "--generate-tokens",
    "4",
    "--batch",
    "2",
    "--runs",
    "1",
    "--depth",
    "300,2000",
    "--json",
  ];
  const { prefill, decode, memory, behind, peak_rss_bytes } = JSON.parse((await freehold(bench)).stdout);
  for (const figure of [
    prefill.tokens_per_second,
    decode.tokens_per_second,
    decode.bytes_per_token,
    memory.share_of_ceiling,
    peak_rss_bytes,
    behind[0].milliseconds_per_token,
    behind[1].cache_bytes - behind[0].cache_bytes,
  ]) {
    assert.ok(figure > 0);
  }
  assert.deepEqual(
    behind.map((depth: { context_tokens: number }) => depth.context_tokens),
    [300, 2000],
  );
  const text = await freehold([
    "run",
    "--model",
    file,
    "--raw",
    "ab",
    "--max-tokens",
    "3",
    "--temperature",
    "0",
    "--json",
  ]);
  assert.equal(JSON.parse(text.stdout).prompt_tokens, 1);
  await assertError(["synthesize-model", join(scratch, "x.gguf"), "--preset", "huge"], 2, /no preset "huge"/);
});

describe("what goes wrong", () => {
  const copy = (name: string) => {
    const folder = join(scratch, name);
    cpSync(join(root, "assets/seed-v4"), folder, { recursive: true });
    return folder;
  };
  test("a path that does not exist, a file, a folder without config", async () => {
    await assertError(["run", "--model", join(scratch, "nowhere"), "x"], 1, /no such model folder.*nowhere/);
    await assertError(["run", "--model", join(root, "package.json"), "x"], 1, /a file, not a folder/);
    mkdirSync(join(scratch, "empty"));
    await assertError(["run", "--model", join(scratch, "empty"), "x"], 1, /no config\.json.*empty/);
  });
  test("a truncated shard", async () => {
    const folder = copy("cut");
    truncateSync(join(folder, "model.safetensors"), 5_000_000);
    await assertError(["run", "--model", folder, "x"], 1, /model\.safetensors.*cut off/);
  });
  test("another architecture is named, with what is supported", async () => {
    const folder = copy("llama");
    writeFileSync(join(folder, "config.json"), '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}');
    await assertError(["run", "--model", folder, "x"], 1, /llama.*deepseek_v4/);
  });
  test("a prompt longer than the context, an empty one, none of UTF-8", async () => {
    await assertError(["run", "word ".repeat(3000)], 1, /prompt has 3\d\d\d tokens, the context only 2048/);
    await assertError(["run", ""], 2, /prompt is empty/);
    await assertError(["run"], 2, /prompt is empty/, { stdin: "\n" });
  });
  test("wrong usage has status 2", async () => {
    await assertError(["run", "--frobnicate", "x"], 2, /[Uu]nknown option.*--frobnicate/);
    await assertError(["frobnicate"], 2, /[Uu]nknown command.*frobnicate/);
    await assertError(["run", "--max-tokens", "many", "x"], 2, /whole number/);
    await assertError(["run", "--temperature", "-1", "x"], 2, /temperature is -1/);
    await assertError(["run", "--device", "abacus", "x"], 2, /abacus.*cpu/);
    await assertError(["logits"], 2, /no tokens/);
    await assertError(["detokenize", "1,x"], 2, /"x" is not a token id/);
  });
  test("a device that this version lacks", () =>
    assertError(["run", "--device", "webgpu", "x"], 1, /webgpu.*not part of this version/));
  test("--json puts the error on stdout", async () => {
    const { stdout, stderr, status } = await freehold(["run", "--json", "--model", join(scratch, "nowhere"), "x"]);
    assert.equal(JSON.parse(stdout).error.code, "no-model");
    assert.equal(stderr, "");
    assert.equal(status, 1);
  });
  test("Ctrl-C stops an answer with status 130 and one line", async () => {
    let sent = false;
    const { stderr, status } = await freehold(["run", "--ignore-eos", "--max-tokens", "1900", "Tell me a story."], {
      onOutput: (_, child) => {
        if (!sent) child.kill("SIGINT");
        sent = true;
      },
    });
    assert.equal(stderr, "error: Interrupted\n");
    assert.equal(status, 130);
  });
  test("a reader that goes away ends the program with one line", async () => {
    const { stderr, status } = await freehold(["run", "--ignore-eos", "--max-tokens", "1900", "Tell me a story."], {
      onOutput: (_, child) => child.stdout!.destroy(),
    });
    assert.match(stderr, /^error: The reader of the output went away[^\n]*\n$/);
    assert.equal(status, 1);
  });

  const noFull = process.platform !== "linux" && "no other system has a file that is always full";
  test("output that cannot be written is one line of error, messages that cannot are nothing", { skip: noFull }, () => {
    const full = openSync("/dev/full", "w");
    const run = (stdio: StdioOptions) =>
      spawnSync(process.execPath, [join(root, "bin/freehold.js"), "run", "Who are you?"], { stdio, encoding: "utf8" });
    const lost = run(["ignore", full, "pipe"]);
    assert.match(lost.stderr, /^error: The output cannot be written: ENOSPC[^\n]*\n$/);
    assert.equal(lost.status, 1);
    assert.equal(run(["ignore", "pipe", full]).status, 0);
    closeSync(full);
  });
});

test("every verb has help with two examples", async () => {
  const verbs = [
    "bench",
    "synthesize-model",
    "run",
    "chat",
    "tokenize",
    "detokenize",
    "render",
    "parse",
    "logits",
    "perplexity",
    "inspect",
    "doctor",
  ];
  for (const { stdout, status } of await Promise.all(verbs.map((verb) => freehold([verb, "--help"])))) {
    assert.match(stdout, /Examples:\n {2}\S.*\n {2}\S/);
    assert.equal(status, 0);
  }
});

test("a folder without a tokenizer works on token ids, and says what is missing for text", async () => {
  const folder = join(root, "test/data/v4/window");
  const ids = join(scratch, "prompt.json");
  writeFileSync(ids, "[3, 14, 15, 92]");
  const run = [
    "run",
    "--model",
    folder,
    "--ids-file",
    ids,
    "--temperature",
    "0",
    "--max-tokens",
    "6",
    "--ignore-eos",
    "--json",
  ];
  const answer = JSON.parse((await freehold(run)).stdout);
  assert.equal(answer.token_ids.length, 6);
  assert.equal(answer.text, "");
  const { logits } = JSON.parse(
    (await freehold(["logits", "--model", folder, "--ids-file", ids, "--last", "--json"])).stdout,
  );
  assert.equal(logits[0].indexOf(Math.max(...logits[0])), answer.token_ids[0]);
  await assertError(["run", "--model", folder, "x"], 1, /no tokenizer that can be used.*--ids/);
});
