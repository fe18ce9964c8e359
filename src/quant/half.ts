/** The float16 at a byte of a block, as float32: by table, since every block has one or two. */
import { decodeF16 } from "./number-codes.ts";

let table: Float32Array | undefined;

export function halfAt(bytes: Uint8Array, at: number): number {
  if (table === undefined) {
    table = new Float32Array(65_536);
    decodeF16(
      Uint16Array.from({ length: 65_536 }, (_, code) => code),
      table,
    );
  }
  return table[bytes[at]! | (bytes[at + 1]! << 8)]!;
}
