/** GGUF files of gguf-py and ggml: metadata of all types, shapes, splits, every block type bit for bit; and hostile ones. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError } from "../../src/errors.ts";
import { MemorySource } from "../../src/format/byte-source.ts";
import { type GgufList, type GgufValue, openGguf } from "../../src/format/gguf.ts";
import { openSafetensors, readTensor } from "../../src/format/safetensors.ts";
import { ggmlTypes } from "../../src/quant/ggml-types.ts";
import { readGzippedJson } from "./deepseek-tokenizer.ts";
import { testHostileFiles } from "./hostile-cases.ts";

interface RecordedFile {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: [string, string, unknown][];
  readonly tensors: {
    name: string;
    type: string;
    shape: number[];
    file_offset: number;
    bytes: number;
    sha256: string;
    dequant_sha256?: string;
  }[];
}

const folder = join(import.meta.dirname, "../data");
const recorded = (readGzippedJson("gguf/gguf.json.gz") as { files: Record<string, RecordedFile> }).files;
const read = (file: string) => readFileSync(join(folder, file));
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

testHostileFiles("gguf", openGguf, /whichever|what the padding spells/);

/** As the recorded values are written: 64-bit integers as text, floats beyond JSON as words. */
function written(value: GgufValue, type: string): unknown {
  if (typeof value === "object") return Array.from(value, (item) => written(item, type.replace("ARRAY:", "")));
  if (/U?INT64/.test(type)) return String(value);
  if (typeof value === "number" && !Number.isFinite(value))
    return String(value).replace("Infinity", "inf").toLowerCase();
  return value;
}

describe("GGUF files", () => {
  for (const name of [
    "metadata.gguf",
    "block-types.gguf",
    "shapes-align64.gguf",
    "split-00001-of-00002.gguf",
    "split-00002-of-00002.gguf",
  ]) {
    test(`${name}: metadata and tensors are the recorded ones`, async () => {
      const bytes = read(`gguf/${name}`);
      const file = await openGguf(new MemorySource(name, bytes));
      const expected = recorded[name]!;
      assert.equal(file.version, expected.version);
      assert.equal(file.alignment, expected.alignment);
      const entries = [...file.metadata].map(([key, { type, value }]) => [key, type, written(value, type)]);
      assert.deepEqual(entries, expected.metadata);
      for (const tensor of expected.tensors) {
        const found = file.tensors.get(tensor.name)!;
        assert.deepEqual(
          [found.type.name, found.shape, found.begin, found.end - found.begin],
          [tensor.type, tensor.shape, tensor.file_offset, tensor.bytes],
        );
        const data = bytes.subarray(found.begin, found.end);
        assert.equal(sha256(data), tensor.sha256, tensor.name);
        if (tensor.dequant_sha256 === undefined || found.type.decode === undefined) continue;
        const values = new Float32Array(found.shape.reduce((product, dim) => product * dim, 1));
        found.type.decode(data, values);
        const withoutMinusZero = values.map((value) => value + 0);
        assert.equal(
          sha256(new Uint8Array(withoutMinusZero.buffer)),
          tensor.dequant_sha256,
          `${tensor.name}, dequantised`,
        );
      }
    });
  }

  test("a header of several reads is the same as one that fits the first", async () => {
    // 200,000 strings: beyond the first megabyte.
    const bytes = ggufWithStrings(200_000);
    const file = await openGguf(new MemorySource("long", bytes));
    const list = file.metadata.get("list")!.value as GgufList;
    assert.equal(list.length, 200_000);
    assert.deepEqual(new Set(list), new Set(["list"]));
    await assert.rejects(openGguf(new MemorySource("cut", bytes.subarray(0, bytes.length - 3))), FormatError);
  });

  test("with any bytes changed are accepted or refused with a FormatError", async () => {
    const valid = read("gguf/split-00001-of-00002.gguf");
    const change = fc.record({ at: fc.nat(300), to: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Uint8Array.from(valid);
        for (const { at, to } of changes) bytes[at] = to;
        try {
          await openGguf(new MemorySource("x", bytes));
        } catch (error) {
          assert.ok(error instanceof FormatError, `${error}`);
        }
      }),
      { numRuns: 2000, seed: 6 },
    );
  });
});

function ggufWithStrings(count: number): Uint8Array {
  const text = new TextEncoder().encode("list");
  const head = 24 + 8 + text.length + 4 + 4 + 8;
  const bytes = new Uint8Array(head + count * 12);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("GGUF"));
  view.setUint32(4, 3, true);
  view.setBigUint64(16, 1n, true);
  view.setBigUint64(24, 4n, true);
  bytes.set(text, 32);
  view.setUint32(36, 9, true);
  view.setUint32(40, 8, true);
  view.setBigUint64(44, BigInt(count), true);
  for (let i = 0; i < count; i++) {
    view.setBigUint64(head + 12 * i, 4n, true);
    bytes.set(text, head + 12 * i + 8);
  }
  return bytes;
}

describe("block types", async () => {
  const file = await openSafetensors(new MemorySource("ggml-blocks", read("quant/ggml-blocks.safetensors")));
  const tensor = async (name: string) => readTensor(file, file.tensors.get(name)!);
  for (const { name, decode } of ggmlTypes.values()) {
    const sets = ["", ".random", ".imatrix"]
      .map((kind) => `${name.toLowerCase()}${kind}`)
      .filter((set) => file.tensors.has(`${set}.bytes`) && file.tensors.has(`${set}.dequant`));
    if (decode === undefined || sets.length === 0) continue;
    test(`${name}: blocks of ${sets.join(", ")} become the same float32 values, bit for bit`, async () => {
      for (const set of sets) {
        const expected = new Float32Array((await tensor(`${set}.dequant`)).buffer);
        const found = new Float32Array(expected.length);
        decode(await tensor(`${set}.bytes`), found);
        for (let i = 0; i < expected.length; i++) {
          const same = found[i] === expected[i] || (Number.isNaN(found[i]) && Number.isNaN(expected[i]));
          assert.ok(same, `${set}, element ${i}: ${found[i]}, expected ${expected[i]}`);
        }
      }
    });
  }
  test("all types but the five with large codebooks are decoded", () => {
    const undecoded = [...ggmlTypes.values()].filter(({ decode }) => decode === undefined).map(({ name }) => name);
    assert.deepEqual(undecoded, [
      "Q8_1",
      "Q8_K",
      "IQ2_XS",
      "IQ1_S",
      "IQ3_S",
      "IQ2_S",
      "I8",
      "I16",
      "I32",
      "I64",
      "F64",
      "IQ1_M",
    ]);
  });
});
