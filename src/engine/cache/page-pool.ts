/**
 * The pages of one cache layout: which are free, and how many sequences use each. A page that more than one sequence uses is
 * read-only; who wants to write copies it first (copy-on-write).
 */
import { DeviceError } from "../../errors.ts";

export class PagePool {
  readonly #free: number[] = [];
  readonly #users: number[] = [];

  /** Pages that exist, free or not. */
  get size(): number {
    return this.#users.length;
  }

  get used(): number {
    return this.#users.length - this.#free.length;
  }

  /** A page for one user. New pages are added at the end; the caller makes room for `size` pages before it writes. */
  allocate(): number {
    const page = this.#free.pop() ?? this.#users.length;
    this.#users[page] = 1;
    return page;
  }

  retain(page: number): void {
    this.#requireUsed(page);
    this.#users[page]! += 1;
  }

  release(page: number): void {
    this.#requireUsed(page);
    this.#users[page]! -= 1;
    if (this.#users[page] === 0) this.#free.push(page);
  }

  /** Sequences that use the page. */
  users(page: number): number {
    return this.#users[page]!;
  }

  isShared(page: number): boolean {
    return this.#users[page]! > 1;
  }

  /** A page that is given back twice would soon belong to two sequences at once. */
  #requireUsed(page: number): void {
    if (this.#users[page]! > 0) return;
    throw new DeviceError(`The cache page ${page} is used by nobody`, { code: "internal" });
  }
}
