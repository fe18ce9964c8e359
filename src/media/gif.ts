/**
 * The first frame of a GIF (GIF89a specification). Nothing behind that frame is looked at, so the number of frames costs
 * nothing. Our own, because it is short: the libraries there are read all frames first and print their complaints.
 * As in Pillow, transparency is dropped: transparent pixels, and what the frame does not cover, get the colour that the
 * palette has for the transparent index (without one: for index 0).
 */
import { ByteView, damaged, truncated } from "./byte-view.ts";
import type { ImageHeader } from "./image-header.ts";
import type { Pixels } from "./pixels.ts";

interface FirstFrame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly interlaced: boolean;
  readonly transparent: number | undefined;
  readonly palette: Palette | undefined;
  /** Where the size of the first code stands. */
  readonly codes: number;
  readonly canvasWidth: number;
  readonly canvasHeight: number;
}

interface Palette {
  readonly at: number;
  readonly colours: number;
}

const mostBlocks = 1024;
const mostSubBlocks = 16_384; // 4 MB of comment, at 255 bytes each
const mostCodes = 4096;

export function readGifHeader(bytes: Uint8Array): ImageHeader {
  const { canvasWidth: width, canvasHeight: height } = firstFrame(new ByteView(bytes));
  return { kind: "gif", width, height, orientation: 1 }; // its decoder touches no pixel that it has no code for
}

export function decodeGif(bytes: Uint8Array): Pixels {
  const view = new ByteView(bytes);
  const frame = firstFrame(view);
  const indices = unpackCodes(view, frame.codes, frame.width * frame.height);
  const colours = colourTable(view, frame.palette);
  const { canvasWidth: width, canvasHeight: height } = frame;
  const data = filled(width * height, colours.subarray(3 * (frame.transparent ?? 0)));
  for (let row = 0, from = 0; row < frame.height; row++) {
    const y = frame.top + (frame.interlaced ? interlacedRow(row, frame.height) : row);
    for (let x = 0, to = 3 * (y * width + frame.left); x < frame.width; x++, to += 3) {
      const colour = 3 * indices[from++]!;
      data[to] = colours[colour]!;
      data[to + 1] = colours[colour + 1]!;
      data[to + 2] = colours[colour + 2]!;
    }
  }
  return { width, height, data };
}

/** Walks over the blocks in front of the first image. */
function firstFrame(view: ByteView): FirstFrame {
  const [screenWidth, screenHeight] = [view.u16(6, true), view.u16(8, true)];
  const global = paletteOf(view, view.u8(10), 13);
  let at = 13 + bytesOf(global);
  let transparent: number | undefined;
  for (let block = 0; block < mostBlocks; block++) {
    const kind = view.u8(at);
    if (kind === 0x2c) {
      const [left, top, width, height] = [1, 3, 5, 7].map((offset) => view.u16(at + offset, true)) as [
        number,
        number,
        number,
        number,
      ];
      if (width === 0 || height === 0) throw damaged("its first frame is empty");
      const flags = view.u8(at + 9);
      const local = paletteOf(view, flags, at + 10);
      return {
        ...{ left, top, width, height, transparent },
        interlaced: (flags & 0x40) !== 0,
        palette: local ?? global,
        codes: at + 10 + bytesOf(local),
        canvasWidth: Math.max(screenWidth, left + width), // Pillow too widens a screen that is too small
        canvasHeight: Math.max(screenHeight, top + height),
      };
    }
    if (kind === 0x3b) throw damaged("it has no frame");
    if (kind !== 0x21) throw damaged("a block of unknown kind");
    if (view.u8(at + 1) === 0xf9 && view.u8(at + 2) >= 4) {
      transparent = (view.u8(at + 3) & 1) !== 0 ? view.u8(at + 6) : undefined;
    }
    at = afterSubBlocks(view, at + 2);
  }
  throw damaged(`it has more than ${mostBlocks} blocks before its first frame`);
}

function afterSubBlocks(view: ByteView, start: number): number {
  let at = start;
  for (let block = 0; block < mostSubBlocks; block++) {
    const length = view.u8(at++);
    if (length === 0) return at;
    at += length;
  }
  throw damaged(`an extension of more than ${mostSubBlocks} parts`);
}

function paletteOf(view: ByteView, flags: number, at: number): Palette | undefined {
  if ((flags & 0x80) === 0) return undefined;
  const colours = 2 ** ((flags & 7) + 1);
  view.u8(at + 3 * colours - 1); // it must be there
  return { at, colours };
}

const bytesOf = (palette: Palette | undefined) => 3 * (palette?.colours ?? 0);

/** Red, green and blue of all 256 indices: black where the palette ends, greys where there is none. */
function colourTable(view: ByteView, palette: Palette | undefined): Uint8Array {
  if (palette === undefined) return Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
  const table = new Uint8Array(768);
  table.set(view.bytes.subarray(palette.at, palette.at + bytesOf(palette)));
  return table;
}

function filled(pixels: number, [red, green, blue]: Uint8Array): Uint8Array {
  const data = new Uint8Array(3 * pixels);
  for (let at = 0; at < data.length; at += 3) {
    data[at] = red!;
    data[at + 1] = green!;
    data[at + 2] = blue!;
  }
  return data;
}

/** The row of the picture that is stored as number `stored`: every eighth, then those between, in four passes. */
function interlacedRow(stored: number, height: number): number {
  let row = stored;
  for (const [first, step] of [
    [0, 8],
    [4, 8],
    [2, 4],
    [1, 2],
  ] as const) {
    const rows = Math.max(0, Math.ceil((height - first) / step));
    if (row < rows) return first + row * step;
    row -= rows;
  }
  throw damaged("a row that does not exist");
}

/** LZW with codes of growing width (GIF89a, appendix F): exactly `pixels` indices, or an error. */
function unpackCodes(view: ByteView, start: number, pixels: number): Uint8Array {
  const literalBits = view.u8(start);
  if (literalBits < 1 || literalBits > 11) throw damaged("the size of its first code");
  const clear = 1 << literalBits;
  const [prefix, suffix, length] = [new Uint16Array(mostCodes), new Uint8Array(mostCodes), new Uint16Array(mostCodes)];
  for (let code = 0; code < clear; code++) [suffix[code], length[code]] = [code, 1];
  const indices = new Uint8Array(pixels);
  const nextCode = codeReader(view, start + 1);
  let [bits, next, previous, done] = [literalBits + 1, clear + 2, -1, 0];
  while (done < pixels) {
    const code = nextCode(bits);
    if (code === clear) {
      [bits, next, previous] = [literalBits + 1, clear + 2, -1];
      continue;
    }
    if (code === clear + 1) throw damaged("its first frame has too few pixels");
    if (code > next || (code === next && previous < 0) || (previous < 0 && code > clear)) {
      throw damaged("a code that was not defined");
    }
    if (previous >= 0 && next < mostCodes) {
      prefix[next] = previous;
      length[next] = length[previous]! + 1;
      suffix[next] = firstIndex(prefix, length, code === next ? previous : code);
      next++;
      if (next === 1 << bits && bits < 12) bits++;
    } else if (code >= next) throw damaged("a code that was not defined");
    const count = length[code]!;
    for (let at = done + count - 1, c = code; at >= done; at--, c = prefix[c]!)
      if (at < pixels) indices[at] = suffix[c]!;
    done += count;
    previous = code;
  }
  return indices;
}

/** The first index of what a code stands for. */
function firstIndex(prefix: Uint16Array, length: Uint16Array, code: number): number {
  let c = code;
  for (let left = length[c]! - 1; left > 0; left--) c = prefix[c]!;
  return c;
}

/** Codes of any width out of sub-blocks, the lowest bit first. */
function codeReader(view: ByteView, start: number): (bits: number) => number {
  let [at, left, held, heldBits] = [start, 0, 0, 0];
  return (bits) => {
    while (heldBits < bits) {
      if (left === 0) {
        left = view.u8(at++);
        if (left === 0) throw truncated();
      }
      held |= view.u8(at++) << heldBits;
      heldBits += 8;
      left--;
    }
    const code = held & ((1 << bits) - 1);
    held >>>= bits;
    heldBits -= bits;
    return code;
  };
}
