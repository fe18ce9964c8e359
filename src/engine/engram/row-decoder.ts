/** Rows of a table as files store them, to float32: plain floats, or FP8 with a scale for each stretch of columns. */
import type { StoredMatrix } from "../../device/device.ts";
import { FormatError, ModelError } from "../../errors.ts";
import { decodeBf16, decodeF16, e4m3Values, e8m0Values } from "../../quant/number-codes.ts";

export interface RowDecoder {
  readonly columns: number;
  /** Bytes of a row, and of its scales (0 where there are none). */
  readonly dataBytes: number;
  readonly scaleBytes: number;
  /** `bytes` holds a row's data, then its scales, from `at` on, a multiple of 4. */
  decode(bytes: Uint8Array, at: number, into: Float32Array, to: number): void;
}

export function rowDecoder({ format, columns, scaleIsFloat, blockColumns }: StoredMatrix, name: string): RowDecoder {
  switch (format) {
    case "F32":
      return floats(columns, 4, (bytes, into) => into.set(new Float32Array(bytes.buffer, bytes.byteOffset, columns)));
    case "BF16":
      return floats(columns, 2, (bytes, into) =>
        decodeBf16(new Uint16Array(bytes.buffer, bytes.byteOffset, columns), into),
      );
    case "F16":
      return floats(columns, 2, (bytes, into) =>
        decodeF16(new Uint16Array(bytes.buffer, bytes.byteOffset, columns), into),
      );
    case "FP8":
      return scaledCodes(columns, blockColumns, scaleIsFloat, name);
    default:
      throw new ModelError(`The table ${name} is ${format}, which cannot be read row by row`, {
        code: "bad-weights",
        hint: "Engram tables are read in F32, F16, BF16 and FP8",
      });
  }
}

function floats(columns: number, width: number, copy: (bytes: Uint8Array, into: Float32Array) => void): RowDecoder {
  return {
    columns,
    dataBytes: columns * width,
    scaleBytes: 0,
    decode: (bytes, at, into, to) => copy(bytes.subarray(at, at + columns * width), into.subarray(to, to + columns)),
  };
}

function scaledCodes(columns: number, blockColumns: number, scaleIsFloat: boolean, name: string): RowDecoder {
  const blocks = Math.ceil(columns / blockColumns);
  return {
    columns,
    dataBytes: columns,
    scaleBytes: blocks * (scaleIsFloat ? 4 : 1),
    decode(bytes, at, into, to) {
      for (let block = 0; block < blocks; block++) {
        const scale = scaleIsFloat
          ? new DataView(bytes.buffer, bytes.byteOffset + at + columns + 4 * block).getFloat32(0, true)
          : e8m0Values[bytes[at + columns + block]!]!;
        if (Number.isNaN(scale))
          throw new FormatError(`A scale of ${name} is not a number`, {
            code: "bad-scale",
            hint: "The table is damaged; download it again",
          });
        const end = Math.min(columns, (block + 1) * blockColumns);
        for (let c = block * blockColumns; c < end; c++) into[to + c] = e4m3Values[bytes[at + c]!]! * scale;
      }
    },
  };
}
