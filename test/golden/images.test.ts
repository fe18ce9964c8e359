/**
 * Small images of every kind that is read (test/data/media), against what Pillow 11.3 makes of them: decoded, turned by their
 * EXIF orientation and converted with convert("RGB"), which drops transparency; and fitted with ImageOps.pad and resize.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { ImageReader } from "../../src/media/image-reader.ts";

interface Expected {
  readonly width: number;
  readonly height: number;
  /** base64 of [height, width, 3], or its hash. */
  readonly rgb?: string;
  readonly sha256?: string;
}

const folder = join(import.meta.dirname, "../data/media");
const { decoded, fitted } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as {
  decoded: Record<string, Expected>;
  fitted: Record<string, string>;
};
const file = (name: string) => new Uint8Array(readFileSync(join(folder, name)));

/** Levels that a byte may differ by; the reason is in src/media/decoders.ts. */
const tolerances: Readonly<Record<string, number>> = { "cmyk.jpg": 2, "ycck.jpg": 2 };
/** Pillow clips 16-bit greys to 255 when it converts them; ours are scaled down. */
const differsFromPillow = ["grey16.png"];

const reader = new ImageReader();
after(() => reader[Symbol.dispose]());

describe("pixels are those of Pillow", () => {
  for (const [name, expected] of Object.entries(decoded)) {
    if (differsFromPillow.includes(name)) continue;
    test(name, async () => {
      const image = await reader.read(file(name));
      assert.deepEqual([image.width, image.height], [expected.width, expected.height]);
      if (expected.rgb === undefined) assert.equal(sha256(image.data), expected.sha256);
      else assertClose(image.data, Buffer.from(expected.rgb, "base64"), tolerances[name] ?? 0);
    });
  }
  test("16-bit greys are scaled down to 8 bits, as 16-bit colours are", async () => {
    const grey = await reader.read(file("grey16.png"));
    const colour = await reader.read(file("rgb16.png"));
    assert.deepEqual(
      grey.data.filter((_, i) => i % 3 === 0),
      colour.data.filter((_, i) => i % 3 === 0),
    );
  });
});

describe("fitted pixels are those of Pillow", () => {
  for (const [name, hash] of Object.entries(fitted)) {
    const [source, size, mode] = name.split(" ") as [string, string, "pad" | "stretch"];
    const [width, height] = size.split("x").map(Number) as [number, number];
    test(name, async () => {
      const image = await reader.read(file(source), { fit: () => ({ width, height, mode }) });
      assert.equal(sha256(image.data), hash);
    });
  }
});

test("the key of an image names its pixels, not its file", async () => {
  const [png, gif, other] = await Promise.all(
    ["palette.png", "plain.gif", "rgb.png"].map((name) => reader.read(file(name))),
  );
  assert.equal(png!.key, gif!.key);
  assert.notEqual(png!.key, other!.key);
  assert.match(png!.key, /^[0-9a-f]{64}$/);
});

function assertClose(found: Uint8Array, expected: Uint8Array, tolerance: number): void {
  assert.equal(found.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    assert.ok(difference <= tolerance, `byte ${i} is ${found[i]}, expected ${expected[i]}`);
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
