/**
 * How byte-level BPE writes bytes as letters (GPT-2): printable Latin-1 bytes as themselves, the other 68 as U+0100 onward in
 * rising order.
 */
function isPrintable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

/** The letter of each byte. */
export const letterOfByte: readonly string[] = (() => {
  let extra = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : extra++));
})();

/** The byte of each letter, by its code unit; -1 for a letter that stands for none. */
const byteOfUnit = new Int16Array(0x200).fill(-1);
letterOfByte.forEach((letter, byte) => {
  byteOfUnit[letter.charCodeAt(0)] = byte;
});

/** Writes the bytes that a vocabulary entry stands for, one a letter; false if it holds a letter that stands for none. */
export function writeBytesOfToken(token: string, into: Uint8Array, at: number): boolean {
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfUnit[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return false;
    into[at + i] = byte;
  }
  return true;
}
