/** Number codes, block scales and FP8/FP4 shards, bit for bit against ml_dtypes, nemo_automodel and transformers. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { MemorySource } from "../../src/format/byte-source.ts";
import { openSafetensors, readTensor } from "../../src/format/safetensors.ts";
import { e2m1BlockScale, e2m1BlockScaleE4m3, e4m3BlockScale } from "../../src/quant/block-scale.ts";
import {
  decodeBf16,
  decodeF16,
  e2m1Values,
  e4m3Values,
  e5m2Values,
  e8m0Values,
  encodeBf16,
  encodeE2m1,
  encodeE4m3,
  encodeE5m2,
  encodeF16,
} from "../../src/quant/number-codes.ts";
import { decodeE2m1Rows, decodeE4m3Blocks, decodeE8m0Scales } from "../../src/quant/scaled-blocks.ts";

const folder = join(import.meta.dirname, "../data/quant");

async function open(file: string) {
  const opened = await openSafetensors(new MemorySource(file, readFileSync(join(folder, file))));
  return async (name: string) => {
    const info = opened.tensors.get(name);
    assert.ok(info, name);
    const bytes = await readTensor(opened, info);
    return {
      ...info,
      bytes,
      floats: () => new Float32Array(bytes.buffer),
      halves: () => new Uint16Array(bytes.buffer),
    };
  };
}

/** Equal bits; NaN equals NaN and -0 equals +0. */
function assertSameFloats(found: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const same = found[i] === expected[i] || (Number.isNaN(found[i]) && Number.isNaN(expected[i]));
    assert.ok(same, `${what}, element ${i}: ${found[i]}, expected ${expected[i]}`);
  }
}

describe("number codes", async () => {
  const table = await open("tables.safetensors");
  for (const [name, values] of Object.entries({
    e4m3fn: e4m3Values,
    e5m2: e5m2Values,
    e2m1: e2m1Values,
    e8m0: e8m0Values,
  })) {
    test(`${name}: every code has its value`, async () => {
      assertSameFloats(values, (await table(`table.${name}`)).floats(), name);
    });
  }
  const encoders: [string, (x: number) => number, string][] = [
    ["e4m3fn", encodeE4m3, "saturate"],
    ["e5m2", encodeE5m2, "saturate"],
    ["e2m1", encodeE2m1, "code"],
  ];
  for (const [name, encode, how] of encoders) {
    test(`${name}: rounding is to nearest, ties to even, and saturates`, async () => {
      const input = (await table(`round.${name}.input`)).floats();
      const expected = (await table(`round.${name}.${how}`)).bytes;
      input.forEach((x, i) => {
        const isNan = Number.isNaN(x);
        if (!(isNan && name === "e2m1"))
          assert.equal(isNan ? encode(x) & 0x7f : encode(x), isNan ? expected[i]! & 0x7f : expected[i], `${x}`);
      });
    });
  }
  test("F16 and BF16 round and read back", async () => {
    for (const [name, encode, decode] of [
      ["f16", encodeF16, decodeF16],
      ["bf16", encodeBf16, decodeBf16],
    ] as const) {
      const input = (await table(`round.${name}.input`)).floats();
      const expected = (await table(`round.${name}.bits`)).halves();
      input.forEach((x, i) => {
        if (!Number.isNaN(x)) assert.equal(encode(x), expected[i], `${name} of ${x}`);
        else assert.ok(Number.isNaN(decodeOne(decode, encode(x))));
      });
      const decoded = new Float32Array(expected.length);
      decode(expected, decoded);
      decoded.forEach((x, i) => {
        if (!Number.isNaN(x)) assert.equal(encode(x), expected[i]);
      });
    }
  });
  test("block scales follow from the largest magnitude", async () => {
    const amax = (await table("scale.amax")).floats();
    const rules: [string, (x: number) => number][] = [
      ["fp8_ue8m0", e4m3BlockScale],
      ["fp4_ue8m0", e2m1BlockScale],
      ["fp4_e4m3", e2m1BlockScaleE4m3],
    ];
    for (const [name, rule] of rules) {
      const expected = (await table(`scale.${name}`)).bytes;
      amax.forEach((x, i) => {
        assert.equal(rule(x), expected[i], `${name} of ${x}`);
      });
    }
  });
});

function decodeOne(decode: (codes: Uint16Array, into: Float32Array) => void, code: number): number {
  const value = new Float32Array(1);
  decode(Uint16Array.of(code), value);
  return value[0]!;
}

describe("shards", async () => {
  const expected = await open("expected.safetensors");
  const shards: { file: string; weight: string; scale: string; block: [number, number] }[] = [
    { file: "v4-fp8-128x128", weight: "layers.0.attn.wq_a.weight", scale: ".scale", block: [128, 128] },
    { file: "v4-fp8-128x128", weight: "layers.0.ffn.shared_experts.w1.weight", scale: ".scale", block: [128, 128] },
    {
      file: "v3-fp8-128x128-f32",
      weight: "model.layers.3.mlp.down_proj.weight",
      scale: ".weight_scale_inv",
      block: [128, 128],
    },
    {
      file: "v3-fp8-128x128-f32",
      weight: "model.layers.3.self_attn.kv_a_proj_with_mqa.weight",
      scale: ".weight_scale_inv",
      block: [128, 128],
    },
    { file: "v41-fp8-32x32", weight: "layers.1.attn.wkv.weight", scale: ".scale", block: [32, 32] },
    { file: "v41-fp8-32x32", weight: "layers.1.engram.embed.weight", scale: ".scale", block: [1, 32] },
    { file: "all-codes", weight: "layers.0.attn.wo_b.weight", scale: ".scale", block: [128, 128] },
  ];
  for (const { file, weight, scale, block } of shards) {
    test(`${file}: ${weight} becomes the same float32 values`, async () => {
      const shard = await open(`${file}.safetensors`);
      const codes = await shard(weight);
      const scales = await shard(weight.replace(/\.weight$/, scale));
      const [rows, columns] = codes.shape as [number, number];
      const values = new Float32Array(rows * columns);
      const floats = scales.dtype === "F32" ? scales.floats() : decodeE8m0Scales(scales.bytes);
      decodeE4m3Blocks(codes.bytes, floats, { rows, columns, blockRows: block[0], blockColumns: block[1] }, values);
      assertSameFloats(values, (await expected(weight)).floats(), weight);
    });
  }
  for (const [file, weight] of [
    ["v4-fp4-experts", "layers.2.ffn.experts.0.w1.weight"],
    ["v4-fp4-experts", "layers.2.ffn.experts.5.w2.weight"],
    ["all-codes", "layers.2.ffn.experts.1.w3.weight"],
  ] as const) {
    test(`${file}: ${weight} (FP4) becomes the same float32 values`, async () => {
      const shard = await open(`${file}.safetensors`);
      const codes = await shard(weight);
      const scales = decodeE8m0Scales((await shard(weight.replace(/\.weight$/, ".scale"))).bytes);
      const values = new Float32Array(codes.bytes.length * 2);
      decodeE2m1Rows(codes.bytes, scales, values);
      assertSameFloats(values, (await expected(weight)).floats(), weight);
    });
  }
  test("a scale of 255 is refused", () => {
    assert.throws(() => decodeE8m0Scales(Uint8Array.of(127, 255)), /255/);
  });
});
