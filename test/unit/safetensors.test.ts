import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError } from "../../src/errors.ts";
import { MemorySource } from "../../src/format/byte-source.ts";
import { openSafetensors, readTensor } from "../../src/format/safetensors.ts";
import { safetensorsBytes } from "./safetensors-bytes.ts";

const valid = safetensorsBytes({
  a: { dtype: "F32", shape: [2, 2], bytes: new Uint8Array(16) },
  b: { dtype: "BF16", shape: [3], bytes: new Uint8Array(6) },
});

/** Opens bytes; a FormatError is an answer, anything else is a fault of the reader. */
async function verdict(bytes: Uint8Array): Promise<"accepted" | "refused"> {
  try {
    await openSafetensors(new MemorySource("x.safetensors", bytes));
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof FormatError, `${error}`);
    return "refused";
  }
}

describe("safetensors headers", () => {
  test("any bytes are accepted or refused with a FormatError", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => void (await verdict(bytes))),
      { numRuns: 500 },
    );
  });

  test("a valid file with any bytes changed is accepted or refused with a FormatError", async () => {
    const change = fc.record({ at: fc.nat(valid.length - 1), to: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Uint8Array.from(valid);
        for (const { at, to } of changes) bytes[at] = to;
        await verdict(bytes);
      }),
      { numRuns: 2000, seed: 5 },
    );
  });

  test("a file cut anywhere is refused", async () => {
    for (let length = 0; length < valid.length; length++)
      assert.equal(await verdict(valid.subarray(0, length)), "refused");
    assert.equal(await verdict(valid), "accepted");
  });

  test("a tensor is read by its own bytes alone", async () => {
    const bytes = safetensorsBytes({
      first: { dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 3) },
      second: { dtype: "F32", shape: [1], bytes: new Uint8Array(Float32Array.of(1.5).buffer) },
    });
    const reads: [number, number][] = [];
    const source = new MemorySource("x", bytes);
    const file = await openSafetensors({
      name: "x",
      size: source.size,
      read: (offset, length) => {
        reads.push([offset, length]);
        return source.read(offset, length);
      },
      close: () => source.close(),
    });
    reads.length = 0;
    // The tensor begins at an odd offset of the file; what is read begins at offset 0 of its own memory.
    const tensor = await readTensor(file, file.tensors.get("second")!);
    assert.deepEqual([...new Float32Array(tensor.buffer)], [1.5]);
    assert.deepEqual(reads, [[bytes.length - 4, 4]]);
  });
});
