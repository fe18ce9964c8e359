/**
 * A step that is stopped ends soon, wherever it is, and leaves nothing behind: not a page, not a bit of any later result. Where it
 * is stopped is random here; the seed of the delays is in the output.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, type TestContext, test } from "node:test";
import { commandSlots, readMemoryCommand } from "../../src/device/cpu/commands.ts";
import { ControlBlock, controlBytes, cursorBytes, words } from "../../src/device/cpu/control-block.ts";
import type { Region } from "../../src/device/cpu/kernel-host.ts";
import { wasmModules } from "../../src/device/cpu/wasm-host.ts";
import { WasmMemory } from "../../src/device/cpu/wasm-memory.ts";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { addonPath, loadAddon } from "../../src/engine/kernels/native-host.ts";
import { startWorkers } from "../../src/engine/kernels/worker-threads.ts";
import { type Append, ModelRunner, type Sequence } from "../../src/engine/model-runner.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { DeviceError } from "../../src/errors.ts";
import type { V4Config } from "../../src/model/config.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { giveRandomWeights, randomNumbers, smallConfigs } from "../small-model.ts";

const workers = 2;

/** Memory and workers of their own, with a control block that the test can read. */
interface Rig extends Disposable {
  allocate(bytes: number): Region;
  readonly block: ControlBlock;
  readonly words: Int32Array;
}

function nativeRig(): Rig {
  const addon = loadAddon();
  const regions: Region[] = []; // what only C knows of must not be collected
  const allocate = (bytes: number) => {
    const buffer = new SharedArrayBuffer(bytes + 64);
    const start = addon.address(new Uint8Array(buffer));
    const skip = (64 - (start % 64)) % 64;
    const region = { address: start + skip, bytes, view: new Uint8Array(buffer, skip, bytes), free: () => {} };
    regions.push(region);
    return region;
  };
  const control = allocate(controlBytes);
  const block = new ControlBlock(control, workers, 0, allocate(cursorBytes(workers)).address);
  const { view, address } = control;
  startWorkers(workers, { kind: "native", addon: addonPath(), control: view, address }, () => block.quit());
  return { ...rigOf(control, block), allocate };
}

async function wasmRig(): Promise<Rig> {
  const file = new URL(`../../src/device/cpu/prebuilt/${wasmModules.at(-1)!.file}`, import.meta.url);
  const module = await WebAssembly.compile(await readFile(file));
  const memory = new WasmMemory(module);
  const allocate = (bytes: number) => memory.allocate(bytes);
  const data = allocate(readBytes); // the largest first: memory that grows later leaves old views behind
  data.free();
  const control = allocate(controlBytes);
  const block = new ControlBlock(control, workers, 0, allocate(cursorBytes(workers)).address);
  const stacks = Array.from({ length: workers }, () => memory.allocateStack());
  const { address } = control;
  startWorkers(workers, { kind: "wasm", module, memory: memory.memory, address, stacks }, () => block.quit());
  return { ...rigOf(control, block), allocate };
}

function rigOf({ view }: Region, block: ControlBlock) {
  const shared = new Int32Array(view.buffer, view.byteOffset, controlBytes / 4);
  return { block, words: shared, [Symbol.dispose]: () => block.quit() };
}

/** What one command reads: a unit of work that one of the workers gets. */
const readBytes = 1 << 20;

/** A command that puts the exclusive or of `data` into `sums`, behind a barrier; its cursors are those of set `i`. */
function commands(rig: Rig, count: number, data: Region, sums: Region): Region {
  const region = rig.allocate(8 * count * commandSlots);
  const rows = new Float64Array(region.view.buffer, region.view.byteOffset, count * commandSlots);
  for (let i = 0; i < count; i++) {
    const row = readMemoryCommand(data.address, readBytes, sums.address + 64 * workers * (i % 32));
    row[1] = 1;
    row[2] = i % 32;
    rows.set(row, i * commandSlots);
  }
  return region;
}

/** The exclusive or of all numbers. */
function combined({ view }: Region, offset = 0, bytes = view.length): number {
  return new Int32Array(view.buffer, view.byteOffset + offset, bytes / 4).reduce((sum, value) => sum ^ value, 0);
}

describe("the workers", () => {
  for (const [name, create] of Object.entries({ native: nativeRig, wasm: wasmRig })) {
    test(`pass two barriers at most after the stop word is set, and the next step is whole: ${name}`, async (t) => {
      using rig = await create();
      const random = seeded(t);
      const data = rig.allocate(readBytes);
      data.view.forEach((_, i) => {
        data.view[i] = 256 * random();
      });
      const expected = combined(data);
      const sums = rig.allocate(64 * workers * 32);
      const count = 20_000;
      const { address } = commands(rig, count, data, sums);
      const scratch = { scratch: 0, scratchBytes: 0, tokens: 1 };
      let stopped = 0;
      for (let round = 0; round < 20; round++) {
        const controller = new AbortController();
        const before = Atomics.load(rig.words, words.generation);
        const step = rig.block.run({ commands: address, count, ...scratch }, controller.signal);
        const place = Math.floor(random() * 500);
        while (Atomics.load(rig.words, words.generation) - before < place) await new Promise(setImmediate);
        controller.abort();
        const atStop = Atomics.load(rig.words, words.generation);
        if ((await step) === "stopped") {
          stopped++;
          assert.ok(Atomics.load(rig.words, words.generation) - atStop <= 2, "workers went on");
        }
        // Every set of cursors is used once: one that was not reset would give its work to nobody.
        sums.view.fill(0);
        assert.equal(await rig.block.run({ commands: address, count: 32, ...scratch }), "done");
        for (let i = 0; i < 32; i++)
          assert.equal(combined(sums, 64 * workers * i, 64 * workers), expected, `cursors ${i}`);
      }
      assert.ok(stopped > 0, "no step was stopped");
    });
  }

  test("do not begin a step whose signal was aborted before", async () => {
    using rig = nativeRig();
    const before = Atomics.load(rig.words, words.sequence);
    const work = { commands: 0, count: 0, scratch: 0, scratchBytes: 0, tokens: 1 };
    assert.equal(await rig.block.run(work, AbortSignal.abort()), "stopped");
    assert.equal(Atomics.load(rig.words, words.sequence), before);
    assert.equal(await rig.block.run(work), "done");
  });
});

const smallConfig = smallConfigs.v4;

/** Many layers of every kind. */
const config: V4Config = {
  ...smallConfig,
  numLayers: 12,
  compressRatios: repeated(smallConfig.compressRatios, 12),
  hashRouted: repeated(smallConfig.hashRouted, 12),
};

function repeated<T>(pattern: readonly T[], length: number): T[] {
  return Array.from({ length }, (_, i) => pattern[i % pattern.length]!);
}

const named = (name: string) => kernelBodiesHere.filter((body) => body.name.startsWith(name)).at(-1);
const devices: Record<string, (() => Promise<Device>) | undefined> = {
  native: () => named("native")!.create(),
  wasm: named("wasm") && (() => named("wasm")!.create()),
  reference: async () => new ReferenceDevice(),
  "native in a process": () => ProcessDevice.start({ device: "cpu", threads: 1 }),
};

describe("a stopped step", () => {
  for (const [name, create] of Object.entries(devices)) {
    if (create === undefined) continue;
    test(`leaves caches, pages and results as they were, 100 times: ${name}`, async (t) => {
      using device = await create();
      giveRandomWeights(config, device, 5);
      const runner = new ModelRunner(config, device, { stepTokens: 256, context: 1024 });
      await stopOften(t, runner, 100);
    });
  }

  test("that was to compute tokens again which the cache had lost does not lose them from the sequence", async () => {
    using device = await named("native")!.create();
    giveRandomWeights(smallConfig, device, 5);
    const runner = new ModelRunner(smallConfig, device, { stepTokens: 64, context: 512 });
    using whole = runner.createSequence();
    const known = tokens(300, 1);
    await runner.append({ sequence: whole, tokenIds: known.slice(0, 200), outputs: 0 });
    const expected = await runner.step([{ sequence: whole, tokenIds: [7], outputs: 1 }]);
    using sequence = runner.createSequence();
    await runner.append({ sequence, tokenIds: known, outputs: 0 });
    sequence.rewind(100); // further than the cache reaches back
    assert.equal(sequence.cache.length, 0);
    const batch = [{ sequence, tokenIds: [7], outputs: 1 }];
    await isStopped(runner, batch, 0);
    if (sequence.length === 201) sequence.rewind(1);
    assert.deepEqual(sequence.tokenIds, known.slice(0, 200));
    const controller = new AbortController();
    const step = runner.step(batch, controller.signal);
    controller.abort();
    await assert.rejects(step, { name: "AbortError" });
    assert.deepEqual(sequence.tokenIds, known.slice(0, 200));
    assert.deepEqual(await runner.step(batch), expected);
  });

  test("computes no op after the signal was aborted, whichever op it was aborted in: reference", async () => {
    const device = new ReferenceDevice();
    giveRandomWeights(smallConfig, device, 5);
    const runner = new ModelRunner(smallConfig, device, { stepTokens: 16, context: 64 });
    let computed = 0;
    let abort = (_op: number) => {};
    const { nodes } = runner.program.graph;
    for (const [i, node] of nodes.entries()) {
      const reference: typeof node.op.reference = (call) => {
        node.op.reference(call);
        abort(++computed);
      };
      nodes[i] = { ...node, op: { ...node.op, reference } };
    }
    using sequence = runner.createSequence();
    const batch = [{ sequence, tokenIds: [1, 2, 3, 4, 5], outputs: 1 }];
    for (let place = 1; place < nodes.length; place++) {
      const controller = new AbortController();
      computed = 0;
      abort = (op) => {
        if (op === place) controller.abort(new Error("enough"));
      };
      await assert.rejects(runner.step(batch, controller.signal), /enough/);
      assert.equal(computed, place);
      assert.equal(usedPages(runner), 0);
    }
    abort = () => {};
    await runner.step(batch);
    assert.equal(sequence.length, 5);
  });
});

test("the event loop of the caller turns while the reference device computes", async () => {
  const device = new ReferenceDevice();
  giveRandomWeights(config, device, 5);
  const runner = new ModelRunner(config, device, { stepTokens: 256, context: 256 });
  using sequence = runner.createSequence();
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await runner.step([{ sequence, tokenIds: tokens(256, 1), outputs: 1 }]);
  clearInterval(timer);
  assert.ok(turns > 2, `${turns} turns`);
});

/** Steps over forks of the same sequences, which are stopped at random times and then computed again. */
async function stopOften(t: TestContext, runner: ModelRunner, rounds: number): Promise<void> {
  const random = seeded(t);
  const bases = [3, 60, 129, 300].map(() => runner.createSequence());
  for (const [i, length] of [3, 60, 129, 300].entries())
    await runner.append({ sequence: bases[i]!, tokenIds: tokens(length, i), outputs: 0 });
  const forks = () => bases.map((sequence) => sequence.fork());
  /** A chunk of a prompt, and the next tokens of three answers, of which one has a draft. */
  const batchOf = (sequences: readonly Sequence[], chunked: number): Append[] =>
    sequences.map((sequence, i) => {
      const count = i === chunked ? 100 : 1 + (i % 2);
      return { sequence, tokenIds: tokens(count, 10 + i), outputs: i === chunked ? 1 : count };
    });
  const undisturbed: Float32Array[][][] = [];
  let wholeMs = Number.POSITIVE_INFINITY;
  for (const chunked of bases.keys()) {
    const sequences = forks();
    const started = performance.now();
    undisturbed.push(await runner.step(batchOf(sequences, chunked)));
    wholeMs = Math.min(wholeMs, performance.now() - started);
    for (const sequence of sequences) sequence[Symbol.dispose]();
  }
  const pages = usedPages(runner);
  const { memoryBytes } = runner.program;
  let stopped = 0;
  for (let round = 0; round < rounds; round++) {
    const sequences = forks();
    const chunked = round % bases.length;
    const batch = batchOf(sequences, chunked);
    if (!(await isStopped(runner, batch, random() * wholeMs))) {
      for (const sequence of sequences) sequence[Symbol.dispose]();
      continue;
    }
    stopped++;
    for (const [i, sequence] of sequences.entries()) {
      assert.equal(sequence.length, bases[i]!.length);
      assert.equal(sequence.cache.length, bases[i]!.length);
      for (const { name } of runner.cache.layouts)
        assert.equal(sequence.cache.pagesOf(name).size, bases[i]!.cache.pagesOf(name).size, `pages of ${name}`);
    }
    assert.throws(() => runner.program.read("logits"), DeviceError);
    // The cancelled one goes; in every second round it comes back.
    const again = round % 2 === 0 ? batch : batch.toSpliced(chunked, 1);
    if (again !== batch) sequences[chunked]![Symbol.dispose]();
    const expected = undisturbed[chunked]!.filter((_, i) => again.includes(batch[i]!));
    assert.deepEqual(await runner.step(again), expected);
    for (const sequence of sequences) sequence[Symbol.dispose]();
    assert.equal(usedPages(runner), pages);
  }
  t.diagnostic(`${stopped} of ${rounds} steps were stopped; a whole one took ${wholeMs.toFixed(0)} ms`);
  assert.ok(stopped > 0, "no step was stopped");
  assert.equal(runner.program.memoryBytes, memoryBytes);
  for (const sequence of bases) sequence[Symbol.dispose]();
  assert.equal(usedPages(runner), 0);
}

/** Runs a step and aborts it after some time; false when it was done before. */
async function isStopped(runner: ModelRunner, batch: readonly Append[], afterMs: number): Promise<boolean> {
  const controller = new AbortController();
  const reason = new Error("cancelled");
  const step = runner.step(batch, controller.signal).then(
    () => false,
    (error) => {
      assert.equal(error, reason);
      return true;
    },
  );
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  controller.abort(reason);
  return step;
}

function usedPages({ cache }: ModelRunner): number {
  return cache.layouts.reduce((sum, { pool }) => sum + pool.used, 0);
}

function tokens(count: number, seed: number): number[] {
  const random = randomNumbers(seed + 1);
  return Array.from({ length: count }, () => Math.floor(random() * smallConfig.vocabSize));
}

function seeded(t: TestContext): () => number {
  const seed = Number(process.env.FREEHOLD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`FREEHOLD_TEST_SEED=${seed}`);
  return randomNumbers(seed);
}
