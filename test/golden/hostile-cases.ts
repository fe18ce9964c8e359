/** Malformed and odd but legal files with the verdict that a strict reader must reach. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inflateSync } from "node:zlib";
import { FormatError } from "../../src/errors.ts";
import { type ByteSource, MemorySource } from "../../src/format/byte-source.ts";
import { readGzippedJson } from "./deepseek-tokenizer.ts";

interface HostileCase {
  readonly name: string;
  readonly format: string;
  readonly verdict: "accept" | "reject";
  readonly reason?: string;
  readonly b64?: string;
  readonly deflate?: string;
}

/** One test for each case of a format: accepted, or refused with a FormatError whose code is among the stated ones. */
export function testHostileFiles(
  format: string,
  open: (source: ByteSource) => Promise<unknown>,
  anyCode: RegExp,
): void {
  const all = (readGzippedJson("hostile/hostile.json.gz") as { cases: HostileCase[] }).cases;
  const cases = all.filter((hostile) => hostile.format === format);
  describe(`${cases.length} hostile ${format} files`, () => {
    for (const { name, verdict, reason = "", b64, deflate } of cases) {
      test(`${name}: ${verdict} (${reason})`, async () => {
        const bytes = deflate === undefined ? Buffer.from(b64!, "base64") : inflateSync(Buffer.from(deflate, "base64"));
        const opened = open(new MemorySource(name, bytes));
        if (verdict === "accept") {
          await opened;
          return;
        }
        await assert.rejects(opened, (error) => {
          assert.ok(error instanceof FormatError, `${error}`);
          const codes: readonly string[] = reason.match(/[a-z]+(-[a-z0-9]+)+|overlap|hole|truncated|misaligned/g) ?? [];
          if (!anyCode.test(reason)) assert.ok(codes.includes(error.code), `code ${error.code} for ${reason}`);
          assert.equal(error.where, name);
          return true;
        });
      });
    }
  });
}
