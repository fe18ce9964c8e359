/** Images that are not what they say: each is refused by what its header tells, before anything is decoded, or within limits. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { crc32, deflateSync } from "node:zlib";
import fc from "fast-check";
import { MediaError } from "../../src/errors.ts";
import { readImageHeader } from "../../src/media/image-header.ts";
import { ImageReader, readImage } from "../../src/media/image-reader.ts";
import { assertRefusedInBounds, forgetPeak, memory, skipsMemory } from "../process-memory.ts";

const folder = join(import.meta.dirname, "../data/media");
const names = readdirSync(folder).filter((name) => /\.(png|jpg|webp|gif)$/.test(name));
const file = (name: string) => new Uint8Array(readFileSync(join(folder, name)));

const reader = new ImageReader();
after(() => reader[Symbol.dispose]());

const ascii = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const joined = (...parts: readonly (Uint8Array | readonly number[])[]) =>
  new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))));

function pngChunk(type: string, data: Uint8Array): Uint8Array {
  const chunk = new Uint8Array(data.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(ascii(type), 4);
  chunk.set(data, 8);
  view.setUint32(data.length + 8, crc32(chunk.subarray(4, data.length + 8)));
  return chunk;
}

/** A PNG of bilevel pixels, all black. */
function blackPng(
  width: number,
  height: number,
  pixels = new Uint8Array(height * (Math.ceil(width / 8) + 1)),
): Uint8Array {
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([1, 0, 0, 0, 0], 8);
  const chunks = [pngChunk("IHDR", header), pngChunk("IDAT", deflateSync(pixels)), pngChunk("IEND", new Uint8Array())];
  return Buffer.concat([Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10), ...chunks]);
}

/** The first size in a file, written over. */
function withSize(name: string, at: number, bytes: readonly number[]): Uint8Array {
  const copy = file(name);
  copy.set(bytes, at);
  return copy;
}

const gifStart = [...ascii("GIF89a"), 1, 0, 1, 0, 0, 0, 0];
const repeated = (start: readonly number[], part: readonly number[]) =>
  Uint8Array.from([...start, ...Array(100_000).fill(part).flat()]);

const frameOf = (name: string) => {
  const bytes = file(name);
  return bytes.findIndex((byte, i) => byte === 0xff && (bytes[i + 1] === 0xc0 || bytes[i + 1] === 0xc2));
};

/** 6000 x 4000 pixels, which are not too many, in a file that has a few hundred: big-endian height and width of a JPEG. */
const manyPixels = (name: string) => withSize(name, frameOf(name) + 5, [0x0f, 0xa0, 0x17, 0x70]);

const withoutEnd = (byte: number) =>
  joined(file("444.jpg").subarray(0, frameOf("444.jpg") + 19), new Uint8Array(30e6).fill(byte));

describe("an image is refused before it is decoded", () => {
  const rows: readonly (readonly [string, Uint8Array, string, RegExp])[] = [
    ["no bytes", new Uint8Array(), "image-empty", /empty/],
    ["text", ascii("Hello, I am a picture"), "image-type", /no known type/],
    ["SVG", ascii('<svg xmlns="http://www.w3.org/2000/svg"/>'), "image-type", /SVG/],
    ["SVG behind a declaration", ascii('\n<?xml version="1.0"?><svg/>'), "image-type", /SVG/],
    ["TIFF", ascii("II*\0\x08\0\0\0"), "image-type", /TIFF/],
    ["HEIF", ascii("\0\0\0\x18ftypheic\0\0\0\0"), "image-type", /HEIF/],
    ["AVIF", ascii("\0\0\0\x1cftypavif\0\0\0\0"), "image-type", /AVIF/],
    ["BMP", ascii("BM\x36\0\0\0"), "image-type", /BMP/],
    ["a PNG of 30,000 x 30,000", blackPng(30_000, 30_000), "image-pixels", /30000 x 30000/],
    ["a PNG of 2^31 x 2^31", withSize("rgb.png", 16, [0x80, 0, 0, 0, 0x80, 0, 0, 0]), "image-pixels", /2147483648/],
    ["a PNG without width", withSize("rgb.png", 16, [0, 0, 0, 0]), "image-pixels", /0 x 11/],
    [
      "a JPEG of 65,500 x 65,500",
      withSize("444.jpg", frameOf("444.jpg") + 5, [255, 220, 255, 220]),
      "image-pixels",
      /65500/,
    ],
    ["a PNG of 24 million pixels in 1 kB", blackPng(6000, 4000, new Uint8Array(9)), "image-truncated", /too early/],
    ["a JPEG of 24 million pixels in 1 kB", manyPixels("444.jpg"), "image-truncated", /too early/],
    ["the same, progressive", manyPixels("progressive.jpg"), "image-truncated", /too early/],
    ["the same, in four colours", manyPixels("cmyk.jpg"), "image-truncated", /too early/],
    ["a JPEG without its end", file("baseline.jpg").subarray(0, -3), "image-truncated", /too early/],
    ["a PNG whose pixels end early", file("rgb.png").subarray(0, -20), "image-truncated", /too early/],
    ["a WebP whose pixels end early", file("lossy.webp").subarray(0, -20), "image-truncated", /too early/],
    ["a JPEG without height", withSize("444.jpg", frameOf("444.jpg") + 5, [0, 0]), "image-type", /DNL/],
    ["a JPEG of 12 bits", withSize("444.jpg", frameOf("444.jpg") + 4, [12]), "image-type", /12 bits/],
    ["an arithmetic JPEG", withSize("444.jpg", frameOf("444.jpg") + 1, [0xc9]), "image-type", /arithmetic/],
    ["a JPEG that is all fill bytes", new Uint8Array(100_000).fill(255).with(1, 0xd8), "image-truncated", /too early/],
    ["30 MB of fill bytes", new Uint8Array(30e6).fill(255).with(1, 0xd8), "image-damaged", /in front of a marker/],
    ["a JPEG of 30 MB of 0xd9 without an end", withoutEnd(0xd9), "image-truncated", /too early/],
    ["a JPEG of 30 MB of 0xff without an end", withoutEnd(0xff), "image-truncated", /too early/],
    ["a JPEG of 100,000 empty segments", repeated([255, 216], [255, 224, 0, 2]), "image-damaged", /more than 65536/],
    ["a GIF whose comment has 100,000 parts", repeated([...gifStart, 33, 254], [1, 7]), "image-damaged", /parts/],
    ["a GIF of 100,000 empty comments", repeated(gifStart, [33, 254, 0]), "image-damaged", /more than 1024 blocks/],
    ["a WebP of 16,384 x 16,384", withSize("lossless.webp", 21, [0xff, 0xff, 0xff, 0x0f]), "image-pixels", /16384/],
    ["a GIF of 65,535 x 65,535", withSize("plain.gif", 6, [255, 255, 255, 255]), "image-pixels", /65535/],
    [
      "a GIF without a frame",
      joined(file("plain.gif").subarray(0, 13).with(10, 0), [0x3b]),
      "image-damaged",
      /no frame/,
    ],
  ];
  for (const [name, bytes, code, message] of rows) {
    test(name, async () => {
      await assert.rejects(reader.read(bytes), (error) => {
        assert.ok(error instanceof MediaError, String(error));
        assert.equal(error.code, code);
        assert.match(error.message, message);
        return true;
      });
    });
    test(`${name}: within 50 ms and 64 MiB`, { skip: skipsMemory }, () => assertRefusedInBounds(reader, bytes));
  }
  test("the bomb of 30,000 x 30,000 pixels is a file of about 110 kB", () => {
    assert.ok(blackPng(30_000, 30_000).length < 120_000);
  });
  test("a WebP whose canvas is another size than its pixels", () => {
    const still = file("lossless.webp").subarray(12);
    const canvas = joined(ascii("VP8X"), [10, 0, 0, 0], [0, 0, 0, 0], [99, 0, 0], [99, 0, 0]);
    const bytes = joined(ascii("RIFF"), [0, 0, 0, 0], ascii("WEBP"), canvas, still);
    assert.throws(() => readImageHeader(bytes), /canvas is 100 x 100, its pixels 17 x 11/);
  });
  test("an animated WebP", () => {
    const bytes = joined(
      ascii("RIFF"),
      [0, 0, 0, 0],
      ascii("WEBPVP8X"),
      [10, 0, 0, 0],
      [2, 0, 0, 0],
      [9, 0, 0],
      [9, 0, 0],
    );
    assert.throws(() => readImageHeader(bytes), /Animated WebP/);
  });
  test("a file of more bytes than are read", async () => {
    await assert.rejects(readImage(file("rgb.png"), { limits: { maxBytes: 100 } }), { code: "image-bytes" });
  });
});

describe("an image that fails while it is decoded", () => {
  const few: readonly (readonly [string, Uint8Array])[] = [
    ["GIF", withSize("plain.gif", file("plain.gif").indexOf(0x2c, 13) + 5, [0x70, 0x17, 0xa0, 0x0f])],
    ["lossless WebP", withSize("lossless.webp", 21, [0x6f, 0xd7, 0xe7, 0x03])],
    ["lossy WebP", withSize("lossy.webp", file("lossy.webp").indexOf(0x9d) + 3, [0x70, 0x17, 0xa0, 0x0f])],
  ];
  for (const [kind, bytes] of few) {
    test(`has 24 million pixels in a ${kind} of some bytes, and takes less than 64 MiB`, async () => {
      const { width, height } = readImageHeader(bytes);
      assert.deepEqual([width, height], [6000, 4000]);
      await reader.read(file("rgb.png")); // the thread has started
      if (skipsMemory === false) forgetPeak();
      const before = skipsMemory === false ? memory("VmRSS") : 0;
      await assert.rejects(reader.read(bytes), { code: "image-damaged" });
      if (skipsMemory === false) assert.ok(memory("VmHWM") - before < 64, `${memory("VmHWM") - before} MiB`);
    });
  }
  test("is so thin that a side vanishes when it is fitted", async () => {
    const reading = reader.read(blackPng(30_000, 1), { fit: () => ({ width: 732, height: 12, mode: "pad" }) });
    await assert.rejects(reading, { code: "image-shape" });
  });
  test("has fewer pixels than its header says", async () => {
    await assert.rejects(reader.read(blackPng(100, 100, new Uint8Array(200))), { code: "image-damaged" });
  });
  test("is a WebP whose bitstream was given another size", async () => {
    await assert.rejects(reader.read(withSize("lossless.webp", 21, [0xe7, 0xc3, 0xf9, 0x00])), {
      code: "image-damaged",
    });
  });
  for (const name of [
    "rgb.png",
    "interlaced.png",
    "baseline.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "lossy.webp",
    "lossless.webp",
    "plain.gif",
  ]) {
    test(`${name} without its end is refused`, async () => {
      const bytes = file(name);
      const cut = bytes.subarray(0, Math.floor(bytes.length * 0.7));
      await assert.rejects(reader.read(cut), (error) => error instanceof MediaError);
    });
  }
  test("takes more memory than a decoder may have", async () => {
    const bytes = blackPng(4000, 4000);
    await assert.rejects(readImage(bytes, { limits: { memoryBytes: 16 * 2 ** 20 } }), { code: "image-memory" });
  });
  test("takes longer than it may, and the next one is read", async () => {
    using impatient = new ImageReader({ timeMs: 1 });
    await assert.rejects(impatient.read(blackPng(4000, 4000)), { code: "image-time" });
    using patient = new ImageReader();
    assert.equal((await patient.read(file("rgb.png"))).width, 17);
  });
  test("is given up when the caller does", async () => {
    const controller = new AbortController();
    const reading = reader.read(blackPng(4000, 4000), { signal: controller.signal });
    controller.abort(new Error("no more"));
    await assert.rejects(reading, /no more/);
    assert.equal((await reader.read(file("rgb.png"))).width, 17);
  });
});

test("a GIF of 100,000 frames costs what its first frame costs", async () => {
  const gif = file("plain.gif");
  const frames = Buffer.concat([
    gif.subarray(0, -1),
    ...Array.from({ length: 100_000 }, () => gif.subarray(gif.indexOf(0x2c), -1)),
  ]);
  const image = await readImage(frames, { limits: { maxBytes: frames.length } });
  assert.deepEqual(image.data, (await reader.read(gif)).data);
});

test("mutated files of every kind give pixels of the size in their header, or a MediaError", async () => {
  // Whole numbers: fast-check's fractions are nearly all so small that they name the first byte.
  const position = fc.integer({ min: 0, max: 999_999 });
  const mutation = fc.record({
    name: fc.constantFrom(...names),
    changes: fc.array(fc.tuple(position, fc.nat(255)), { minLength: 1, maxLength: 6, size: "max" }),
    cut: fc.option(position, { freq: 1 }), // what is cut seldom comes to a decoder
  });
  using bounded = new ImageReader({ maxPixels: 1_000_000, timeMs: 1000, memoryBytes: 64 * 2 ** 20 });
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(mutation, async ({ name, changes, cut }) => {
      const whole = file(name);
      const bytes = cut === null ? whole : whole.subarray(0, Math.ceil((whole.length * cut) / 1e6));
      for (const [where, value] of changes) bytes[Math.floor((where / 1e6) * bytes.length)] = value;
      const outcome = await bounded.read(bytes).then(
        ({ width, height, data }) => {
          assert.equal(data.length, 3 * width * height);
          return "read";
        },
        (error) => {
          if (error instanceof MediaError) return error.code;
          throw error;
        },
      );
      assert.match(outcome, /^(read|image-(type|empty|truncated|damaged|pixels|memory|time))$/);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }),
    { numRuns: 100 },
  );
  // The test is about decoders, not about headers alone.
  for (const outcome of ["read", "image-damaged"]) assert.ok((outcomes.get(outcome) ?? 0) > 3, `${[...outcomes]}`);
});

test("headers of any bytes give a size or a MediaError", () => {
  const starts = names.map((name) => file(name).subarray(0, 40));
  fc.assert(
    fc.property(fc.constantFrom(...starts), fc.nat(40), fc.uint8Array({ maxLength: 200 }), (start, kept, rest) => {
      try {
        const { width, height } = readImageHeader(joined(start.subarray(0, kept), rest));
        assert.ok(Number.isInteger(width * height));
      } catch (error) {
        assert.ok(error instanceof MediaError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

describe("data: URLs", () => {
  const url = (name: string) => `data:image/png;base64,${Buffer.from(file(name)).toString("base64")}`;
  test("are read by what is in them, whatever type they name", async () => {
    assert.equal((await reader.read(url("rgb.png"))).key, (await reader.read(file("rgb.png"))).key);
    assert.equal((await reader.read(url("444.jpg"))).width, 17);
    assert.equal((await reader.read(Buffer.from(file("rgb.png")).toString("base64"))).width, 17);
  });
  const rows: readonly (readonly [string, string])[] = [
    ["percent encoding", "data:image/png,%89PNG"],
    ["white space", "data:image/png;base64,AAAA\nAAA"],
    ["a character of another alphabet", "data:image/png;base64,AA-_"],
    ["padding in the middle", "data:image/png;base64,AA==AAAA"],
    ["a wrong length", "data:image/png;base64,AAAAA"],
    ["characters outside Latin", "data:image/png;base64,AA\u0391\u0391"],
    ["a very long type", `data:${"x".repeat(300)};base64,AAAA`],
  ];
  for (const [name, text] of rows) {
    test(`with ${name} are refused`, async () => {
      await assert.rejects(reader.read(text), { name: "MediaError", code: "data-url" });
    });
  }
  for (const address of ["https://example.com/cat.png", "HTTP://10.0.0.1/", "file:///etc/passwd", "blob:abc"]) {
    test(`do not stand in place of ${address}, which is not fetched`, async () => {
      await assert.rejects(reader.read(address), { name: "MediaError", code: "image-url" });
    });
  }
  test("of more bytes than are read are refused by their length", async () => {
    await assert.rejects(readImage(`data:;base64,${"AAAA".repeat(1000)}`, { limits: { maxBytes: 2999 } }), {
      code: "image-bytes",
    });
  });
  test("give back any bytes", async () => {
    const { bytesOfDataUrl } = await import("../../src/media/data-url.ts");
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 50 }), async (bytes) => {
        assert.deepEqual(await bytesOfDataUrl(`data:x;base64,${Buffer.from(bytes).toString("base64")}`, 50), bytes);
      }),
    );
  });
  test("of megabytes give back their bytes, and are refused wherever one character is wrong", async () => {
    const { bytesOfDataUrl } = await import("../../src/media/data-url.ts");
    const bytes = Uint8Array.from({ length: 2 ** 21 + 1 }, (_, i) => (i * i) >> 3);
    const url = `data:x;base64,${Buffer.from(bytes).toString("base64")}`;
    assert.deepEqual(await bytesOfDataUrl(url, bytes.length), bytes);
    for (const wrong of ["-", "=", " ", "\u0391"])
      for (const at of [100, 2 ** 20 + 13, 2 ** 20 + 14, 2 ** 21, url.length - 5])
        await assert.rejects(bytesOfDataUrl(url.slice(0, at) + wrong + url.slice(at + 1), bytes.length), {
          code: "data-url",
        });
  });
});
