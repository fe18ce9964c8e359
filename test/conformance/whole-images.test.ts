/**
 * Products of BF16 weights whose rows of x are always computed together (the vision tower), on every body, against float64: whatever the
 * shape, at the ends of float32, and the same bits for any number of workers.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { KernelDevice } from "../../src/device/cpu/kernel-device.ts";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import type { VisionConfig } from "../../src/model/vision/config.ts";
import { recordImageEncoder, visionParameters } from "../../src/model/vision/image-encoder.ts";
import { imageInputs } from "../../src/model/vision/image-inputs.ts";
import { planImage, releasedImagePlan } from "../../src/model/vision/image-plan.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { countElements } from "../../src/tensor/shape.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { randomNumbers } from "../small-model.ts";

const float32 = new Float32Array(1);
const bits = new Uint32Array(float32.buffer);
function toBf16(value: number): number {
  float32[0] = value;
  return bits[0]! >>> 16;
}
function fromBf16(code: number): number {
  bits[0] = code << 16;
  return float32[0]!;
}

interface Product {
  readonly tokens: number;
  readonly rows: number;
  readonly columns: number;
  /** [tokens, columns], float32. */
  readonly x: Float32Array;
  /** [rows, columns], BF16 codes. */
  readonly weight: Uint16Array;
}

function example(tokens: number, rows: number, columns: number): Product {
  const random = randomNumbers(tokens + 7 * rows + 31 * columns);
  const x = Float32Array.from({ length: tokens * columns }, () => (random() - 0.5) * 2 ** Math.floor(8 * random()));
  const weight = Uint16Array.from({ length: rows * columns }, () => toBf16(random() - 0.5));
  return { tokens, rows, columns, x, weight };
}

async function giveBf16(device: KernelDevice, name: string, [rows, columns]: readonly number[], weight: Uint16Array) {
  const bytes = new Uint8Array(weight.buffer);
  const source = { read: async (offset: number, length: number) => bytes.slice(offset, offset + length) };
  const parts = [{ data: { source, offset: 0, length: bytes.length }, scales: undefined }];
  const blocks = { scaleIsFloat: false, blockRows: 1, blockColumns: 1 };
  await device.setMatrix(name, { format: "BF16", rows: rows!, columns: columns!, experts: 1, parts, ...blocks });
}

async function multiplied(device: KernelDevice, { tokens, rows, columns, x, weight }: Product): Promise<Float32Array> {
  await giveBf16(device, "w", [rows, columns], weight);
  const g = new Graph();
  const input = g.input("x", "f32", ["tokens", columns]);
  g.output("y", g.call(linear, [input, g.weight("w", [rows, columns])], { inAnyOrder: true }));
  const sizes = { tokens };
  const program = device.compile(g, { limits: sizes });
  await program.run({ sizes, inputs: { x } });
  return program.read("y") as Float32Array;
}

/** Each sum within a millionth of the sum of its magnitudes: what float32 sums keep, with a part of 2^-24 for every product. */
function assertProduct({ tokens, rows, columns, x, weight }: Product, y: Float32Array): void {
  const weights = Float64Array.from(weight, fromBf16);
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < rows; r++) {
      let [sum, magnitude] = [0, 0];
      for (let c = 0; c < columns; c++) {
        const one = weights[r * columns + c]! * x[t * columns + c]!;
        sum += one;
        magnitude += Math.abs(one);
      }
      const found = y[t * rows + r]!;
      if (!Number.isFinite(sum)) assert.equal(found, sum, `row ${t}, ${r}`);
      else {
        const error = Math.abs(found - sum);
        assert.ok(error <= 1e-6 * magnitude + 1e-35, `row ${t}, ${r} of ${rows}: ${found}, expected ${sum}`);
      }
    }
  }
}

const shapes: readonly (readonly [tokens: number, rows: number, columns: number])[] = [
  ...([
    [16, 32, 32],
    [17, 32, 64],
    [32, 64, 32],
    [33, 48, 96],
    [15, 64, 64],
    [1, 64, 64],
  ] as const),
  ...([
    [31, 33, 33],
    [47, 65, 31],
    [64, 95, 588],
    [40, 32, 1],
    [40, 31, 40],
    [16, 40, 513],
  ] as const),
  ...([
    [257, 32, 40],
    [300, 1100, 24],
    [513, 96, 1030],
    [272, 32, 7],
  ] as const),
];

/** A tower of the published proportions, with heads of 64 channels, and odd widths behind it. */
const config: VisionConfig = {
  ...{ ...releasedImagePlan, minPixels: 60_000 },
  ...{ numLayers: 2, hiddenSize: 128, numHeads: 2, intermediateSize: 176, ropeTheta: 10_000 },
  ...{ textHiddenSize: 104, imageTokenId: 5 },
};
const plan = planImage(300, 220, config);
const random = randomNumbers(3);
const weights = new Map(
  visionParameters(config).map(({ name, shape }) => {
    const scale = shape.length === 1 ? 0.1 : 2 / Math.sqrt(shape[1]!);
    const centre = name.includes("norm") ? 1 : 0;
    const codes = Uint16Array.from({ length: countElements(shape) }, () => toBf16(centre + scale * (random() - 0.5)));
    return [name, { shape, codes }] as const;
  }),
);
const pixels = Uint8Array.from({ length: 3 * plan.width * plan.height }, () => 256 * random());

async function rowsOfImage(device: Device & { setMatrix?: unknown }, asMatrices: boolean): Promise<Float32Array> {
  for (const [name, { shape, codes }] of weights) {
    if (asMatrices && shape.length === 2) await giveBf16(device as KernelDevice, name, shape, codes);
    else device.setWeight(name, Float32Array.from(codes, fromBf16));
  }
  const step = imageInputs(config, plan, pixels);
  const program = device.compile(recordImageEncoder(config), { limits: step.sizes });
  await program.run(step);
  return Float32Array.from(program.read("rows"));
}
const expectedRows = await rowsOfImage(new ReferenceDevice(), false);

for (const body of kernelBodiesHere) {
  describe(`rows that are computed together on ${body.name}`, async () => {
    const device = await body.create({ workers: 1 });
    const several = await body.create({ workers: 3 });
    after(() => {
      for (const one of [device, several]) one[Symbol.dispose]();
    });
    for (const [tokens, rows, columns] of shapes) {
      test(`${tokens} rows times ${rows} x ${columns}`, async () => {
        const product = example(tokens, rows, columns);
        const y = await multiplied(device, product);
        assertProduct(product, y);
        assert.deepEqual(await multiplied(several, product), y, "three workers give the same bits");
      });
    }

    test("zeros, numbers without a leading bit, and the greatest", async () => {
      const product = example(48, 64, 96);
      const { x, weight, columns } = product;
      x.fill(0, 0, columns);
      x.fill(1e-40, columns, 2 * columns);
      for (let c = 0; c < columns; c++) {
        x[2 * columns + c] = c % 2 === 0 ? 3.4028234663852886e38 : -3.4028234663852886e38;
        x[3 * columns + c] = 2 ** (c - 60) * (1 + 2 ** -23);
        x[4 * columns + c] = c === 5 ? 1 + 2 ** -23 : 0;
      }
      for (let c = 0; c < columns; c++) weight[c] = c % 7 === 0 ? 1 : toBf16(2 ** -20); // 1 has no leading bit
      for (let r = 1; r < 64; r++)
        for (let c = 0; c < columns; c++) weight[r * columns + c] = toBf16((c % 5) * 2 ** -12);
      const y = await multiplied(device, product);
      assertProduct(product, y);
      assert.ok(y.subarray(0, 64).every((value) => value === 0));
      assert.equal(y[4 * 64], (1 + 2 ** -23) * 2 ** -20, "all 24 bits of a number count");
    });

    test("a tower in BF16 gives the rows of the reference, whatever the number of workers", async () => {
      const rows = await rowsOfImage(device, true);
      rows.forEach((value, i) => {
        const error = Math.abs(value - expectedRows[i]!) / (1 + Math.abs(expectedRows[i]!));
        assert.ok(error < 2e-5, `value ${i}: ${value}, expected ${expectedRows[i]}`);
      });
      assert.deepEqual(await rowsOfImage(several, true), rows);
    });

    test("Infinity and NaN stay in their row", async () => {
      const product = example(40, 32, 64);
      const { x, weight, columns } = product;
      weight.fill(toBf16(0.5));
      x[3 * columns + 9] = Number.POSITIVE_INFINITY;
      x[5 * columns + 9] = Number.NEGATIVE_INFINITY;
      x[7 * columns + 9] = Number.NaN;
      new Uint32Array(x.buffer)[8 * columns + 9] = 0x7f800001; // a NaN that is Infinity without its lower half
      x[20 * columns + 9] = Number.POSITIVE_INFINITY;
      x[20 * columns + 40] = Number.NEGATIVE_INFINITY;
      assertProduct(product, await multiplied(device, product));
    });
  });
}
