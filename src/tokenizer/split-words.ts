/**
 * Pre-tokenisation of the DeepSeek tokenizers: text is cut into pieces that never merge with each other. The three rules of
 * their tokenizer.json, each applied to every piece of the one before:
 *   1. digits in groups of up to three;  2. runs of CJK ideographs and kana;  3. words, signs, line ends and blanks.
 * Written out by hand instead of as regular expressions: JavaScript's classes follow another Unicode version, and a regular
 * expression overflows its stack on a word of ten million letters. One pass, linear in the length.
 */
import { classBit, codePointClasses } from "./code-point-classes.ts";

const { number, letter, mark, sign, space, cjk, lineEnd, asciiPunctuation } = classBit;

/** The regular expressions of tokenizer.json that this file implements, in their order. */
export const deepseekPatterns: readonly string[] = [
  "\\p{N}{1,3}",
  "[一-龥\u3040-ゟ゠-ヿ]+",
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/** Calls `piece(start, end)` for each piece of well-formed `text`, in UTF-16 units, in order. */
export function splitWords(text: string, piece: (start: number, end: number) => void): void {
  const classes = codePointClasses();
  const classAt = (at: number) => classes[text.codePointAt(at)!]!;
  for (let at = 0; at < text.length; ) {
    const first = classAt(at);
    if (first & number) {
      let end = at;
      for (let count = 0; count < 3 && end < text.length && classAt(end) & number; count++) end += widthAt(text, end);
      piece(at, end);
      at = end;
      continue;
    }
    // A stretch without digits, all CJK or without CJK: the third rule sees nothing beyond it.
    const kind = first & cjk;
    let end = at;
    while (end < text.length) {
      const bits = classAt(end);
      if (bits & number || (bits & cjk) !== kind) break;
      end += widthAt(text, end);
    }
    splitStretch(text, classes, at, end, piece);
    at = end;
  }
}

/**
 * The first place from `from` on where a text can be cut so that its parts give the pieces of the whole: behind an ASCII letter before
 * a space or a line end, where a word ends whatever follows, and between CJK and anything else.
 */
export function nextCut(text: string, from: number): number {
  const classes = codePointClasses();
  for (let at = Math.max(1, from); at < text.length; at++) {
    const [before, next] = [text.charCodeAt(at - 1), text.charCodeAt(at)];
    if (isAsciiLetter(before) ? next === 0x20 || isLineEnd(next) : classes[before]! & cjk && !(classes[next]! & cjk))
      return at;
  }
  return text.length;
}

function widthAt(text: string, at: number): number {
  const unit = text.charCodeAt(at);
  return unit >= 0xd800 && unit < 0xdc00 ? 2 : 1;
}

function splitStretch(
  text: string,
  classes: Uint8Array,
  start: number,
  end: number,
  piece: (start: number, end: number) => void,
): void {
  let unmatched = start;
  for (let at = start; at < end; ) {
    const matched = matchEnd(text, classes, at, end);
    if (matched === at) {
      at += widthAt(text, at); // what no alternative takes is a piece together with its like
      continue;
    }
    if (unmatched < at) piece(unmatched, at);
    piece(at, matched);
    at = matched;
    unmatched = matched;
  }
  if (unmatched < end) piece(unmatched, end);
}

/** The end of what the third rule's alternatives match at `at`, tried in their order; `at` if none does. */
function matchEnd(text: string, classes: Uint8Array, at: number, end: number): number {
  const runEnd = (from: number, mask: number): number => {
    let i = from;
    while (i < end && classes[text.codePointAt(i)!]! & mask) i += widthAt(text, i);
    return i;
  };
  const first = classes[text.codePointAt(at)!]!;
  const second = at + widthAt(text, at);

  // [ASCII sign][A-Za-z]+
  if (first & asciiPunctuation && isAsciiLetter(text.charCodeAt(second)) && second < end) {
    let i = second;
    while (i < end && isAsciiLetter(text.charCodeAt(i))) i++;
    return i;
  }
  // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
  if (!(first & (lineEnd | letter | sign))) {
    const word = runEnd(second, letter | mark);
    if (word > second) return word;
  }
  if (first & (letter | mark)) return runEnd(at, letter | mark);
  // ' ?[\p{P}\p{S}]+[\r\n]*'
  const signs = text.charCodeAt(at) === 0x20 ? second : at;
  const signsEnd = runEnd(signs, sign);
  if (signsEnd > signs) return runEnd(signsEnd, lineEnd);
  if (!(first & space)) return at;
  // \s*[\r\n]+ | \s+(?!\S) | \s+
  const blanks = runEnd(at, space);
  for (let i = blanks; i > at; i--) if (isLineEnd(text.charCodeAt(i - 1))) return i;
  return blanks === end || blanks - at === 1 ? blanks : blanks - 1; // every blank is one UTF-16 unit
}

function isAsciiLetter(unit: number): boolean {
  return (unit >= 0x41 && unit <= 0x5a) || (unit >= 0x61 && unit <= 0x7a);
}

function isLineEnd(unit: number): boolean {
  return unit === 0x0a || unit === 0x0d;
}
