/** What a command reads has a bound, also where the size of a file says nothing: devices and pipes. */
import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { describe, test } from "node:test";
import { readBounded } from "../../src/cli/input.ts";
import { RequestError } from "../../src/errors.ts";

describe("input of a command", () => {
  const tooLarge = () => new RequestError("too large");

  test("within the bound comes whole", async () => {
    const pieces = Readable.from([Buffer.from("ab"), Buffer.from("c")]);
    assert.equal((await readBounded(pieces, 3, tooLarge)).toString(), "abc");
  });

  test("that never ends is refused at the bound", async () => {
    let given = 0;
    async function* endless() {
      for (;;) {
        given++;
        yield Buffer.alloc(1000);
      }
    }
    await assert.rejects(readBounded(Readable.from(endless()), 5000, tooLarge), RequestError);
    assert.ok(given < 100);
  });

  const skip = process.platform === "win32" && "Windows has no /dev/zero";
  test("of a device is refused at the bound", { skip }, async () => {
    await assert.rejects(readBounded(createReadStream("/dev/zero"), 100_000, tooLarge), RequestError);
  });
});
