/**
 * A WebAssembly module that may not take more than a given number of bytes: the limit in its memory section (WebAssembly
 * core specification 2.0, section 5.5.8) is written anew. What allocates beyond it fails inside the module.
 */
import { MediaError } from "../errors.ts";

const pageBytes = 65_536;
const memorySection = 5;

export function limitWasmMemory(module: Uint8Array, maxBytes: number): Uint8Array {
  for (let at = 8; at < module.length; ) {
    const id = module[at]!;
    const size = readNumber(module, at + 1);
    const end = size.end + size.value;
    if (id === memorySection) return replaced(module, at, end, limited(module.subarray(size.end, end), maxBytes));
    at = end;
  }
  throw new MediaError("A decoder has no memory of its own", { code: "image-decoder" });
}

/** One memory, its least number of pages as it was, its greatest as given. */
function limited(section: Uint8Array, maxBytes: number): number[] {
  const least = readNumber(section, 2).value; // in front: the number of memories and the flags
  const most = Math.max(least, Math.floor(maxBytes / pageBytes));
  return [1, 1, ...numberBytes(least), ...numberBytes(most)];
}

function replaced(module: Uint8Array, from: number, to: number, section: readonly number[]): Uint8Array {
  const head = [memorySection, ...numberBytes(section.length), ...section];
  const result = new Uint8Array(module.length - (to - from) + head.length);
  result.set(module.subarray(0, from));
  result.set(head, from);
  result.set(module.subarray(to), from + head.length);
  return result;
}

/** Unsigned LEB128. */
function readNumber(bytes: Uint8Array, start: number): { value: number; end: number } {
  let [value, factor, at] = [0, 1, start];
  for (; ; at++, factor *= 128) {
    value += (bytes[at]! & 127) * factor;
    if (bytes[at]! < 128) return { value, end: at + 1 };
  }
}

function numberBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return [...bytes, rest];
}
