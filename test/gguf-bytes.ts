/** GGUF files as a test wants them, also such as no writer makes: every metadata type, any sizes and offsets. */
export interface GgufEntryToWrite {
  readonly key: string;
  /** As `GgufEntry.type`: "UINT64", "ARRAY:STRING". */
  readonly type: string;
  readonly value: unknown;
}

export interface GgufTensorToWrite {
  readonly name: string;
  /** Fastest axis first, as the file has them. */
  readonly dims: readonly (number | bigint)[];
  readonly type: number;
  readonly data: Uint8Array;
}

const typeNumbers: Readonly<Record<string, number>> = {
  UINT8: 0,
  INT8: 1,
  UINT16: 2,
  INT16: 3,
  UINT32: 4,
  INT32: 5,
  FLOAT32: 6,
  BOOL: 7,
  STRING: 8,
  ARRAY: 9,
  UINT64: 10,
  INT64: 11,
  FLOAT64: 12,
};

export function ggufBytes(
  entries: readonly GgufEntryToWrite[],
  tensors: readonly GgufTensorToWrite[] = [],
  { version = 3, alignment = 32 } = {},
): Buffer {
  const padding = (length: number) => Buffer.alloc(Math.ceil(length / alignment) * alignment - length);
  let offset = 0;
  const infos = tensors.map(({ name, dims, type, data }) => {
    const info = [text(name), number(4, dims.length), ...dims.map((dim) => number(10, dim)), number(4, type)];
    const at = offset;
    offset += Math.ceil(data.length / alignment) * alignment;
    return Buffer.concat([...info, number(10, at)]);
  });
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    number(4, version),
    number(10, tensors.length),
    number(10, entries.length),
    ...entries.map(({ key, type, value }) => Buffer.concat([text(key), typed(type, value)])),
    ...infos,
  ]);
  const data = tensors.flatMap((tensor) => [tensor.data, padding(tensor.data.length)]);
  return Buffer.concat([header, padding(header.length), ...data]);
}

/** The bytes of an entry's type and value. */
function typed(type: string, value: unknown): Buffer {
  const [outer, ...inner] = type.split(":") as [string, ...string[]];
  return Buffer.concat([number(4, typeNumbers[outer]!), valueBytes(outer, inner.join(":"), value)]);
}

function valueBytes(type: string, element: string, value: unknown): Buffer {
  if (type === "STRING") return text(value as string | Uint8Array);
  if (type !== "ARRAY") return number(typeNumbers[type]!, value as number | bigint | boolean);
  const items = value as readonly unknown[];
  const [of, ...inner] = element.split(":") as [string, ...string[]];
  const head = [number(4, typeNumbers[of]!), number(10, items.length)];
  return Buffer.concat([...head, ...items.map((item) => valueBytes(of, inner.join(":"), item))]);
}

function text(value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string); // a copy of either
  return Buffer.concat([number(10, bytes.length), bytes]);
}

/** A number of one of GGUF's types, by its number there. */
function number(type: number, value: number | bigint | boolean): Buffer {
  const bytes = Buffer.alloc([1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][type]!);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (type === 6) view.setFloat32(0, Number(value), true);
  else if (type === 12) view.setFloat64(0, Number(value), true);
  else if (bytes.length === 8) view.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  else bytes.writeUIntLE(Number(BigInt.asUintN(8 * bytes.length, BigInt(value))), 0, bytes.length);
  return bytes;
}
