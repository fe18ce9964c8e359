/** A buffer that grows and is used again: kernels put converted or gathered rows there instead of allocating every call. */
export class Scratch<T extends Float32Array | Float64Array> {
  readonly #make: (length: number) => T;
  #buffer: T;

  constructor(make: (length: number) => T) {
    this.#make = make;
    this.#buffer = make(0);
  }

  /** At least `length` elements of undefined content; the same memory as before unless it had to grow. */
  take(length: number): T {
    if (this.#buffer.length < length) this.#buffer = this.#make(Math.ceil(length * 1.25));
    return this.#buffer;
  }

  /** A copy of `values`. */
  convert(values: ArrayLike<number>): T {
    const buffer = this.take(values.length);
    for (let i = 0; i < values.length; i++) buffer[i] = values[i]!;
    return buffer;
  }
}

export const float64Scratch = (): Scratch<Float64Array> => new Scratch((length) => new Float64Array(length));
export const float32Scratch = (): Scratch<Float32Array> => new Scratch((length) => new Float32Array(length));
