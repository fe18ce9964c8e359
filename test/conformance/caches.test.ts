/** Rows of caches on every device: what was read can be put back, bit for bit, and nothing else changes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { DeviceError } from "../../src/errors.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { layoutName } from "../../src/tensor/paging.ts";
import { kernelBodiesHere, reportBodiesElsewhere } from "../kernel-devices.ts";
import { randomNumbers } from "../small-model.ts";

const devices: readonly { name: string; create: () => Promise<Device> }[] = [
  ...kernelBodiesHere.map(({ name, create }) => ({ name, create: () => create() as Promise<Device> })),
  { name: "reference", create: async () => new ReferenceDevice() },
  { name: "cpu in a process of its own", create: () => ProcessDevice.start({ threads: 1 }) },
];

const layout = { tokensPerRow: 4, reach: Number.POSITIVE_INFINITY };
const width = 6;
const rows = 40;

function program(device: Device) {
  const g = new Graph();
  g.cache("entries", width, layout);
  g.cache("other", 3, layout);
  const compiled = device.compile(g, { limits: {} });
  compiled.resizeCaches(layoutName(layout), rows);
  return compiled;
}

/** Any bits that a cache may hold: subnormal numbers, infinities and negative zeros among them. */
function anyBits(count: number, seed: number): Float32Array {
  const random = randomNumbers(seed);
  const bits = Uint32Array.from({ length: count }, () => Math.floor(random() * 2 ** 32));
  const values = new Float32Array(bits.buffer);
  values.set([0, -0, 1e-45, Number.POSITIVE_INFINITY, Number.MAX_VALUE]);
  return values.map((value) => (Number.isNaN(value) ? 1.5 : value));
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Float64Array) =>
  Buffer.from(buffer, byteOffset, byteLength);

describe("rows of a cache", () => {
  for (const { name, create } of devices) {
    test(`${name}: what is written is read back bit for bit, the rows around it stay`, async () => {
      using device = await create();
      const compiled = program(device);
      const before = await compiled.readCache("entries", 0, rows);
      const written = anyBits(7 * width, 5);
      compiled.writeCache("entries", 30, written);
      const after = await compiled.readCache("entries", 0, rows);
      assert.deepEqual(Float32Array.from(after.subarray(30 * width, 37 * width)), written);
      before.set(written, 30 * width);
      assert.deepEqual(after, before);
      // What a device gave, in its own precision, comes back as the same bytes.
      compiled.writeCache("entries", 0, after.subarray(30 * width, 37 * width));
      const again = await compiled.readCache("entries", 0, 7);
      assert.ok(bytesOf(again).equals(bytesOf(after.subarray(30 * width, 37 * width))));
      assert.deepEqual(Float32Array.from(await compiled.readCache("other", 0, rows)), new Float32Array(3 * rows));
    });
  }

  for (const { name, create } of devices.slice(0, -1)) {
    test(`${name}: parts of a row and rows behind the end are refused`, async () => {
      using device = await create();
      const compiled = program(device);
      const wrong = [
        [0, width + 1],
        [39, 2 * width],
        [-1, width],
        [0.5, width],
        [Number.NaN, width],
      ] as const;
      for (const [first, count] of wrong)
        assert.throws(() => compiled.writeCache("entries", first, new Float32Array(count)), DeviceError);
      assert.throws(() => compiled.writeCache("absent", 0, new Float32Array(width)), DeviceError);
    });
  }
  reportBodiesElsewhere();
});
