/** Writes the header of a GGUF file (version 3): metadata, tensor infos, and where each tensor's bytes go. */
import { FormatError } from "../errors.ts";
import type { GgmlType } from "../quant/ggml-types.ts";
import { ggmlTypes } from "../quant/ggml-types.ts";

export interface GgufTensorToWrite {
  readonly name: string;
  readonly type: GgmlType;
  /** Slowest axis first; the file has them the other way round. */
  readonly shape: readonly number[];
}

export interface GgufLayout {
  readonly header: Uint8Array;
  /** For each tensor its first byte in the file and its length; what lies between is zero. */
  readonly places: readonly { readonly begin: number; readonly bytes: number }[];
  readonly fileBytes: number;
}

const alignment = 32;
const typeNumbers: Readonly<Record<string, number>> = { UINT32: 4, INT32: 5, FLOAT32: 6, BOOL: 7, STRING: 8, ARRAY: 9 };

/** Metadata values are of the types UINT32, INT32, FLOAT32, BOOL, STRING and arrays ("ARRAY:INT32") of them. */
export function layOutGguf(
  metadata: readonly (readonly [key: string, type: string, value: unknown])[],
  tensors: readonly GgufTensorToWrite[],
): GgufLayout {
  const out = new ByteWriter();
  out.text("GGUF");
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.length);
  for (const [key, type, value] of metadata) {
    out.string(key);
    out.entry(type, value);
  }
  let offset = 0;
  const sizes = tensors.map(({ name, type, shape }) => {
    const bytes = (shape.reduce((product, dim) => product * dim, 1) / type.blockElements) * type.blockBytes;
    out.string(name);
    out.u32(shape.length);
    for (const dim of shape.toReversed()) out.u64(dim);
    out.u32(numberOf(type));
    out.u64(offset);
    offset += Math.ceil(bytes / alignment) * alignment;
    return bytes;
  });
  out.pad(alignment);
  const header = out.bytes();
  let begin = header.length;
  const places = sizes.map((bytes) => {
    const place = { begin, bytes };
    begin += Math.ceil(bytes / alignment) * alignment;
    return place;
  });
  return { header, places, fileBytes: begin };
}

function numberOf(type: GgmlType): number {
  for (const [number, known] of ggmlTypes) if (known === type) return number;
  throw new FormatError(`The type ${type.name} has no number`, { code: "unknown-type" });
}

class ByteWriter {
  #buffer = new Uint8Array(1 << 16);
  #length = 0;

  bytes(): Uint8Array {
    return this.#buffer.slice(0, this.#length);
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    const at = this.#take(bytes.length);
    this.#buffer.set(bytes, at);
  }

  string(value: string): void {
    this.u64(new TextEncoder().encode(value).length);
    this.text(value);
  }

  u32(value: number): void {
    const at = this.#take(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#take(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  pad(to: number): void {
    this.#take(Math.ceil(this.#length / to) * to - this.#length);
  }

  entry(type: string, value: unknown): void {
    const [outer, element] = type.split(":") as [string, string | undefined];
    this.u32(typeNumbers[outer]!);
    if (element === undefined) {
      this.#scalar(outer, value);
      return;
    }
    const list = value as readonly unknown[]; // the type says that it is one
    this.u32(typeNumbers[element]!);
    this.u64(list.length);
    for (const item of list) this.#scalar(element, item);
  }

  #scalar(type: string, value: unknown): void {
    switch (type) {
      case "STRING":
        this.string(value as string);
        break;
      case "FLOAT32": {
        const at = this.#take(4);
        this.#view.setFloat32(at, value as number, true);
        break;
      }
      case "BOOL":
        this.#buffer[this.#take(1)] = value ? 1 : 0;
        break;
      default:
        this.u32((value as number) >>> 0);
    }
  }

  get #view(): DataView {
    return new DataView(this.#buffer.buffer);
  }

  /** The place of the next bytes; zero until they are written. */
  #take(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#buffer.length) {
      const grown = new Uint8Array(2 * this.#length);
      grown.set(this.#buffer);
      this.#buffer = grown;
    }
    return at;
  }
}
