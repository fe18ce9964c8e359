/** The bytes of every token, one after another in one array: hundreds of thousands of arrays would be a burden to the collector. */
import { writeBytesOfToken } from "./byte-alphabet.ts";

export class TokenBytes {
  readonly #encoder = new TextEncoder();
  #bytes = new Uint8Array(1 << 16);
  #length = 0;
  /** By id: one more than where its bytes begin, 0 where no token has the id; and where they end. */
  #begins = new Int32Array(1 << 12);
  #ends = new Int32Array(1 << 12);
  #size = 0;

  /** One more than the greatest id. */
  get size(): number {
    return this.#size;
  }

  has(id: number): boolean {
    return (this.#begins[id] ?? 0) > 0;
  }

  /** A view, which is not to be written to; undefined where no token has the id. */
  of(id: number): Uint8Array | undefined {
    return this.has(id) ? this.#bytes.subarray(this.#begins[id]! - 1, this.#ends[id]!) : undefined;
  }

  /** Gives a token the bytes that its letters stand for; false when one of them stands for none. */
  setLetters(id: number, token: string): boolean {
    this.#makeRoom(token.length);
    if (!writeBytesOfToken(token, this.#bytes, this.#length)) return false;
    this.#append(id, token.length);
    return true;
  }

  /** Gives a token the bytes of a text in UTF-8. */
  setText(id: number, text: string): void {
    this.#makeRoom(3 * text.length);
    this.#append(id, this.#encoder.encodeInto(text, this.#bytes.subarray(this.#length)).written);
  }

  #makeRoom(most: number): void {
    if (this.#length + most > this.#bytes.length) this.#bytes = grown(this.#bytes, this.#length + most);
  }

  #append(id: number, count: number): void {
    if (id >= this.#begins.length) {
      this.#begins = grown(this.#begins, id + 1);
      this.#ends = grown(this.#ends, id + 1);
    }
    this.#begins[id] = this.#length + 1;
    this.#length += count;
    this.#ends[id] = this.#length;
    this.#size = Math.max(this.#size, id + 1);
  }
}

function grown<Numbers extends Uint8Array | Int32Array>(numbers: Numbers, least: number): Numbers {
  const larger = new (numbers.constructor as new (length: number) => Numbers)(Math.max(least, 2 * numbers.length));
  larger.set(numbers);
  return larger;
}
