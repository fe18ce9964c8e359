/**
 * Images: how long decoding takes, how fast bombs and damaged pixels are refused, and what the vision tower of V4.1 costs at its published size
 * (random weights in BF16).
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { crc32, deflateSync } from "node:zlib";
import mozjpegEncoder from "@jsquash/jpeg/codec/enc/mozjpeg_enc.js";
import { defaultOptions } from "@jsquash/jpeg/meta.js";
import { initEmscriptenModule } from "@jsquash/jpeg/utils.js";
import type { Device } from "../src/device/device.ts";
import { chooseDevice } from "../src/engine/choose-device.ts";
import { ImageEncoder } from "../src/engine/vision/image-encoder.ts";
import { ImageReader } from "../src/media/image-reader.ts";
import type { VisionConfig } from "../src/model/vision/config.ts";
import { visionParameters } from "../src/model/vision/image-encoder.ts";
import { planImage, releasedImagePlan } from "../src/model/vision/image-plan.ts";
import { countElements } from "../src/tensor/shape.ts";
import { report } from "./measure.ts";

const released: VisionConfig = {
  ...releasedImagePlan,
  ...{ numLayers: 32, hiddenSize: 1024, numHeads: 16, intermediateSize: 2816, ropeTheta: 10_000 },
  ...{ textHiddenSize: 5120, imageTokenId: 129_264 },
};

export async function benchImages(): Promise<void> {
  await benchDecoding(4000, 3000);
  await benchRefusals();
  await benchDamage();
  await benchTower([[546, 546]]);
}

async function benchDecoding(width: number, height: number): Promise<void> {
  using reader = new ImageReader({ timeMs: 60_000 });
  const rgba = photo(width, height);
  const files: readonly (readonly [string, Uint8Array])[] = [
    ["JPEG", await jpegOf(rgba, width, height, false)],
    ["JPEG, progressive", await jpegOf(rgba, width, height, true)],
    ["PNG", pngOf(rgba, width, height)],
  ];
  for (const [name, bytes] of files) {
    const size = `${((width * height) / 1e6).toFixed(0)} MP, ${(bytes.length / 1e6).toFixed(1)} MB`;
    for (const fit of [undefined, (w: number, h: number) => planImage(w, h, releasedImagePlan)]) {
      const started = performance.now();
      await reader.read(bytes, fit === undefined ? {} : { fit });
      const what = fit === undefined ? "decoded" : "decoded and fitted";
      report(`${name} (${size})`, `${(performance.now() - started).toFixed(0)} ms ${what}, thread started`);
    }
  }
}

async function benchRefusals(): Promise<void> {
  using reader = new ImageReader();
  const bombs: readonly (readonly [string, Uint8Array])[] = [
    ["PNG of 30,000 x 30,000", pngChunks(30_000, 30_000, 1, 0, deflateSync(new Uint8Array(30_000 * 3751)))],
    [
      "GIF of 65,535 x 65,535",
      Uint8Array.from([...Buffer.from("GIF89a"), 255, 255, 255, 255, 0, 0, 0, 44, 0, 0, 0, 0, 1, 0, 1, 0, 0]),
    ],
    [
      "JPEG of 65,500 x 65,500",
      Uint8Array.of(255, 216, 255, 192, 0, 17, 8, 255, 220, 255, 220, 3, 1, 17, 0, 2, 17, 0, 3, 17, 0),
    ],
    ["30 MB of nothing", new Uint8Array(30e6)],
    ["30 MB of fill bytes", new Uint8Array(30e6).fill(255).with(1, 216)],
  ];
  for (const [name, bytes] of bombs) report(name, await refusal(reader, bytes));
}

/** Files that are whole by their headers. The thread has decoded before, as that of a server has. */
async function benchDamage(): Promise<void> {
  using reader = new ImageReader();
  const [width, height] = [1000, 750];
  const rgba = photo(width, height);
  const jpeg = await jpegOf(rgba, width, height, false);
  const progressive = await jpegOf(rgba, width, height, true);
  const png = pngOf(rgba, width, height);
  // A block of a kind that deflate does not have, behind two that hold their bytes as they are.
  const pixels = deflateSync(new Uint8Array(height * (4 * width + 1)), { level: 0 });
  const second = 2 + 5 + (pixels[3]! | (pixels[4]! << 8));
  pixels[second + 5 + (pixels[second + 1]! | (pixels[second + 2]! << 8))] = 6;
  const damaged: readonly (readonly [string, Uint8Array])[] = [
    ["PNG, a byte of its pixels changed", png.map((byte, i) => (i === png.length >> 1 ? byte ^ 255 : byte))],
    ["PNG, a broken zlib stream", pngChunks(width, height, 8, 6, pixels)],
    ["JPEG, codes that do not exist", new Uint8Array(jpeg).fill(0xfe, jpeg.length >> 1, (jpeg.length >> 1) + 4096)],
    ["JPEG, cut in its middle, with an end", withEnd(jpeg.subarray(0, jpeg.length >> 1))],
    ["progressive JPEG, cut likewise", withEnd(progressive.subarray(0, progressive.length >> 1))],
    [
      "30 MB of JPEG segments and noise",
      withEnd(new Uint8Array(30e6).fill(0xa5).with(0, 255).with(1, 216).with(2, 255)),
    ],
  ];
  for (const bytes of [jpeg, png, jpeg, png]) await reader.read(bytes);
  for (const [name, bytes] of damaged)
    report(`${name} (${(bytes.length / 1e6).toFixed(1)} MB)`, await refusal(reader, bytes));
}

const withEnd = (bytes: Uint8Array) => Buffer.concat([bytes, Uint8Array.of(0xff, 0xd9)]);

async function refusal(reader: ImageReader, bytes: Uint8Array): Promise<string> {
  const [memory, started] = [process.memoryUsage.rss(), performance.now()];
  const code = await reader.read(bytes).then(
    () => "read",
    (error: { code: string }) => error.code,
  );
  const grown = (process.memoryUsage.rss() - memory) / 2 ** 20;
  return `${code} after ${(performance.now() - started).toFixed(1)} ms, ${grown.toFixed(0)} MiB more`;
}

async function benchTower(sizes: readonly (readonly [number, number])[]): Promise<void> {
  const device = await chooseDevice();
  for (const { name, shape } of visionParameters(released)) await giveRandomWeight(device, name, shape);
  using images = new ImageEncoder(released, device, { timeMs: 60_000 });
  for (const [width, height] of sizes) {
    const prepared = await images.prepare(pngOf(photo(width, height), width, height));
    const { patchRows, patchColumns, tokens } = prepared.plan;
    const started = performance.now();
    await images.imageRows(prepared);
    const seconds = (performance.now() - started) / 1000;
    const work = operations(released, patchRows * patchColumns) / seconds / 1e9;
    report(
      `tower, ${width} x ${height}`,
      `${patchRows * patchColumns} patches, ${tokens} tokens: ${seconds.toFixed(1)} s, ${work.toFixed(0)} Gflop/s (${device.kernels}, ${device.threads} threads)`,
    );
  }
  device[Symbol.dispose]();
}

/** Multiplications and additions of the layers. */
function operations({ numLayers, hiddenSize: c, intermediateSize: f }: VisionConfig, patches: number): number {
  return 2 * numLayers * patches * (4 * c * c + 3 * c * f + 2 * patches * c);
}

async function giveRandomWeight(device: Device, name: string, shape: readonly number[]): Promise<void> {
  const count = countElements(shape);
  if (shape.length === 1 || device.setMatrix === undefined) {
    device.setWeight(name, new Float32Array(count).fill(name.includes("norm") ? 1 : 0.01));
    return;
  }
  const [rows, columns] = shape as [number, number];
  // BF16 codes of both signs near 1 / sqrt(columns).
  const exponent = Math.round(127 - Math.log2(columns) / 2) << 7;
  const codes = Uint16Array.from({ length: count }, (_, i) => ((Math.imul(i, 2654435761) >>> 16) & 0x807f) | exponent);
  const data = { source: { read: async () => new Uint8Array(codes.buffer) }, offset: 0, length: 2 * count };
  const noScales = { scaleIsFloat: false, blockRows: 1, blockColumns: 1 };
  await device.setMatrix(name, {
    format: "BF16",
    rows,
    columns,
    experts: 1,
    parts: [{ data, scales: undefined }],
    ...noScales,
  });
}

/** Gradients, edges and noise, as bytes of red, green, blue and 255. */
function photo(width: number, height: number): Uint8Array<ArrayBuffer> {
  const rgba = new Uint8Array(4 * width * height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const noise = (Math.imul(at, 2654435761) >>> 24) / 8;
      rgba[at] = (200 * x) / width + noise;
      rgba[at + 1] = (200 * y) / height + noise;
      rgba[at + 2] = ((x >> 5) + (y >> 6)) % 2 === 0 ? 40 + noise : 180 + noise;
      rgba[at + 3] = 255;
    }
  }
  return rgba;
}

async function jpegOf(
  rgba: Uint8Array<ArrayBuffer>,
  width: number,
  height: number,
  progressive: boolean,
): Promise<Uint8Array> {
  const file = createRequire(import.meta.url).resolve("@jsquash/jpeg/codec/enc/mozjpeg_enc.wasm");
  const encoder = await initEmscriptenModule(mozjpegEncoder, await WebAssembly.compile(await readFile(file)));
  return new Uint8Array(encoder.encode(rgba, width, height, { ...defaultOptions, quality: 90, progressive }));
}

function pngOf(rgba: Uint8Array, width: number, height: number): Uint8Array {
  const rows = new Uint8Array(height * (4 * width + 1));
  for (let y = 0; y < height; y++) rows.set(rgba.subarray(4 * y * width, 4 * (y + 1) * width), y * (4 * width + 1) + 1);
  return pngChunks(width, height, 8, 6, deflateSync(rows, { level: 3 }));
}

function pngChunks(width: number, height: number, depth: number, colour: number, pixels: Uint8Array): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colour, 0, 0, 0], 8);
  const chunk = (type: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length, 0);
    numbers.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
  };
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())]);
}
