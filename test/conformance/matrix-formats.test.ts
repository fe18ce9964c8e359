/**
 * Every format that kernels read in place, on every body: rows bit by bit as the decoders of src/quant give them (which are proved
 * against recorded values), products with float32 and with int8 activations against float64, whatever the shape.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Activations, KernelDevice } from "../../src/device/cpu/kernel-device.ts";
import { bytesOfRow, hasBlocks, type MatrixFormat, matrixFormats } from "../../src/device/cpu/matrix-formats.ts";
import type { StoredMatrix } from "../../src/device/device.ts";
import { ggmlTypes } from "../../src/quant/ggml-types.ts";
import { decodeE2m1Rows, decodeE4m3Blocks, decodeE8m0Scales } from "../../src/quant/scaled-blocks.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { experts } from "../../src/tensor/ops/experts.ts";
import { gatherRows } from "../../src/tensor/ops/gather-rows.ts";
import { groupedLinear } from "../../src/tensor/ops/grouped-linear.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";

let state = 1;
function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}
const normal = () => (random() + random() + random() - 1.5) * 2;

interface Example {
  readonly stored: StoredMatrix;
  /** The values, [experts * rows, columns]. */
  readonly values: Float32Array;
}

function bytesAt(bytes: Uint8Array) {
  const source = { read: async (offset: number, length: number) => bytes.slice(offset, offset + length) };
  return { source, offset: 0, length: bytes.length };
}

/** What shares a scale in FP8: fewer rows than are worked on together, and the tiles of V4.1. */
const narrowTile = { rows: 8, columns: 128 };
const squareTile = { rows: 32, columns: 32 };

/** Bytes of a block, and where in it numbers in half precision are. */
const halves: Partial<Record<MatrixFormat, readonly [size: number, places: readonly number[]]>> = {
  Q8_0: [34, [0]],
  Q4_0: [18, [0]],
  Q4_K: [144, [0, 2]],
  Q6_K: [210, [208]],
};

/** A random matrix in a format: any bytes are legal blocks; the scales are kept to sizes that weights have. */
function example(
  format: MatrixFormat,
  rows: number,
  columns: number,
  count = 1,
  fp8Tile = narrowTile,
  code = () => random() * 256,
): Example {
  const all = rows * count;
  const rowBytes = bytesOfRow(format, columns);
  const bytes = Uint8Array.from({ length: all * rowBytes }, code);
  const view = new DataView(bytes.buffer);
  const half = () => Math.floor(random() * 2) * 0x8000 + 0x1c00 + Math.floor(random() * 0x0800); // +- 0.004 to 0.016
  const values = new Float32Array(all * columns);
  const shape = { format, rows, columns, experts: count, scaleIsFloat: false };
  const tiles = (blockRows: number, blockColumns: number) => {
    const scales = Uint8Array.from({ length: all * Math.ceil(columns / blockColumns) }, () => 118 + random() * 6);
    const parts = Array.from({ length: count }, (_, e) => {
      const scaleRows = Math.ceil(rows / blockRows);
      const each = scaleRows * Math.ceil(columns / blockColumns);
      const data = bytes.slice(e * rows * rowBytes, (e + 1) * rows * rowBytes);
      const own = scales.slice(e * each, (e + 1) * each);
      const into = values.subarray(e * rows * columns, (e + 1) * rows * columns);
      if (format === "FP8")
        decodeE4m3Blocks(data, decodeE8m0Scales(own), { rows, columns, blockRows, blockColumns }, into);
      else decodeE2m1Rows(data, decodeE8m0Scales(own), into);
      return { data: bytesAt(data), scales: bytesAt(own) };
    });
    return { stored: { ...shape, blockRows, blockColumns, parts }, values };
  };
  switch (format) {
    case "FP8":
      for (let i = 0; i < bytes.length; i++) if ((bytes[i]! & 0x7f) === 0x7f) bytes[i] = 0x38; // no NaN
      return tiles(fp8Tile.rows, fp8Tile.columns);
    case "FP4":
      return tiles(1, 32);
    case "F32":
      for (let i = 0; i < values.length; i++) view.setFloat32(4 * i, i % 97 === 0 ? 1e-40 : normal() / 8, true);
      break;
    case "F16":
      for (let i = 0; i < values.length; i++) view.setUint16(2 * i, i % 97 === 0 ? 0x8001 : half(), true);
      break;
    case "BF16":
      for (let i = 0; i < values.length; i++) view.setUint16(2 * i, 0x3c00 + Math.floor(random() * 0x0180), true);
      break;
    case "MXFP4":
      for (let at = 0; at < bytes.length; at += 17) bytes[at] = 118 + random() * 6;
      break;
    default: {
      const [size, places] = halves[format]!;
      for (let at = 0; at < bytes.length; at += size)
        for (const place of places) view.setUint16(at + place, half(), true);
    }
  }
  if (format === "F32") values.set(new Float32Array(bytes.buffer));
  else [...ggmlTypes.values()].find(({ name }) => name === format)!.decode!(bytes, values);
  const parts = [{ data: bytesAt(bytes), scales: undefined }];
  return { stored: { ...shape, blockRows: 1, blockColumns: 1, parts }, values };
}

/** Activations as the int8 path has them: blocks of 32, scale = greatest magnitude / 127, rounded to nearest, ties to even. */
function throughInt8(x: Float32Array): Float64Array {
  const y = new Float64Array(x.length);
  for (let b = 0; b < x.length; b += 32) {
    const block = x.subarray(b, b + 32);
    const scale = Math.fround(block.reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127);
    const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
    block.forEach((v, i) => {
      const scaled = Math.fround(v * inverse);
      const near = Math.round(scaled);
      y[b + i] = (Math.abs(scaled % 1) === 0.5 && near % 2 !== 0 ? near - 1 : near) * scale;
    });
  }
  return y;
}

function product(
  values: Float32Array,
  rows: number,
  columns: number,
  x: ArrayLike<number>,
  tokens: number,
): Float64Array {
  const y = new Float64Array(tokens * rows);
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += values[r * columns + c]! * x[t * columns + c]!;
      y[t * rows + r] = sum;
    }
  }
  return y;
}

/** |found - expected| against the size of the sum's terms. */
function assertNear(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  size: number,
  relative: number,
  what: string,
): void {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(found[i]! - expected[i]!);
    assert.ok(
      error <= relative * size,
      `${what}, element ${i}: ${found[i]}, expected ${expected[i]}, terms of ${size}`,
    );
  }
}

async function multiply(
  device: KernelDevice,
  { stored }: Example,
  x: Float32Array,
  tokens: number,
  groups = 1,
): Promise<ArrayLike<number>> {
  await device.setMatrix("w", stored);
  const { rows, columns } = stored;
  const g = new Graph();
  const weight = g.weight("w", [rows, columns]);
  if (groups === 1) g.output("y", g.call(linear, [g.input("x", "f32", ["tokens", columns]), weight], {}));
  else g.output("y", g.call(groupedLinear, [g.input("x", "f32", ["tokens", groups, columns]), weight], {}));
  const program = device.compile(g, { limits: { tokens } });
  await program.run({ sizes: { tokens }, inputs: { x } });
  return program.read("y");
}

/** So many tokens at once, of which a panel is made, have bitwise the products that each has alone, and that the first few have. */
async function sameInAnyNumber(
  device: KernelDevice,
  matrix: Example,
  x: Float32Array,
  tokens: number,
  what: string,
  groups = 1,
) {
  const { rows } = matrix.stored;
  const columns = matrix.stored.columns * groups;
  const together = Array.from(await multiply(device, matrix, x, tokens, groups));
  for (let t = 0; t < tokens; t++) {
    const alone = await multiply(device, matrix, x.slice(t * columns, (t + 1) * columns), 1, groups);
    assert.deepEqual(Array.from(alone), together.slice(t * rows, (t + 1) * rows), `${what}, token ${t}`);
  }
  for (let few = 2; few <= 9; few++) {
    const first = await multiply(device, matrix, x.slice(0, few * columns), few, groups);
    assert.deepEqual(Array.from(first), together.slice(0, few * rows), `${what}, ${few} tokens`);
  }
}

const shapes = [
  { rows: 1, columns: 256, tokens: 1 },
  { rows: 17, columns: 256, tokens: 2 },
  { rows: 33, columns: 768, tokens: 5 },
  { rows: 100, columns: 1280, tokens: 19 },
  { rows: 16, columns: 512, tokens: 40 },
  { rows: 20, columns: 576, tokens: 9 }, // two blocks behind the last eight
  { rows: 40, columns: 768, tokens: 36 }, // two groups of tokens, and fewer than are worth a tile register
];
const columnsOfBlock = (format: MatrixFormat) =>
  format === "Q4_K" || format === "Q6_K" ? 256 : hasBlocks(format) ? 32 : 1;

/** Columns that only formats without blocks can have. */
const oddShapes = [
  { rows: 3, columns: 1, tokens: 1 },
  { rows: 18, columns: 37, tokens: 7 },
  { rows: 5, columns: 515, tokens: 3 },
  { rows: 20, columns: 1088, tokens: 5 }, // a whole line behind the last stretch of 512
  { rows: 34, columns: 1100, tokens: 6 },
];

for (const body of kernelBodiesHere) {
  for (const activations of ["float32", "int8"] as Activations[]) {
    describe(`${body.name}, ${activations} activations`, async () => {
      const device = await body.create({ activations });
      after(() => device[Symbol.dispose]());
      for (const format of matrixFormats) {
        const isInt8 = activations === "int8" && hasBlocks(format);
        test(`${format}: rows are looked up bit by bit`, async () => {
          state = 5;
          const { stored, values } = example(format, 40, 1024);
          await device.setMatrix("w", stored);
          const index = Int32Array.from({ length: 21 }, (_, i) => (i * 13) % 40);
          const g = new Graph();
          g.output("y", g.call(gatherRows, [g.weight("w", [40, 1024]), g.input("index", "i32", ["n"])], {}));
          const program = device.compile(g, { limits: { n: 21 } });
          await program.run({ sizes: { n: 21 }, inputs: { index } });
          const found = program.read("y");
          index.forEach((row, i) => {
            const [is, should] = [
              found.subarray(i * 1024, (i + 1) * 1024),
              values.subarray(row * 1024, (row + 1) * 1024),
            ];
            for (let c = 0; c < 1024; c++)
              assert.ok(is[c] === should[c], `row ${row}, column ${c}: ${is[c]}, ${should[c]}`);
          });
        });
        for (const shape of hasBlocks(format) ? shapes : [...shapes, ...oddShapes]) {
          const { rows, columns, tokens } = shape;
          if (columns % columnsOfBlock(format) > 0) continue;
          const fp8Tile = tokens % 2 === 0 ? narrowTile : squareTile;
          test(`${format}: [${rows}, ${columns}] times ${tokens} tokens`, async () => {
            state = rows;
            const matrix = example(format, rows, columns, 1, fp8Tile);
            // A token of zeros, one of huge and one of tiny values, one with an outlier and a denormal, the others usual.
            const x = Float32Array.from({ length: tokens * columns }, (_, i) => {
              const t = Math.floor(i / columns);
              if (t === 1) return 0;
              if (t === 2) return normal() * 1e30;
              if (t === 3) return normal() * 1e-30;
              if (t === 4 && i % columns === 600) return 1e-42;
              return i % columns === 5 && t === 4 ? 1000 : normal();
            });
            const exact = isInt8 ? throughInt8(x) : Float64Array.from(x);
            const found = await multiply(device, matrix, x, tokens);
            const expected = product(matrix.values, rows, columns, exact, tokens);
            for (let t = 0; t < tokens; t++) {
              const most = exact.subarray(t * columns, (t + 1) * columns).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
              const weight = matrix.values.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
              const part = (y: ArrayLike<number>) => Array.prototype.slice.call(y, t * rows, (t + 1) * rows);
              assertNear(part(found), part(expected), most * weight * Math.sqrt(columns), 1e-6, `token ${t}`);
              // Alone, the token has bitwise the same product.
              if (t % 7 > 4) continue;
              const alone = await multiply(device, matrix, x.slice(t * columns, (t + 1) * columns), 1);
              assert.deepEqual(Array.from(alone), part(found), `token ${t} alone`);
            }
          });
        }
        test(`${format}: a token that holds no number has no number in any row, and no other token has any of it`, async () => {
          state = 9;
          const [rows, columns] = [33, 512];
          const matrix = example(format, rows, columns);
          for (const tokens of [1, 2, 8, 19]) {
            for (const strange of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
              const x = Float32Array.from({ length: tokens * columns }, normal);
              const marked = tokens >> 1;
              x[marked * columns + 300] = strange;
              const y = await multiply(device, matrix, x, tokens);
              for (let i = 0; i < tokens * rows; i++) {
                const isMarked = Math.floor(i / rows) === marked;
                assert.equal(Number.isFinite(y[i]), !isMarked, `${strange}, ${tokens} tokens, element ${i}: ${y[i]}`);
              }
            }
          }
        });
        test(`${format}: each of two to nine tokens is bitwise what it is alone`, async () => {
          state = 5;
          const tokens = 20;
          // An odd number of blocks, two blocks, groups of eight, two behind groups of sixteen, three behind 32; rows that are no tile.
          for (const [rows, columns] of [
            [40, 96],
            [40, 64],
            [40, 768],
            [40, 1088],
            [40, 1120],
            [5, 1280],
          ] as const) {
            if (columns % columnsOfBlock(format) > 0) continue;
            const matrix = example(format, rows, columns);
            const x = Float32Array.from({ length: tokens * columns }, normal);
            await sameInAnyNumber(device, matrix, x, tokens, `${rows} rows, ${columns} columns`);
          }
        });
        if (hasBlocks(format))
          test(`${format}: the greatest weights times the greatest activations overflow nowhere`, async () => {
            state = 13;
            const [rows, columns, most] = [17, 512, 9];
            // All of one sign, all of the other, and in turn: whatever has a bound is at it.
            const x = Float32Array.from({ length: most * columns }, (_, i) => {
              const t = Math.floor(i / columns) % 3;
              return t === 0 ? 1 : t === 1 ? -1 : 1 - 2 * (i % 2);
            });
            for (const code of [0x00, 0x77, 0x7f, 0x80, 0xff]) {
              const matrix = example(format, rows, columns, 1, narrowTile, () => code);
              const expected = product(matrix.values, rows, columns, isInt8 ? throughInt8(x) : x, most);
              const greatest = matrix.values.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
              for (const tokens of [1, 2, 3, 4, 7, 9]) {
                const found = await multiply(device, matrix, x.slice(0, tokens * columns), tokens);
                const what = `codes ${code}, ${tokens} tokens`;
                // One number added up again and again rounds the same way each time; an overflow is a part in a hundred.
                assertNear(found, expected.slice(0, tokens * rows), greatest * columns, 1e-5, what);
              }
            }
          });
        if (format === "FP8" || hasBlocks(format))
          test(`${format}: extreme scales, and NaN, are the same for one token and for several`, async () => {
            state = 7;
            const [rows, columns, tokens] = [24, 768, 17];
            const { stored } = example(format, rows, columns);
            const [part] = stored.parts;
            const data = await part!.data.source.read(0, part!.data.length);
            const scales = await part!.scales?.source.read(0, part!.scales.length);
            const extremes = [0, 1, 2, 127, 250, 254, 255];
            // Zero of both signs, the least and the greatest number, infinities and NaN; most rows have usual ones as well.
            const extremeHalves = [0, 0x8000, 1, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
            const [size, places] = halves[format] ?? [1, []];
            for (const [k, place] of places.entries())
              for (let i = 0; i < data.length / size; i += 5)
                new DataView(data.buffer).setUint16(i * size + place, extremeHalves[(i + k) % 7]!, true);
            if (format === "MXFP4")
              for (let i = 0; i < data.length / 17; i++) data[17 * i] = extremes[i % extremes.length]!;
            else
              scales?.forEach((_, i) => {
                scales[i] = extremes[i % extremes.length]!;
              });
            if (format === "FP8") data[3 * columns + 200] = 0x7f;
            if (format === "FP8") data[21 * columns + 300] = 0xff;
            const parts = [{ data: bytesAt(data), scales: scales && bytesAt(scales) }];
            const matrix = { stored: { ...stored, parts }, values: new Float32Array(0) };
            const x = Float32Array.from({ length: tokens * columns }, normal);
            await sameInAnyNumber(device, matrix, x, tokens, format);
          });
        if (format === "FP8")
          test("FP8: scales in float32, powers of two or not, are the same for one token and for several", async () => {
            state = 11;
            const [rows, columns, tokens] = [64, 512, 17];
            const { stored } = example(format, rows, columns, 1, squareTile);
            const [part] = stored.parts;
            const data = await part!.data.source.read(0, part!.data.length);
            const floats = [2 ** -7, 2 ** -9, 2 ** 100, 2 ** -120, -(2 ** -7), 0.003, 0, Number.POSITIVE_INFINITY];
            const scales = Float32Array.from({ length: (rows * columns) / 1024 }, (_, i) => floats[i % 2]!);
            // The rows of the second tile in float32 that is no exact power of two, or an extreme one, each in turn.
            for (const scale of floats) {
              scales.fill(scale, columns / 32 + 3, columns / 32 + 5);
              const parts = [{ data: bytesAt(data), scales: bytesAt(new Uint8Array(scales.slice().buffer)) }];
              const matrix = { stored: { ...stored, scaleIsFloat: true, parts }, values: new Float32Array(0) };
              const x = Float32Array.from({ length: tokens * columns }, normal);
              x[7] = Number.NaN;
              x.fill(1e-36, columns, 2 * columns);
              await sameInAnyNumber(device, matrix, x, tokens, `scale ${scale}`);
            }
          });
        if (format === "FP8")
          test("FP8: rows that share scales, in tiles, groups and stretches, of which one has NaN, are the same for any number of tokens", async () => {
            state = 17;
            const tokens = 20;
            const tiles = [squareTile, { rows: 48, columns: 16 }, { rows: 128, columns: 128 }];
            for (const fp8Tile of tiles)
              for (const groups of [1, 3])
                for (const columns of [64, 576, 1088]) {
                  const rows = 144;
                  const { stored } = example("FP8", rows, columns, 1, fp8Tile);
                  const [part] = stored.parts;
                  const data = await part!.data.source.read(0, part!.data.length);
                  // Each code stands in each row: zeros of both signs and denormals beside the greatest.
                  for (let i = 0; i < data.length; i++) if (i % columns < 64) data[i] = (i % columns) * 4 + (i % 3);
                  for (let i = 0; i < data.length; i++) if ((data[i]! & 0x7f) === 0x7f) data[i] = 0x80;
                  data[37 * columns + columns - 40] = 0x7f;
                  data[90 * columns + 21] = 0xff;
                  const parts = [{ data: bytesAt(data), scales: part!.scales }];
                  const matrix = { stored: { ...stored, parts }, values: new Float32Array(0) };
                  const x = Float32Array.from({ length: tokens * columns * groups }, normal);
                  const what = `${groups} groups, ${columns} columns, tiles of ${fp8Tile.rows} rows`;
                  await sameInAnyNumber(device, matrix, x, tokens, what, groups);
                }
          });
        test(`${format}: experts, stored together and one by one`, async () => {
          state = 3;
          const [count, width, hidden, tokens, k] = [4, 256, 512, 11, 2];
          const [gate, up, down] = [
            example(format, width, hidden, count),
            example(format, width, hidden, count),
            example(format, hidden, width, count),
          ];
          for (const [name, { stored }] of Object.entries({ gate, up, down })) await device.setMatrix(name, stored);
          const x = Float32Array.from({ length: tokens * hidden }, () => normal() / 4);
          const chosen = Int32Array.from({ length: tokens * k }, (_, i) =>
            i % 5 === 4 ? -1 : (i * 7 + (i >> 1)) % count,
          );
          const weights = Float32Array.from({ length: tokens * k }, () => random());
          const g = new Graph();
          const inputs = [
            g.input("x", "f32", ["tokens", hidden]),
            g.input("chosen", "i32", ["tokens", k]),
            g.input("weights", "f32", ["tokens", k]),
            g.weight("gate", [count, width, hidden]),
            g.weight("up", [count, width, hidden]),
            g.weight("down", [count, hidden, width]),
          ];
          g.output("y", g.call(experts, inputs, { limit: 10 }));
          const program = device.compile(g, { limits: { tokens } });
          await program.run({ sizes: { tokens }, inputs: { x, chosen, weights } });
          const found = program.read("y");
          const oracle = {
            inputs: [x, chosen, weights, gate.values, up.values, down.values],
            outputs: [new Float64Array(tokens * hidden)],
            inputShapes: [
              [tokens, hidden],
              [tokens, k],
              [tokens, k],
              [count, width, hidden],
              [count, width, hidden],
              [count, hidden, width],
            ],
            outputShapes: [[tokens, hidden]],
            attributes: { limit: 10 },
          };
          experts.reference(oracle);
          // Through int8 each of the two products carries an error of about 1/250 of its terms.
          const size = oracle.outputs[0]!.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
          assertNear(found, oracle.outputs[0]!, size, isInt8 ? 0.02 : 1e-5, "experts");
          for (const few of [1, 5])
            for (let t = 0; t + few <= tokens; t += few) {
              const part = {
                x: x.slice(t * hidden, (t + few) * hidden),
                chosen: chosen.slice(t * k, (t + few) * k),
                weights: weights.slice(t * k, (t + few) * k),
              };
              await program.run({ sizes: { tokens: few }, inputs: part });
              const together = found.slice(t * hidden, (t + few) * hidden);
              assert.deepEqual(program.read("y"), together, `${few} tokens from ${t}`);
            }
        });
      }
    });
  }
}
