/**
 * The decoders: libraries in WebAssembly (mozjpeg, libwebp, Rust's png), whose memory ends at a limit, and two in JavaScript
 * (GIF, and JPEG with four components, which mozjpeg does not turn into RGB). Their pixels are those of Pillow; only those of
 * CMYK pictures may differ by 2 levels, more where their colour is subsampled.
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import jpegJs from "jpeg-js";
import { damaged, truncated, unsupported } from "./byte-view.ts";
import { decodeGif } from "./gif.ts";
import type { ImageHeader } from "./image-header.ts";
import { limitWasmMemory } from "./limit-wasm-memory.ts";
import { type Pixels, withoutAlpha } from "./pixels.ts";

/** What the libraries give; they call it ImageData, as browsers do. */
interface Rgba {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray;
}

/** Decodes by the type in the header. Throws a MediaError, or whatever a library throws at damaged bytes. */
export function decodePixels(bytes: Uint8Array, header: ImageHeader, memoryBytes: number): Promise<Pixels> {
  switch (header.kind) {
    case "png":
      return decodePng(bytes, memoryBytes);
    case "jpeg":
      if (header.components === 4) return Promise.resolve(decodeCmykJpeg(bytes, memoryBytes));
      return decodeJpeg(bytes, memoryBytes);
    case "webp":
      return decodeWebp(bytes, memoryBytes);
    case "gif":
      return Promise.resolve(decodeGif(bytes));
    default:
      return header.kind satisfies never;
  }
}

async function decodePng(bytes: Uint8Array, memoryBytes: number): Promise<Pixels> {
  requireImageData();
  const { decode, init } = await import("@jsquash/png/decode.js");
  await init(await wasmModule("@jsquash/png/codec/pkg/squoosh_png_bg.wasm", memoryBytes));
  return pixelsOf(await decode(exactBuffer(bytes)));
}

/** What the modules built with Emscripten have in common. Each image gets an instance of its own. */
interface EmscriptenDecoder {
  decode(data: Uint8Array, preserveOrientation?: boolean): Rgba | null;
}

async function decodeJpeg(bytes: Uint8Array, memoryBytes: number): Promise<Pixels> {
  const { default: factory } = await import("@jsquash/jpeg/codec/dec/mozjpeg_dec.js");
  const { initEmscriptenModule } = await import("@jsquash/jpeg/utils.js");
  const wasm = await wasmModule("@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm", memoryBytes);
  const warnings: string[] = [];
  const options = { print: () => {}, printErr: (line: string) => void warnings.push(line) };
  const decoder: EmscriptenDecoder = await initEmscriptenModule(factory, wasm, options);
  const image = decoder.decode(bytes, false);
  // libjpeg fills up with grey what is missing.
  if (warnings.some((line) => line.includes("Premature end"))) throw truncated();
  return pixelsOf(image);
}

async function decodeWebp(bytes: Uint8Array, memoryBytes: number): Promise<Pixels> {
  const { default: factory } = await import("@jsquash/webp/codec/dec/webp_dec.js");
  const { initEmscriptenModule } = await import("@jsquash/webp/utils.js");
  const wasm = await wasmModule("@jsquash/webp/codec/dec/webp_dec.wasm", memoryBytes);
  const decoder: EmscriptenDecoder = await initEmscriptenModule(factory, wasm, { print: () => {}, printErr: () => {} });
  return pixelsOf(decoder.decode(bytes));
}

function decodeCmykJpeg(bytes: Uint8Array, memoryBytes: number): Pixels {
  const megabytes = Math.floor(memoryBytes / 2 ** 20);
  const options = {
    useTArray: true,
    formatAsRGBA: false,
    tolerantDecoding: false,
    maxMemoryUsageInMB: megabytes,
  } as const;
  try {
    const { width, height, data } = jpegJs.decode(bytes, options);
    return { width, height, data };
  } catch (error) {
    if (String(error).includes("4 components")) {
      throw unsupported("JPEG files of four colours without Adobe's marker", "Save it as an RGB JPEG");
    }
    throw error;
  }
}

function pixelsOf(image: Rgba | null): Pixels {
  if (image === null) throw damaged("the decoder cannot read it");
  const { width, height, data } = image;
  if (data.length !== 4 * width * height) throw damaged("it has other pixels than its size says");
  return withoutAlpha(width, height, data);
}

async function wasmModule(file: string, memoryBytes: number): Promise<WebAssembly.Module> {
  const bytes = await readFile(createRequire(import.meta.url).resolve(file));
  return WebAssembly.compile(limitWasmMemory(bytes, memoryBytes));
}

/** The libraries take ArrayBuffers, from the first byte to the last. */
function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
}

/** The PNG library builds its result with the browser's class, which Node does not have. */
function requireImageData(): void {
  const scope = globalThis as { ImageData?: unknown };
  scope.ImageData ??= class {
    readonly data: Uint8ClampedArray;
    readonly width: number;
    readonly height: number;

    constructor(data: Uint8ClampedArray, width: number, height: number) {
      this.data = data;
      this.width = width;
      this.height = height;
    }
  };
}
