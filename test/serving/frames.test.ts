/** The pipe between gateway and engine: any cut gives the same messages, and no bytes make it crash. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError } from "../../src/errors.ts";
import { encodeFrame, FrameBuffer, maxFrameBytes, PieceFrames } from "../../src/server/processes/frames.ts";

describe("frames", () => {
  test("come out as they went in, however the bytes are cut (property)", () => {
    const frames = fc.array(fc.tuple(fc.array(fc.jsonValue(), { maxLength: 4 }), fc.boolean()), { maxLength: 8 });
    const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 });
    const property = fc.property(frames, cuts, (sent, sizes) => {
      const bytes = Buffer.concat(sent.map(([messages, isPlain]) => encodeFrame(messages, isPlain)));
      const buffer = new FrameBuffer();
      const received: unknown[][] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = sizes[i % sizes.length]!;
        received.push(...buffer.push(bytes.subarray(at, at + size)));
        at += size;
      }
      assert.deepEqual(
        received,
        sent.map(([messages, isPlain]) => (isPlain ? JSON.parse(JSON.stringify(messages)) : messages)),
      );
    });
    fc.assert(property);
  });

  test("keep infinite numbers and maps in V8's format", () => {
    const messages = [{ logprob: Number.NEGATIVE_INFINITY, bias: new Map([[1, 2]]) }];
    assert.deepEqual(new FrameBuffer().push(encodeFrame(messages, false)), [messages]);
  });

  test("with pieces of a text come out as they went in", () => {
    const frames = new PieceFrames();
    for (const piece of ["", "abc".repeat(100_000), "é中𝒳", "short"]) {
      const head = { type: "image", id: 7, isLast: piece === "" };
      assert.deepEqual(new FrameBuffer().push(frames.frameOf(head, piece)), [[{ ...head, piece }]]);
    }
  });

  test("whose pieces are cut short or belong to nothing are a FormatError", () => {
    for (const bytes of [[], [9, 0, 0], [99, 0, 0, 0, 0x7b, 0x7d], [1, 0, 0, 0, 0x37], [255, 255, 255, 255]]) {
      const frame = Buffer.from([bytes.length, 0, 0, 0, 2, ...bytes]);
      assert.throws(() => new FrameBuffer().push(frame), FormatError);
    }
  });

  test("of any bytes are messages, a FormatError or not yet whole (property)", () => {
    const property = fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        new FrameBuffer().push(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof FormatError);
      }
    });
    fc.assert(property, { numRuns: 1000 });
  });

  test("longer than the bound are refused before they are held", () => {
    const head = Buffer.alloc(5);
    head.writeUInt32LE(maxFrameBytes + 1, 0);
    assert.throws(() => new FrameBuffer().push(head), /longer than/);
  });
});
