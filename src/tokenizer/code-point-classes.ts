/** One byte of class bits for every code point of Unicode. Built when it is first needed (about a megabyte, 2 ms). */
import { unicodeClasses } from "./unicode-classes.generated.ts";

export const classBit = {
  number: 1,
  letter: 2,
  mark: 4,
  /** Punctuation and symbols. */
  sign: 8,
  space: 16,
  /** CJK ideographs and kana in the ranges that DeepSeek's second rule names. */
  cjk: 32,
  lineEnd: 64,
  asciiPunctuation: 128,
} as const;

let table: Uint8Array | undefined;

/** Class bits by code point. */
export function codePointClasses(): Uint8Array {
  table ??= buildTable();
  return table;
}

function buildTable(): Uint8Array {
  const classes = new Uint8Array(0x110000);
  mark(classes, unicodeClasses.N, classBit.number);
  mark(classes, unicodeClasses.L, classBit.letter);
  mark(classes, unicodeClasses.M, classBit.mark);
  mark(classes, unicodeClasses.P, classBit.sign);
  mark(classes, unicodeClasses.S, classBit.sign);
  mark(classes, unicodeClasses.space, classBit.space);
  const ranges: readonly (readonly [number, number])[] = [
    [0x4e00, 0x9fa5],
    [0x3040, 0x309f],
    [0x30a0, 0x30ff],
  ];
  for (const [first, last] of ranges) for (let c = first; c <= last; c++) classes[c]! |= classBit.cjk;
  for (const c of [0x0a, 0x0d]) classes[c]! |= classBit.lineEnd;
  for (let c = 0x21; c < 0x7f; c++)
    if (!/[0-9A-Za-z]/.test(String.fromCharCode(c))) classes[c]! |= classBit.asciiPunctuation;
  return classes;
}

function mark(classes: Uint8Array, list: string, bit: number): void {
  let last = 0;
  const numbers = list.split(" ").map(Number);
  for (let i = 0; i < numbers.length; i += 2) {
    const first = last + numbers[i]!;
    last = first + numbers[i + 1]!;
    for (let c = first; c <= last; c++) classes[c]! |= bit;
  }
}
