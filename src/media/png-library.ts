/**
 * The PNG library (Rust's png, built with wasm-bindgen), in an instance of its own for each image. The package's glue keeps one
 * instance for ever: the memory of its largest picture, and whatever a damaged one left there.
 */
import { damaged } from "./byte-view.ts";
import { type Pixels, withoutAlpha } from "./pixels.ts";

interface PngLibrary {
  readonly memory: WebAssembly.Memory;
  __wbindgen_malloc(bytes: number, alignment: number): number;
  /** Hands the pixels to the import below. */
  decode(at: number, bytes: number): number;
}

type Import = (at: number, bytes: number, width: number, height: number) => number;

/** new ImageData(pixels, width, height); the name goes on with a number of the build. */
const takesPixels = "__wbg_newwithownedu8clampedarray";

/** Throws a MediaError, or what WebAssembly throws, at damaged bytes. */
export function decodePng(module: WebAssembly.Module, bytes: Uint8Array): Pixels {
  let pixels: Pixels | undefined;
  const imports: Record<string, Import> = {};
  for (const { name } of WebAssembly.Module.imports(module)) imports[name] = name === "__wbindgen_throw" ? fail : none;
  const take = Object.keys(imports).find((name) => name.startsWith(takesPixels));
  if (take !== undefined) {
    imports[take] = (at, length, width, height) => {
      if (length !== 4 * width * height) throw damaged("it has other pixels than its size says");
      pixels = withoutAlpha(width, height, new Uint8Array(library.memory.buffer, at, length));
      return 0;
    };
  }
  const { exports } = new WebAssembly.Instance(module, { wbg: imports });
  const library = exports as unknown as PngLibrary; // what the package's types say of it
  const at = library.__wbindgen_malloc(bytes.length, 1) >>> 0;
  new Uint8Array(library.memory.buffer).set(bytes, at);
  library.decode(at, bytes.length);
  if (pixels === undefined) throw fail();
  return pixels;
}

/** Objects that the library makes or drops beside the pixels. */
const none: Import = () => 0;

function fail(): never {
  throw damaged("the decoder cannot read it");
}
