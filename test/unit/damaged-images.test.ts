/**
 * Images whose damage shows only while they are decoded: each is refused, or gives pixels of the size in its header, and costs its
 * decoding alone; what comes after it is read as if it had not been there.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { crc32, deflateSync } from "node:zlib";
import { MediaError } from "../../src/errors.ts";
import { ImageReader } from "../../src/media/image-reader.ts";
import { assertRefusedInBounds, memory, skipsMemory } from "../process-memory.ts";
import { randomNumbers } from "../small-model.ts";

const file = (name: string) => new Uint8Array(readFileSync(join(import.meta.dirname, "../data/media", name)));
const files = ["rgb.png", "interlaced.png", "baseline.jpg", "restart.jpg", "progressive.jpg", "cmyk.jpg"].concat([
  "lossy.webp",
  "lossless.webp",
  "plain.gif",
  "interlaced.gif",
]);

const reader = new ImageReader();
after(() => reader[Symbol.dispose]());

const whole = new Map<string, string>();
for (const name of files) whole.set(name, (await reader.read(file(name))).key);

/** "same" for the pixels of the whole file, "other" for others, or the code it is refused with. */
async function outcome(name: string, bytes: Uint8Array): Promise<string> {
  try {
    const image = await reader.read(bytes);
    assert.equal(image.data.length, 3 * image.width * image.height);
    return image.key === whole.get(name) ? "same" : "other";
  } catch (error) {
    assert.ok(error instanceof MediaError, String(error));
    assert.match(error.code, /^image-(type|empty|truncated|damaged|pixels|shape|memory)$/);
    return error.code;
  }
}

async function stillReads(): Promise<void> {
  for (const name of files) assert.equal((await reader.read(file(name))).key, whole.get(name), name);
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const body = Buffer.concat([Buffer.from(type), data]);
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32BE(data.length, 0);
  numbers.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
}

/** A PNG of grey bytes that is whole by its headers and checksums, whatever is in its compressed pixels. */
function pngAround(pixels: Uint8Array, side: number): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 0, 0, 0, 0], 8);
  const chunks = [chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())];
  return Buffer.concat([Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10), ...chunks]);
}

const random = randomNumbers(11);
const noise = Uint8Array.from({ length: 300 * 301 }, (_, i) => (i % 301 === 0 ? 0 : Math.floor(256 * random())));
const goodStream = deflateSync(noise, { level: 0 });
/** Of a type that deflate does not have: 65,535 bytes behind the header of the first block. */
const badBlock = goodStream.map((byte, i) => (i === 2 + 5 + 65_535 ? 6 : byte));
const changed = (bytes: Uint8Array, at: number, length = 1) => {
  const copy = new Uint8Array(bytes);
  for (let i = at; i < at + length; i++) copy[i]! ^= 0x55;
  return copy;
};
/** The compressed pixels of a JPEG begin behind its SOS segment. */
const scanOf = (bytes: Uint8Array) => bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xda) + 14;

const damagedInside: readonly (readonly [string, Uint8Array])[] = [
  ["a PNG whose zlib stream begins wrong", pngAround(changed(goodStream, 0, 2), 300)],
  ["a PNG whose zlib stream is broken in the middle", pngAround(badBlock, 300)],
  ["a PNG whose zlib stream ends early", pngAround(goodStream.subarray(0, goodStream.length >> 1), 300)],
  ["a PNG with a wrong checksum", changed(file("rgb.png"), file("rgb.png").length - 15)],
  ["a PNG of noise", pngAround(noise, 300)],
  [
    "a JPEG with codes that do not exist",
    new Uint8Array(file("baseline.jpg")).fill(0xfe, scanOf(file("baseline.jpg")), -2),
  ],
  ["a JPEG whose pixels end in the middle", withEndAt(file("baseline.jpg"), 0.9)],
  ["a JPEG of four colours that ends in the middle", withEndAt(file("cmyk.jpg"), 0.95)],
  ["a lossless WebP of noise", new Uint8Array(file("lossless.webp")).fill(0xff, 26)],
  ["a lossy WebP of noise", new Uint8Array(file("lossy.webp")).fill(0xff, 30, 60)],
  ["a GIF that ends among its pixels", file("plain.gif").subarray(0, -40)],
  ["a GIF whose codes do not exist", new Uint8Array(file("plain.gif")).fill(0xff, -30, -2)],
];

/** The end marker where the compressed pixels have not ended yet. */
function withEndAt(bytes: Uint8Array, share: number): Uint8Array {
  const cut = bytes.slice(0, Math.floor(bytes.length * share) + 2);
  cut.set([0xff, 0xd9], cut.length - 2);
  return cut;
}

describe("an image that is damaged inside", () => {
  for (const [name, bytes] of damagedInside) {
    test(`${name} is refused, and the next ones are read`, async () => {
      await assert.rejects(reader.read(bytes), (error) => {
        assert.ok(error instanceof MediaError, String(error));
        assert.match(error.code, /^image-(damaged|truncated)$/);
        return true;
      });
      await stillReads();
    });
    test(`${name}: within 50 ms and 64 MiB, one after another`, { skip: skipsMemory }, () =>
      assertRefusedInBounds(reader, bytes),
    );
  }
});

describe("a file of every kind", () => {
  for (const name of files) {
    const bytes = file(name);
    test(`${name}, cut anywhere, is refused or has all its pixels`, async () => {
      const counts = new Map<string, number>();
      for (let at = 0; at < 60; at++) {
        const result = await outcome(name, bytes.subarray(0, Math.floor((bytes.length * at) / 60)));
        assert.notEqual(result, "other", `cut at ${at} of 60`);
        counts.set(result, (counts.get(result) ?? 0) + 1);
      }
      assert.ok((counts.get("same") ?? 0) < 15, `${[...counts]}`); // behind the pixels of tiny files stands much
      await stillReads();
    });

    test(`${name}, damaged at its head, is refused or read, and nothing else`, async () => {
      const refused: string[] = [];
      for (let at = 0; at < 48; at++) {
        for (const bit of [1, 128]) {
          const copy = new Uint8Array(bytes);
          copy[at]! ^= bit;
          const result = await outcome(name, copy);
          if (result.startsWith("image-")) refused.push(result);
        }
      }
      assert.ok(refused.length > 5, `${refused}`);
      await stillReads();
    });

    test(`${name}, damaged in the middle, is refused or read, and nothing else`, async () => {
      const results = new Set<string>();
      for (let i = 0; i < 60; i++) {
        const copy = new Uint8Array(bytes);
        for (let k = 0; k < 4; k++)
          copy[Math.floor(bytes.length * (0.3 + 0.6 * random()))]! ^= 1 << Math.floor(8 * random());
        results.add(await outcome(name, copy));
      }
      if (name.endsWith(".png")) assert.ok(!results.has("other"), "every PNG has checksums");
      await stillReads();
    });

    test(`${name} with rubbish behind it is what it was`, async () => {
      const rubbish = Uint8Array.from({ length: 50_000 }, () => Math.floor(256 * random()));
      assert.equal(await outcome(name, Buffer.concat([bytes, rubbish])), "same");
    });

    test(`${name} under the signature of another kind is refused`, async () => {
      for (const other of ["rgb.png", "baseline.jpg", "lossy.webp", "plain.gif"]) {
        if (other.slice(-3) === name.slice(-3)) continue;
        const copy = new Uint8Array(bytes);
        copy.set(file(other).subarray(0, 12));
        assert.match(await outcome(name, copy), /^image-/, other);
      }
    });
  }
});

describe("the thread that decodes", () => {
  const threads = () => readdirSync("/proc/self/task").length;

  test("takes no more memory and no more threads after 1,000 images, good and bad", { skip: skipsMemory }, async () => {
    const one = async (i: number) => {
      const name = files[i % files.length]!;
      if (i % 2 === 0) await outcome(name, file(name));
      else await reader.read(damagedInside[i % damagedInside.length]![1]).catch(() => {});
    };
    for (let i = 0; i < 200; i++) await one(i);
    const [resident, started] = [memory("VmRSS"), threads()];
    for (let i = 0; i < 1000; i++) await one(i);
    assert.ok(memory("VmRSS") - resident < 32, `${memory("VmRSS") - resident} MiB more`);
    assert.ok(threads() <= started, `${threads()} threads, ${started} before`);
  });

  test("is another one after a large picture, and gives its memory back", { skip: skipsMemory }, async () => {
    using own = new ImageReader();
    const black = pngAround(deflateSync(new Uint8Array(4000 * 4001)), 4000);
    await own.read(file("rgb.png"));
    await sleep(500);
    const [resident, before] = [memory("VmRSS"), threads()];
    for (let i = 0; i < 3; i++) assert.equal((await own.read(black)).width, 4000);
    const started = performance.now();
    while (threads() > before && performance.now() - started < 10_000) await sleep(20);
    assert.equal(threads(), before);
    await own.read(file("rgb.png"));
    assert.ok(memory("VmRSS") - resident < 200, `${memory("VmRSS") - resident} MiB more`); // two pictures of 48 MB that JavaScript has not let go
  });

  test("is replaced when it took too long, and the next images are read", { skip: skipsMemory }, async () => {
    using own = new ImageReader({ timeMs: 300 });
    const slow = pngAround(deflateSync(new Uint8Array(4800 * 4801)), 4800);
    const before = threads();
    using impatient = new ImageReader({ timeMs: 5 });
    for (let i = 0; i < 4; i++) await assert.rejects(impatient.read(slow), { code: "image-time" });
    assert.equal((await own.read(file("rgb.png"))).key, whole.get("rgb.png"));
    impatient[Symbol.dispose]();
    own[Symbol.dispose]();
    const started = performance.now();
    while (threads() > before && performance.now() - started < 10_000) await sleep(20);
    assert.equal(threads(), before);
  });

  test("never keeps a process alive, before and after its first image", async () => {
    const reads = (body: string) => `
      import { readFileSync } from "node:fs";
      const { ImageReader } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/media/image-reader.ts"))});
      const reader = new ImageReader();
      ${body}`;
    const png = JSON.stringify(join(import.meta.dirname, "../data/media/rgb.png"));
    for (const body of ["reader.warm();", `console.log((await reader.read(readFileSync(${png}))).width);`]) {
      const args = ["--input-type=module", "--eval", reads(body)];
      await promisify(execFile)(process.execPath, args, { timeout: 30_000 });
    }
  });

  test("reads nothing more when its reader is closed", async () => {
    const closed = new ImageReader();
    closed.warm();
    closed[Symbol.dispose]();
    closed.warm();
    await assert.rejects(closed.read(file("rgb.png")), /closed/);
  });
});
