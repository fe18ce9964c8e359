/** The product of each weight format: few tokens from memory against what the same threads can read, and 64 tokens from the cache. */
import type { KernelDevice } from "../src/device/cpu/kernel-device.ts";
import { bytesOfRow, type MatrixFormat, matrixFormats } from "../src/device/cpu/matrix-formats.ts";
import { chooseDevice } from "../src/engine/choose-device.ts";
import { Graph } from "../src/tensor/graph.ts";
import { linear } from "../src/tensor/ops/linear.ts";
import { medianSeconds, report } from "./measure.ts";

const columns = 2048;
const memoryBytes = 256 << 20;

/** Seconds of products of a weight of so many rows with so many tokens each. */
async function secondsOf(
  device: KernelDevice,
  format: MatrixFormat,
  rows: number,
  numbers: readonly number[],
): Promise<number[]> {
  const length = bytesOfRow(format, columns) * rows;
  // No pattern here is a number too large or too small in any format: those would be slower.
  const bytes = new Uint8Array(length);
  const words = new Uint32Array(bytes.buffer, 0, length >> 2);
  for (let i = 0; i < words.length; i++) words[i] = (Math.imul(i, 2654435761) & 0x3f3f3f3f) | 0x10101010;
  const scales = new Uint8Array(rows * (columns / 32)).fill(120);
  const bytesAt = (data: Uint8Array<ArrayBuffer>) => ({
    source: { read: async () => data },
    offset: 0,
    length: data.length,
  });
  const apart = format === "FP8" || format === "FP4";
  const parts = [{ data: bytesAt(bytes), scales: apart ? bytesAt(scales) : undefined }];
  const [blockRows, blockColumns] = format === "FP8" ? [128, 128] : [1, 32];
  const name = `${format} ${rows}`;
  await device.setMatrix(name, {
    format,
    rows,
    columns,
    experts: 1,
    parts,
    scaleIsFloat: false,
    blockRows,
    blockColumns,
  });
  const seconds: number[] = [];
  for (const tokens of numbers) {
    const g = new Graph();
    g.output("y", g.call(linear, [g.input("x", "f32", ["tokens", columns]), g.weight(name, [rows, columns])], {}));
    const program = device.compile(g, { limits: { tokens } });
    const x = Float32Array.from({ length: tokens * columns }, (_, i) => Math.sin(i));
    seconds.push(await medianSeconds(() => program.run({ sizes: { tokens }, inputs: { x } })));
  }
  return seconds;
}

export async function benchKernels(): Promise<void> {
  using device = (await chooseDevice()) as KernelDevice; // "auto" is always one of the kernels
  const ceiling = await device.readCeiling();
  report("kernels", `${device.kernels}, ${device.threads} threads`);
  report("memory read by these threads", `${(ceiling / 1e9).toFixed(1)} GB/s`);
  for (const format of matrixFormats) {
    const rows = Math.floor(memoryBytes / bytesOfRow(format, columns) / 16) * 16;
    const fromMemory = (await secondsOf(device, format, rows, [1, 2, 8])).map(
      (seconds) => (rows * bytesOfRow(format, columns)) / seconds,
    );
    const [seconds] = await secondsOf(device, format, 512, [64]);
    const products = (64 * 512 * columns) / seconds!;
    const [one, two, eight] = fromMemory.map((perSecond) => (perSecond / 1e9).toFixed(1));
    const share = ((100 * fromMemory[0]!) / ceiling).toFixed(0);
    report(
      format,
      `${one} GB/s (${share} %); 2 tokens ${two}, 8 tokens ${eight}; 64 tokens ${(products / 1e9).toFixed(0)} G multiply-adds/s`,
    );
  }
}
