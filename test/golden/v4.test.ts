/**
 * Tiny random DeepSeek-V4 models against values recorded from the float32 reference (transformers 5.24 `deepseek_v4`):
 * every stored activation, logits, greedy continuations, cache states, MTP; and our own promise that neither chunking, nor
 * batching, nor winding back changes a bit.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ModelRunner, type Sequence } from "../../src/engine/model-runner.ts";
import { layoutName, rowsPerPage } from "../../src/tensor/paging.ts";
import { bestBody, kernelBodiesHere } from "../kernel-devices.ts";
import {
  assertClose as assertWithin,
  checkChunks,
  checkRagged,
  checkRewindAndFork,
  oneStep,
  prefill,
  type Subject,
} from "./bitwise.ts";
import { type Case, loadCase, loadWeights } from "./v4-case.ts";

const tolerance = 1e-4; // stated by the recorded cases for a float32 engine; ours stays near 1e-5

const names = ["window", "ratio128", "ratio4", "mixed", "batch", "mtp", "official"];

/** Where a stored activation is found: the label, and whether rows are stored positions or everything there is. */
const stages: readonly (readonly [string, string, "positions" | "all"])[] = [
  ["streams_mid", "streams_mid", "positions"],
  ["attn_hc.pre", "hc_attn.pre", "positions"],
  ["attn_hc.post", "hc_attn.post", "positions"],
  ["attn_hc.comb", "hc_attn.mix", "positions"],
  ["attn_hc.collapsed", "hc_attn.collapsed", "positions"],
  ["attn_in", "attn.input", "positions"],
  ["q_latent", "attn.query_latent", "positions"],
  ["q", "attn.queries", "positions"],
  ["kv", "attn.kv", "all"],
  ["compressed", "attn.compressor.closed", "all"],
  ["index_q", "attn.indexer.queries", "positions"],
  ["index_keys", "attn.indexer.compressor.closed", "all"],
  ["index_weights", "attn.indexer.weights", "positions"],
  ["index_scores", "attn.indexer.scores", "positions"],
  ["index_selected", "attn.indexer.selected", "positions"],
  ["attn_raw", "attn.attended", "positions"],
  ["attn_mass", "attn.mass", "positions"],
  ["attn_unrotated", "attn.turned_back", "positions"],
  ["attn_groups", "attn.groups", "positions"],
  ["attn_out", "attn.output", "positions"],
  ["ffn_hc.pre", "hc_ffn.pre", "positions"],
  ["ffn_hc.post", "hc_ffn.post", "positions"],
  ["ffn_hc.comb", "hc_ffn.mix", "positions"],
  ["ffn_hc.collapsed", "hc_ffn.collapsed", "positions"],
  ["ffn_in", "ffn.input", "positions"],
  ["router_logits", "ffn.gate.logits", "positions"],
  ["router_scores", "ffn.gate.scores", "positions"],
  ["router_indices", "ffn.gate.chosen", "positions"],
  ["router_weights", "ffn.gate.weights", "positions"],
  ["routed_out", "ffn.routed", "positions"],
  ["shared_out", "ffn.shared", "positions"],
];

for (const name of names) {
  const golden = await loadCase(name);
  const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
  for (const body of [...bodies, { name: "reference", create: async () => new ReferenceDevice() }]) {
    const device = await body.create();
    await loadWeights(golden, device);
    describe(`${name} on ${body.name}`, () => {
      after(() => device[Symbol.dispose]());
      test("the logits of every stored position are those of the reference", async () => {
        for (const [b, ids] of golden.prompts.entries()) {
          const rows = await prefill(subjectOf(golden, device), ids, oneStep);
          golden.positions.forEach((p, i) => {
            assertClose(rows[p]!, golden.row("logits", b, i), `sequence ${b}, position ${p}`);
          });
        }
      });
      test("greedy decoding gives the same tokens", async () => {
        for (const [b, ids] of golden.prompts.entries()) await checkGreedy(golden, device, b, ids);
      });
      if (golden.config.numMtpModules > 0)
        test("the MTP module predicts what the reference's does", () => checkMtp(golden, device));
    });
  }

  const cpu = await bestBody.create({ workers: 3 });
  await loadWeights(golden, cpu);
  describe(`${name}, inside`, () => {
    after(() => golden.checkpoint.close());
    test("every stored activation is that of the reference", () => checkActivations(golden, cpu));
    test("what is kept after the prompt is that of the reference", () => checkCaches(golden, cpu));
    for (const chunk of [1, 7, 64, 129]) {
      test(`chunks of ${chunk} give bitwise the logits of one step`, () => checkChunks(subjectOf(golden, cpu), chunk));
    }
    test("sequences that share steps have bitwise the logits they have alone", () =>
      checkRagged(subjectOf(golden, cpu)));
    test("winding back and forking change no bit", () => checkRewindAndFork(subjectOf(golden, cpu)));
  });
}

function runnerOf(golden: Case, device: Device, stepTokens: number, keep: readonly string[] = []): ModelRunner {
  return new ModelRunner(golden.config, device, { stepTokens, keep });
}

function subjectOf(golden: Case, device: Device): Subject {
  return { prompts: golden.prompts, runner: (stepTokens) => runnerOf(golden, device, stepTokens) };
}

async function checkGreedy(golden: Case, device: Device, b: number, ids: number[]): Promise<void> {
  const runner = runnerOf(golden, device, oneStep);
  const sequence = runner.createSequence();
  let [logits] = await runner.append({ sequence, tokenIds: ids, outputs: 1 });
  for (const [i, expected] of golden.row("greedy.tokens", b).entries()) {
    assertClose(logits!, golden.row("greedy.logits", b, i), `step ${i}`);
    const token = logits!.indexOf(Math.max(...logits!));
    assert.equal(token, expected, `token ${i}`);
    [logits] = await runner.append({ sequence, tokenIds: [token], outputs: 1 });
  }
}

async function checkActivations(golden: Case, device: Device): Promise<void> {
  const labels = new Map<string, { label: string; rows: "positions" | "all" | "outputs" }>();
  labels.set("embeddings", { label: "embeddings", rows: "positions" });
  labels.set("final.collapsed", { label: "head.collapsed", rows: "positions" });
  labels.set("final.norm", { label: "head.normed", rows: "positions" });
  for (let l = 0; l < golden.config.numLayers; l++) {
    labels.set(`streams.${l}`, { label: `layers.${l}.streams`, rows: "positions" });
    labels.set(`stage.${l + 1}.streams_in`, { label: `layers.${l}.streams`, rows: "positions" });
    for (const [stored, label, rows] of stages)
      labels.set(`stage.${l}.${stored}`, { label: `layers.${l}.${label}`, rows });
  }
  const stored = [...golden.tensors.keys()].filter((key) => /^(embeddings|final|streams|stage)/.test(key));
  // Layer 0 gets equal copies of the embedding: no value of its own.
  const wanted = stored.filter((key) => key !== "stage.0.streams_in");
  for (const key of wanted) assert.ok(labels.has(key), `no label for the stored tensor ${key}`);
  const keep = [...new Set(wanted.map((key) => labels.get(key)!.label))];

  for (const [b, ids] of golden.prompts.entries()) {
    const runner = runnerOf(golden, device, oneStep, keep);
    await runner.append({ sequence: runner.createSequence(), tokenIds: ids, outputs: ids.length });
    for (const key of wanted) {
      const { label, rows } = labels.get(key)!;
      const found = runner.program.read(label);
      const count = rows === "all" ? golden.shape(key)[1]! : ids.length;
      const width = found.length / count;
      const wantedRows = rows === "all" ? Array.from({ length: count }, (_, i) => i) : golden.positions;
      wantedRows.forEach((p, i) => {
        const values = found.subarray(p * width, (p + 1) * width);
        compareRow(key, values, golden.row(key, b, i), p, runner);
      });
    }
  }
}

function compareRow(
  key: string,
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  position: number,
  runner: ModelRunner,
): void {
  const where = `${key}, position ${position}`;
  if (key.endsWith("router_indices")) {
    // Stored in rising order; a hash table gives its own.
    assert.deepEqual(
      [...(found as Int32Array)].sort((a, b) => a - b),
      [...(expected as Int32Array)],
      where,
    );
  } else if (key.endsWith("router_weights")) {
    const layer = key.split(".")[1]!;
    const chosen = runner.program.read(`layers.${layer}.ffn.gate.chosen`);
    const k = expected.length;
    const order = Array.from({ length: k }, (_, i) => i).sort(
      (a, b) => chosen[position * k + a]! - chosen[position * k + b]!,
    );
    assertClose(
      order.map((i) => found[i]!),
      expected,
      where,
    );
  } else if (key.endsWith("index_scores")) {
    // The reference stores the scores of all entries, ours are only of those the query sees.
    const visible = Math.floor((position + 1) / 4);
    assertClose(Array.from(found).slice(0, visible), Array.from(expected).slice(0, visible), where);
  } else if (key.endsWith("index_selected")) {
    assert.deepEqual(Array.from(found), Array.from(expected), where);
  } else {
    assertClose(found, expected, where);
  }
}

/** Rows of a cache of the sequence, wherever their pages are. */
async function cacheRows(runner: ModelRunner, sequence: Sequence, name: string, first: number, count: number) {
  const { layout } = runner.program.graph.caches.get(name)!.storage;
  const pageRows = rowsPerPage(layout);
  const rows: number[] = [];
  for (let row = first; row < first + count; row++) {
    const page = sequence.cache.pagesOf(layoutName(layout)).get(Math.floor(row / pageRows))!;
    rows.push(...(await runner.program.readCache(name, page * pageRows + (row % pageRows), 1)));
  }
  return rows;
}

async function checkCaches(golden: Case, device: Device): Promise<void> {
  const stored = [...golden.tensors.keys()].filter((key) => key.startsWith("cache."));
  for (const [b, ids] of golden.prompts.entries()) {
    const runner = runnerOf(golden, device, oneStep);
    const sequence = runner.createSequence();
    await runner.append({ sequence, tokenIds: ids, outputs: 0 });
    for (const key of stored) {
      const [, l, ...rest] = key.split(".");
      const [kind, role] = rest;
      const [, rows, width] = golden.shape(key);
      const ratio = golden.config.compressRatios[Number(l)]!;
      const expected = golden.row(key, b);
      if (kind === "window") {
        const found = await cacheRows(runner, sequence, `layers.${l}.attn.window`, ids.length - rows!, rows!);
        assertClose(found, expected, key);
        continue;
      }
      const compressor = kind === "indexer" ? `layers.${l}.attn.indexer.compressor` : `layers.${l}.attn.compressor`;
      const cache = `${compressor}.${role!.endsWith("kv") ? "values" : "gates"}`;
      const closed = Math.floor(ids.length / ratio) * ratio;
      const isOverlap = role!.startsWith("overlap");
      const found = await cacheRows(runner, sequence, cache, isOverlap ? closed - ratio : closed, rows!);
      const channels = found.length / rows!;
      const kept = isOverlap ? found.filter((_, i) => i % channels < width!) : found;
      // The reference keeps the overlap's gates with their position bias; ours adds it when the entry is made.
      const bias = role === "overlap_gate" ? (await golden.checkpoint.load(`${compressor}.ape`)).data : undefined;
      const withBias = kept.map((x, i) => x + (bias?.[Math.floor(i / width!) * channels + (i % width!)] ?? 0));
      assertClose(withBias, expected, key);
    }
  }
}

/**
 * The module runs beside the model: a step of the model completes pairs, a step that drafts gives logits. Drafts leave nothing
 * behind, whatever was drafted.
 */
async function checkMtp(golden: Case, device: Device): Promise<void> {
  const { vocabSize } = golden.config;
  const ids = golden.prompts[0]!;
  const pairs = ids.length - 1;
  const keep = ["mtp.0.streams", "mtp.0.hidden"];
  const runner = (stepTokens: number) => new ModelRunner(golden.config, device, { stepTokens, keep, drafts: true });
  const check = (key: string, found: ArrayLike<number>, i: number) =>
    assertClose(found, golden.row(key, 0, i), `${key}, position ${golden.mtpPositions[i]}`);

  const whole = runner(oneStep);
  await whole.append({ sequence: whole.createSequence(), tokenIds: ids, outputs: 0 });
  const streams = whole.program.read("mtp.0.streams");
  const width = streams.length / pairs;
  golden.mtpPositions.forEach((p, i) => {
    check("mtp.output_streams", streams.subarray(p * width, (p + 1) * width), i);
  });

  const argmax = golden.row("mtp.argmax", 0);
  const drafted = new Map<number, Float32Array>();
  for (const chunk of [1, 7, 64]) {
    const stepwise = runner(chunk);
    const sequence = stepwise.createSequence();
    for (let end = chunk; end <= pairs; end += chunk) {
      await stepwise.append({ sequence, tokenIds: ids.slice(end - chunk, end), outputs: 0 });
      const p = end - 1;
      const draft = (tokenId: number, place: number) =>
        stepwise.draft([{ sequence, tokenId, place }], (program) => [
          Float32Array.from(program.read("draft.logits")),
          Float32Array.from(program.read("mtp.0.hidden")),
        ]);
      await draft((ids[end]! + 1) % vocabSize, 0); // something else first, and what would follow it
      await draft(0, 1);
      const [logits, hidden] = (await draft(ids[end]!, 0)) as [Float32Array, Float32Array];
      const i = golden.mtpPositions.indexOf(p);
      if (i >= 0) {
        check("mtp.hidden", hidden, i);
        check("mtp.logits", logits, i);
      }
      assert.equal(logits.indexOf(Math.max(...logits)), argmax[p], `argmax at ${p}`);
      if (chunk === 1) drafted.set(p, logits);
      else assert.deepEqual(logits, drafted.get(p), `position ${p}, chunks of ${chunk}`);
    }
  }
}

function assertClose(found: ArrayLike<number>, expected: ArrayLike<number>, where: string): void {
  assertWithin(found, expected, where, tolerance);
}
