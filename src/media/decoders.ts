/**
 * The decoders: libraries in WebAssembly (mozjpeg, libwebp, Rust's png), whose memory ends at a limit, and two in JavaScript
 * (GIF, and JPEG with four components, which mozjpeg does not turn into RGB). Their pixels are those of Pillow; only those of
 * CMYK pictures may differ by 2 levels, more where their colour is subsampled.
 */
import { readFile } from "node:fs/promises";
import jpegJs from "jpeg-js";
import { damaged, truncated, unsupported } from "./byte-view.ts";
import { decodeGif } from "./gif.ts";
import type { ImageHeader } from "./image-header.ts";
import { limitWasmMemory } from "./limit-wasm-memory.ts";
import { type Pixels, withoutAlpha } from "./pixels.ts";
import { decodePng } from "./png-library.ts";

/** What the libraries give; they call it ImageData, as browsers do. */
interface Rgba {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray;
}

/** The decoders of a thread. Each library is compiled once; each image gets an instance of its own, which ends with it. */
export class Decoders {
  readonly #memoryBytes: number;
  readonly #modules = new Map<Library, Promise<WebAssembly.Module>>();

  /** `memoryBytes`: what a decoder may have at a time. */
  constructor(memoryBytes: number) {
    this.#memoryBytes = memoryBytes;
  }

  /** Loads and compiles all of them, so that the first image costs its decoding alone. */
  async prepare(): Promise<void> {
    await Promise.all([
      this.#compiled("png"),
      jpegDecoder(this.#compiled("jpeg")),
      webpDecoder(this.#compiled("webp")),
    ]);
  }

  /** Decodes by the type in the header. Throws a MediaError, or whatever a library throws at damaged bytes. */
  async decode(bytes: Uint8Array, header: ImageHeader): Promise<Pixels> {
    switch (header.kind) {
      case "png":
        return decodePng(await this.#compiled("png"), bytes);
      case "jpeg":
        if (header.components === 4) return decodeCmykJpeg(bytes, this.#memoryBytes);
        return pixelsOf((await jpegDecoder(this.#compiled("jpeg"))).decode(bytes, false));
      case "webp":
        return pixelsOf((await webpDecoder(this.#compiled("webp"))).decode(bytes));
      case "gif":
        return decodeGif(bytes);
      default:
        return header.kind satisfies never;
    }
  }

  #compiled(library: Library): Promise<WebAssembly.Module> {
    const module = this.#modules.get(library) ?? compile(library, this.#memoryBytes);
    this.#modules.set(library, module);
    return module;
  }
}

const wasmFiles = {
  png: () => import.meta.resolve("@jsquash/png/codec/pkg/squoosh_png_bg.wasm"),
  jpeg: () => import.meta.resolve("@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm"),
  webp: () => import.meta.resolve("@jsquash/webp/codec/dec/webp_dec.wasm"),
};
type Library = keyof typeof wasmFiles;

async function compile(library: Library, memoryBytes: number): Promise<WebAssembly.Module> {
  const bytes = await readFile(new URL(wasmFiles[library]()));
  return WebAssembly.compile(limitWasmMemory(bytes, memoryBytes));
}

/** What the modules built with Emscripten have in common. */
interface EmscriptenDecoder {
  decode(data: Uint8Array, preserveOrientation?: boolean): Rgba | null;
}

async function jpegDecoder(wasm: Promise<WebAssembly.Module>): Promise<EmscriptenDecoder> {
  const { default: factory } = await import("@jsquash/jpeg/codec/dec/mozjpeg_dec.js");
  const { initEmscriptenModule } = await import("@jsquash/jpeg/utils.js");
  return initEmscriptenModule(factory, await wasm, { print: () => {}, printErr: hearJpegWarning });
}

/**
 * libjpeg goes on behind damage and fills up with grey what is missing; its words are thrown through it, which ends it there.
 * What cameras leave between segments ("extraneous bytes") is no damage.
 */
function hearJpegWarning(line: string): void {
  if (line.includes("Premature end")) throw truncated();
  const damage = /bad Huffman code|premature end of data|instead of RST/.exec(line);
  if (damage !== null) throw damaged(`its compressed pixels (${damage[0]})`);
}

async function webpDecoder(wasm: Promise<WebAssembly.Module>): Promise<EmscriptenDecoder> {
  const { default: factory } = await import("@jsquash/webp/codec/dec/webp_dec.js");
  const { initEmscriptenModule } = await import("@jsquash/webp/utils.js");
  return initEmscriptenModule(factory, await wasm, { print: () => {}, printErr: () => {} });
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
