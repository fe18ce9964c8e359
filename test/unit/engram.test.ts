/** The n-gram memory: which rows tokens name, and how rows of a table that is larger than memory are read and kept. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import type { StoredMatrix } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { folderFiles } from "../../src/engine/checkpoint-folder.ts";
import { type EngramInputs, EngramMemory } from "../../src/engine/engram/engram-memory.ts";
import { RowCache } from "../../src/engine/engram/row-cache.ts";
import { openRowTable } from "../../src/engine/engram/row-table.ts";
import { compressIds, engramTokenMap } from "../../src/engine/engram/token-map.ts";
import { FileSource } from "../../src/engine/file-source.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import { Pacer } from "../../src/engine/pacer.ts";
import { FormatError, ModelError } from "../../src/errors.ts";
import type { ByteSource } from "../../src/format/byte-source.ts";
import { parseConfig } from "../../src/model/parse-config.ts";
import { engramConstants } from "../../src/model/v41/engram-hash.ts";
import { e4m3Values } from "../../src/quant/number-codes.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { bestBody } from "../kernel-devices.ts";
import { randomEngram, smallConfigs, smallRunner } from "../small-model.ts";

const data = join(import.meta.dirname, "../data");
const readJson = (path: string) => JSON.parse(readFileSync(join(data, path), "utf8"));
const scratch = mkdtempSync(join(tmpdir(), "freehold-engram-"));
after(() => rmSync(scratch, { recursive: true }));

describe("constants of the hashes", () => {
  test("of V4.1 Flash are the released ones", () => {
    const config = parseConfig(readJson("configs/v4.1-flash.json"));
    assert.ok(config.architecture === "deepseek-v4.1");
    const released = readJson("v4.1/released-engram-constants.json");
    for (const [i, constants] of engramConstants(config.engram!).entries()) {
      assert.deepEqual(constants.multipliers.map(String), released.multipliers[i]);
      assert.deepEqual(constants.primes, released.primes[i]);
      assert.deepEqual(constants.offsets, released.offsets[i]);
      assert.equal(constants.rows, released.rows[i]);
    }
  });
});

describe("compressed ids", () => {
  test("of the recorded token strings are the recorded ones", async () => {
    const { tokens, decoded, token_map } = readJson("v4.1/engram/golden.json").engram;
    const steps = compressIds(
      tokens.length,
      (id) => decoded[id],
      (id) => tokens[id],
    );
    const found = await new Pacer().finish(steps);
    assert.deepEqual(Array.from(found), token_map);
  });

  test("of the DeepSeek tokenizer are 99092, and as other programs find them", async () => {
    const json = gunzipSync(readFileSync(join(data, "tokenizer/deepseek-v4-tokenizer.json.gz"))).toString();
    const tokenizer = Tokenizer.fromJson(JSON.parse(json));
    const config = parseConfig(readJson("configs/v4.1-flash.json"));
    assert.ok(config.architecture === "deepseek-v4.1");
    const map = await engramTokenMap(await folderFiles(scratch), tokenizer, config, config.engram!);
    const samples = [1000, 50_000, 100_000, 127_999, 129_279].map((id) => map[id]);
    assert.deepEqual(samples, [604, 10_486, 76_407, 97_811, 99_091]);
    const hash = createHash("sha256").update(new Uint8Array(map.buffer)).digest("hex");
    assert.equal(hash, "c60a86322ec17b4142bfef3c57a8d81fb428550cdf487f88a4320cb59fe46481");
  });

  for (const [what, map] of Object.entries({
    "too few ids": [0, 1, 2],
    text: ["a"],
    "no list": {},
    fractions: [0.5],
  })) {
    test(`from a file that holds ${what} are refused`, async () => {
      writeFileSync(join(scratch, "engram_token_map.json"), JSON.stringify(map));
      const config = parseConfig(readJson("v4.1/engram/config.json"));
      assert.ok(config.architecture === "deepseek-v4.1");
      const files = await folderFiles(scratch);
      await assert.rejects(
        engramTokenMap(files, undefined, config, config.engram!),
        (error) => error instanceof ModelError && error.code === "bad-token-map",
      );
      rmSync(join(scratch, "engram_token_map.json"));
    });
  }
});

/** A table of FP8 rows and their scales in one file, and what its rows are. */
async function fp8Table(name: string, rows: number, columns = 64) {
  const codes = Uint8Array.from({ length: rows * columns }, (_, i) => (i * 37 + (i >> 5)) % 127);
  const scales = Uint8Array.from({ length: rows * 2 }, (_, i) => 120 + (i % 9));
  const path = join(scratch, name);
  writeFileSync(path, Buffer.concat([codes, scales]));
  const source = await FileSource.open(path);
  const stored: StoredMatrix = {
    format: "FP8",
    rows,
    columns,
    experts: 1,
    parts: [
      {
        data: { source, offset: 0, length: codes.length },
        scales: { source, offset: codes.length, length: scales.length },
      },
    ],
    scaleIsFloat: false,
    blockRows: 1,
    blockColumns: 32,
  };
  const row = (r: number) =>
    Array.from(
      { length: columns },
      (_, c) => e4m3Values[codes[r * columns + c]!]! * 2 ** (scales[2 * r + (c >> 5)]! - 127),
    );
  return { stored, row, path, source };
}

describe("a table read by row", () => {
  const budgets = [
    { budgetBytes: 0, because: "with room for eight rows" },
    { budgetBytes: 5_000, because: "with room for a few" },
    { budgetBytes: 1 << 20, because: "that fits its budget" },
  ];
  for (const { budgetBytes, because } of budgets) {
    test(`${because} gives the rows that were asked for, in their order, again and again`, async () => {
      const { stored, row, source } = await fp8Table(`table-${budgetBytes}`, 500);
      const table = await openRowTable(stored, "table", { budgetBytes, threads: 2 });
      await source.close(); // a table has its own way to its file
      for (let batch = 0; batch < 20; batch++) {
        const wanted = Int32Array.from({ length: 1 + batch * 3 }, (_, i) => (i * i * 13 + batch * 7) % 500);
        if (batch % 3 === 1) table.prefetch(wanted);
        const into = new Float32Array(wanted.length * 64);
        await table.gather(wanted, into);
        for (const [i, r] of wanted.entries())
          assert.deepEqual(Array.from(into.subarray(i * 64, (i + 1) * 64)), row(r));
      }
      table[Symbol.dispose]();
    });
  }

  test("reads each row once as long as it is remembered, and counts", async () => {
    const { stored, source } = await fp8Table("counted", 500);
    const table = await openRowTable(stored, "table", { budgetBytes: 20_000, threads: 3 });
    const into = new Float32Array(4 * 64);
    await table.gather(Int32Array.of(5, 9, 5, 400), into);
    assert.deepEqual(table.counters, { lookups: 4, hits: 0, rowsRead: 3, batches: 1, reads: 6, readBytes: 3 * 66 });
    table.prefetch(Int32Array.of(7, 9));
    await table.gather(Int32Array.of(5, 7, 9, 400), into);
    assert.deepEqual(table.counters, { lookups: 8, hits: 4, rowsRead: 4, batches: 2, reads: 8, readBytes: 4 * 66 });
    table[Symbol.dispose]();
    await source.close();
  });

  test("whose file was cut off fails with what and where, and works for what is there", async () => {
    const { stored, path, source } = await fp8Table("cut", 500);
    truncateSync(path, 100 * 64);
    const table = await openRowTable(stored, "table", { budgetBytes: 0, threads: 2 });
    table.prefetch(Int32Array.of(300));
    await assert.rejects(
      async () => table.gather(Int32Array.of(300), new Float32Array(64)),
      (error) => error instanceof FormatError && error.code === "truncated" && /cut ends at byte/.test(error.message),
    );
    table[Symbol.dispose]();
    await source.close();
  });

  for (const [what, change] of [
    ["deleted", (path: string) => rmSync(path)],
    [
      "replaced by another",
      (path: string) => {
        writeFileSync(`${path}-new`, Buffer.alloc(500 * 66, 1));
        renameSync(`${path}-new`, path);
      },
    ],
  ] as const) {
    test(`whose file is ${what} after it was opened reads the rows that it was opened with`, async () => {
      const { stored, row, path, source } = await fp8Table(`changed ${what}`, 500);
      const table = await openRowTable(stored, "table", { budgetBytes: 0, threads: 2 });
      await source.close();
      change(path);
      const into = new Float32Array(2 * 64);
      await table.gather(Int32Array.of(300, 499), into);
      assert.deepEqual(Array.from(into), [...row(300), ...row(499)]);
      table[Symbol.dispose]();
    });
  }

  test("whose budget no memory can hold is refused with the option that says it", async () => {
    const { stored, source } = await fp8Table("huge", 500);
    const huge = { ...stored, parts: [{ data: { source, offset: 0, length: 2 ** 50 }, scales: undefined }] };
    const { engram } = smallConfigs["v4.1"];
    await assert.rejects(
      EngramMemory.open(smallConfigs["v4.1"], engram!, new Int32Array(0), [{ name: "huge", stored: huge }], {
        cacheBytes: 2 ** 52,
      }),
      (error) => error instanceof ModelError && error.where === "--engram-memory",
    );
    await source.close();
  });

  test("in a format that has no rows is refused", async () => {
    const { stored, source } = await fp8Table("format", 10);
    await assert.rejects(
      openRowTable({ ...stored, format: "FP4" }, "table", { budgetBytes: 0, threads: 1 }),
      ModelError,
    );
    await source.close();
  });
});

test("a cache of rows never gives another row's bytes, and keeps the newest of each", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(60), { maxLength: 200 }), (rows) => {
      const cache = new RowCache(8, 16 * 16);
      for (const row of rows) {
        const at = cache.find(row);
        if (at >= 0) assert.equal(new Int32Array(cache.bytes.buffer, at, 2)[1], row);
        else cache.add(row, new Uint8Array(Int32Array.of(7, row).buffer), 0);
        assert.ok(cache.find(row) >= 0);
      }
    }),
    { seed: 41 },
  );
});

describe("the memory of a model", () => {
  test("gives the same rows however the tokens are cut, and with another budget", async () => {
    const config = parseConfig(readJson("v4.1/engram/config.json"));
    assert.ok(config.architecture === "deepseek-v4.1");
    const engram = config.engram!;
    const tokenMap = Int32Array.from(readJson("v4.1/engram/engram_token_map.json"));
    const tables = await Promise.all(
      engram.layers.map(async (layer, i) => {
        const { stored } = await fp8Table(`memory-${layer}`, engram.tableRows[i]!, 32);
        return { name: `layer ${layer}`, stored: { ...stored, columns: 32, parts: stored.parts, blockColumns: 16 } };
      }),
    );
    const narrow = { ...config, engram: { ...engram, headDim: 32 } };
    const open = (cacheBytes: number) =>
      EngramMemory.open(narrow, narrow.engram, tokenMap, tables, { cacheBytes, readers: 2 });
    using small = await open(0);
    using large = await open(1 << 20);
    const ids = Array.from({ length: 40 }, (_, i) => (i * 11) % 68);
    const all = async ({ inputs, late }: EngramInputs) => {
      const read = Object.entries(late).map(async ([name, values]) => [name, await values] as const);
      return { ...inputs, ...Object.fromEntries(await Promise.all(read)) };
    };
    const whole = await all(large.inputs([{ before: [], tokenIds: ids }]));
    for (let cut = 0; cut < 40; cut += 7) {
      const [a, b] = [ids.slice(0, cut), ids.slice(cut)];
      small.prefetch([{ before: a, tokenIds: b }]);
      const parts = await all(
        small.inputs([
          { before: a, tokenIds: b },
          { before: [], tokenIds: a },
        ]),
      );
      for (const [input, values] of Object.entries(whole)) {
        const columns = values.length / 40;
        const joined = [
          ...parts[input]!.subarray(b.length * columns),
          ...parts[input]!.subarray(0, b.length * columns),
        ];
        assert.deepEqual(joined, Array.from(values), `${input}, cut at ${cut}`);
      }
    }
    assert.equal(small.counters.lookups, small.counters.tokens * 12);
    assert.ok(small.memoryBytes < large.memoryBytes);
  });

  test("counts ids that the tokenizer has not as padding, and never fails", async () => {
    const config = parseConfig(readJson("v4.1/engram/config.json"));
    assert.ok(config.architecture === "deepseek-v4.1");
    const { stored } = await fp8Table("one", 500, 32);
    const engram = { ...config.engram!, layers: [1], tableRows: [307], headDim: 32 };
    const tokenMap = Int32Array.from(readJson("v4.1/engram/engram_token_map.json"));
    using memory = await EngramMemory.open({ ...config, engram }, engram, tokenMap, [{ name: "one", stored }]);
    const rows = (tokenIds: number[]) => Array.from(memory.rows(0, [{ before: [], tokenIds }]));
    assert.deepEqual(rows([5, 99_999]), rows([5, engram.padTokenId]));
  });
});

describe("rows that are read while a step computes", () => {
  const config = smallConfigs["v4.1"];
  const tokenIds = Array.from({ length: 50 }, (_, i) => (i * 11) % config.vocabSize);

  test("hold up their own layer, not those below, and change no bit", async () => {
    using device = await bestBody.create({ workers: 2 });
    const plain = await smallRunner(config, device, 3);
    const expected = await plain.append({ sequence: plain.createSequence(), tokenIds, outputs: 50 });
    const gate = Promise.withResolvers<void>();
    using engram = await randomEngram(config, 3, (source) => ({
      ...reading(source),
      read: (offset, length) => gate.promise.then(() => source.read(offset, length)),
    }));
    const runner = new ModelRunner(config, device, { stepTokens: 256, engram });
    const { host } = device;
    const run = host.run.bind(host);
    let runs = 0;
    host.run = async (work, signal) => {
      const outcome = await run(work, signal);
      runs++;
      return outcome;
    };
    const step = runner.append({ sequence: runner.createSequence(), tokenIds, outputs: 50 });
    while (runs === 0) await new Promise((resolve) => setImmediate(resolve));
    gate.resolve();
    assert.deepEqual(await step, expected);
    assert.equal(runs, 3, "one part below each of the two layers, and one for the rest");
    host.run = run;
  });

  for (const kind of ["kernel", "reference"] as const)
    test(`that cannot be read fail the step and no later one (${kind} device)`, async () => {
      using device = kind === "kernel" ? await bestBody.create({ workers: 2 }) : new ReferenceDevice();
      const plain = await smallRunner(config, device, 3);
      const expected = await plain.append({ sequence: plain.createSequence(), tokenIds, outputs: 1 });
      let isBroken = false;
      using engram = await randomEngram(config, 3, (source) => ({
        ...reading(source),
        read: async (offset, length) => {
          if (isBroken) throw new FormatError("The disk is gone", { code: "truncated" });
          return source.read(offset, length);
        },
      }));
      const runner = new ModelRunner(config, device, { stepTokens: 256, engram });
      const sequence = runner.createSequence();
      await runner.append({ sequence, tokenIds: tokenIds.slice(0, 20), outputs: 0 });
      isBroken = true;
      const rest = { sequence, tokenIds: tokenIds.slice(20), outputs: 1 };
      await assert.rejects(runner.append(rest), /The disk is gone/);
      isBroken = false;
      assert.deepEqual(await runner.append(rest), expected);
    });
});

function reading({ name, size }: ByteSource) {
  return { name, size, close: async () => {} };
}
