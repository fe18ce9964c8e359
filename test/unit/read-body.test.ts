/** Bodies in pieces: what a text says does not depend on where its bytes are cut; many large ones hold the event loop no longer than one. */
import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { describe, test } from "node:test";
import fc from "fast-check";
import { fromJson } from "../../src/chat/read-json.ts";
import type { Exchange } from "../../src/server/http/exchange.ts";
import {
  type BodyLimits,
  BodyReader,
  defaultBodyLimits,
  type RequestContent,
} from "../../src/server/http/read-body.ts";
import { HttpError } from "../../src/server/http-error.ts";

/** As a server sees it that gets these chunks. */
function exchangeOf(chunks: Iterable<Buffer>, headers: Record<string, string> = {}): Exchange {
  const request = Object.assign(Readable.from(chunks, { objectMode: false }), {
    headers: { "content-type": "application/json", ...headers },
  }) as unknown as IncomingMessage;
  return { request, response: {} as ServerResponse, match: { route: { method: "POST" } } } as unknown as Exchange;
}

const reader = (limits: Partial<BodyLimits> = {}) => new BodyReader({ ...defaultBodyLimits, ...limits });

async function read(bodies: BodyReader, exchange: Exchange): Promise<RequestContent> {
  return (await bodies.read(exchange, false))!;
}

/** Pieces are 64 KiB and a little: a cut is at any byte of a character. */
function* cut(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length]!;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 65_530, max: 65_560 })), {
  minLength: 1,
  maxLength: 5,
});
const mixed = "aé中𝒳\\n\\ud83d\\ude00\\u00e9 ";

describe("a body in pieces", () => {
  test("says what its text says, wherever it is cut", async () => {
    const units = fc.array(fc.constantFrom("a", "é", "中", "𝒳", "\\n", "\\ud83d\\ude00", "\\ud83d", "\ufeff"), {
      minLength: 1,
      maxLength: 9,
    });
    const property = fc.asyncProperty(units, sizes, fc.boolean(), async (all, lengths, hasMark) => {
      const unit = all.join("");
      const text = `{"${unit}":["${unit.repeat(Math.ceil(150_000 / unit.length))}",-1.5e3,{"__proto__":"${unit}"}]}`;
      const bytes = Buffer.from((hasMark ? "\ufeff" : "") + text);
      const { json } = await read(
        reader(),
        exchangeOf(
          cut(
            bytes,
            lengths.map((size) => Math.max(size, 500)),
          ),
        ),
      );
      const expected = JSON.parse(text, (_, value) => (typeof value === "string" ? value.toWellFormed() : value));
      const [key] = Object.keys(expected) as [string];
      assert.deepEqual(fromJson(json), { [key.toWellFormed()]: expected[key] });
    });
    await fc.assert(property, { numRuns: 100, seed: 1 });
  });

  const whole = Buffer.from(`["${mixed.repeat(15_000)}"]`);
  const refused: [string, RegExp, (at: number) => Buffer][] = [
    ["a byte that no character has", /not UTF-8/, (at) => Buffer.from(whole).fill(0xff, at, at + 1)],
    ["half a character at its end", /not UTF-8/, () => Buffer.concat([whole, Buffer.from([0xf0, 0x9d])])],
    ["a NUL", /control character|no escape|hexadecimal|not UTF-8/, (at) => Buffer.from(whole).fill(0, at, at + 1)],
    ["no end", /a string has no end/, (at) => Buffer.concat([whole.subarray(0, 14), Buffer.alloc(at, "a")])],
    ["text behind its end", /more text/, () => Buffer.concat([whole, Buffer.alloc(200_000, " "), Buffer.from("1")])],
  ];
  for (const [name, message, bytesFor] of refused) {
    test(`with ${name} is refused`, async () => {
      for (const at of [5, 65_535, 65_536, 70_001, 131_072, whole.length - 3]) {
        const failed = read(reader(), exchangeOf(cut(bytesFor(at), [65_537])));
        await assert.rejects(failed, (error) => {
          assert.ok(error instanceof HttpError && error.status === 400);
          assert.match(error.message, message);
          return true;
        });
      }
    });
  }

  test("is refused at the piece that is wrong, and its rest is not read", async () => {
    let given = 0;
    const endless = (function* () {
      for (;;) {
        given++;
        yield Buffer.from(given === 3 ? "x".repeat(65_536) : " ".repeat(65_536));
      }
    })();
    await assert.rejects(read(reader(), exchangeOf(endless)), (error) => {
      assert.ok(error instanceof HttpError && error.headers.connection === "close");
      assert.match(error.message, /a value is expected at character 131072/);
      return true;
    });
    assert.ok(given < 10, `${given} pieces were read`);
  });

  test("lets others have their turn between its pieces, and shares them with other bodies", async () => {
    const bytes = Buffer.from(`["${"a".repeat(2 ** 22)}",${"1,".repeat(2 ** 17)}1]`);
    for (const bodies of [1, 4]) {
      const one = reader();
      let turns = 0;
      let isOver = false;
      const count = () => {
        turns++;
        if (!isOver) setImmediate(count);
      };
      setImmediate(count);
      const all = Array.from({ length: bodies }, () => read(one, exchangeOf(cut(bytes, [65_536]))));
      for (const content of await Promise.all(all)) content[Symbol.dispose]();
      isOver = true;
      const pieces = Math.floor(bytes.length / 65_536) + 2 ** 17 / 4096;
      assert.ok(turns >= bodies * pieces, `${turns} turns for ${bodies} times ${pieces} pieces`);
    }
  });

  test("has a digest where its answer may be kept: that of its bytes", async () => {
    const digest = async (chunks: Buffer[], headers = {}) => (await read(reader(), exchangeOf(chunks, headers))).digest;
    const key = { "idempotency-key": "k" };
    const spaced = Buffer.from(`${whole} `);
    assert.equal(await digest([whole]), undefined);
    assert.equal(await digest([whole], key), await digest([...cut(whole, [65_536])], key));
    assert.notEqual(await digest([whole], key), await digest([spaced], key));
  });
});

describe("the room of all bodies", () => {
  const mebibyte = 2 ** 20;
  const large = Buffer.from(`"${"a".repeat(3 * mebibyte)}"`);
  const limits = { bytes: 4 * mebibyte, totalBytes: 8 * mebibyte };
  const declared = { "content-length": String(large.length) };
  const busy = (error: unknown) => error instanceof HttpError && error.status === 503 && error.retryAfterSeconds === 2;

  test("is taken by large ones until they are answered", async () => {
    const bodies = reader(limits);
    const first = await read(bodies, exchangeOf(cut(large, [65_536]), declared));
    const second = await read(bodies, exchangeOf(cut(large, [65_536])));
    await assert.rejects(read(bodies, exchangeOf([large], declared)), busy, "at once, by its length");
    await assert.rejects(read(bodies, exchangeOf(cut(large, [65_536]))), busy, "once it is too much");
    await read(bodies, exchangeOf([Buffer.from("{}")], { "content-length": "2" }));
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    const third = await read(bodies, exchangeOf([large], declared));
    await assert.rejects(read(bodies, exchangeOf([large], declared)), busy);
    second[Symbol.dispose]();
    third[Symbol.dispose]();
  });

  test("is kept for large ones that are on their way, and small ones need not wait for them", async () => {
    const bodies = reader(limits);
    const slow = [0, 1].map(() => exchangeOf([], declared));
    const stalled = slow.map(({ request }) => {
      request.push = () => true; // nothing comes, no end either
      return request;
    });
    const waiting = slow.map((exchange) => read(bodies, exchange));
    await assert.rejects(read(bodies, exchangeOf([large], declared)), busy);
    await read(bodies, exchangeOf([Buffer.from("{}")], { "content-length": "2" }));
    for (const request of stalled) request.destroy();
    for (const body of waiting) await assert.rejects(body, /ended before its declared length/);
    await read(bodies, exchangeOf([large], declared));
  });
});
