/**
 * Files in memory that fail on demand: a disk that is full or broken from some write on, and one that loses power. After a loss of
 * power, of what was not synced any part may be there: each write wholly, torn at any byte, or not at all; names likewise.
 */
import type { FileSystem, StoreFile } from "../src/engine/store/file-system.ts";

interface Content {
  bytes: Buffer;
  /** What is certain to survive. */
  durable: Buffer;
  readonly writes: { offset: number; bytes: Buffer }[];
}

export class MemoryFiles implements FileSystem {
  /** Files by path, as programs see them. */
  files = new Map<string, Content>();
  #durableNames = new Map<string, Content>();
  /** Throws to let an operation fail; called with every one that changes something. */
  beforeChange: (operation: string, bytes: number) => void = () => {};
  /** Damage on the way from the disk. */
  onRead: (path: string, offset: number, bytes: Buffer) => Buffer = (_path, _offset, bytes) => bytes;
  free = Number.MAX_SAFE_INTEGER;

  async lock() {
    return { release: async () => {} };
  }

  async makeDirectory(): Promise<void> {
    this.beforeChange("makeDirectory", 0);
  }

  async makePrivate(): Promise<void> {}

  async list(directory: string): Promise<string[]> {
    return [...this.files.keys()].flatMap((path) =>
      path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : [],
    );
  }

  async open(somePath: string, mode: "create" | "write" | "read"): Promise<StoreFile> {
    const path = withSlashes(somePath);
    if (mode === "create") {
      if (this.files.has(path)) throw Object.assign(new Error("EEXIST"), { code: "EEXIST" });
      this.beforeChange("create", 0);
      this.files.set(path, { bytes: Buffer.alloc(0), durable: Buffer.alloc(0), writes: [] });
    }
    const content = this.files.get(path);
    if (content === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
    return new MemoryFile(this, path, content);
  }

  async rename(from: string, to: string): Promise<void> {
    this.beforeChange("rename", 0);
    this.files.set(withSlashes(to), this.files.get(withSlashes(from))!);
    this.files.delete(withSlashes(from));
  }

  async remove(somePath: string): Promise<void> {
    const path = withSlashes(somePath);
    if (!this.files.has(path)) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
    this.beforeChange("remove", 0);
    this.files.delete(path);
  }

  async syncDirectory(): Promise<void> {
    this.beforeChange("syncDirectory", 0);
    this.#durableNames = new Map(this.files);
  }

  async freeBytes(): Promise<number> {
    return this.free;
  }

  /** The disk after the power was gone. */
  afterPowerLoss(random: () => number): MemoryFiles {
    const next = new MemoryFiles();
    const names = random() < 0.5 ? this.#durableNames : this.files;
    for (const [path, { durable, writes }] of names) {
      let bytes: Buffer = Buffer.from(durable);
      for (const write of writes) {
        const fate = random();
        const kept = fate < 0.3 ? 0 : fate < 0.6 ? write.bytes.length : Math.floor(random() * write.bytes.length);
        bytes = overwritten(bytes, write.offset, write.bytes.subarray(0, kept));
      }
      next.files.set(path, { bytes, durable: Buffer.from(bytes), writes: [] });
    }
    next.#durableNames = new Map(next.files);
    return next;
  }
}

class MemoryFile implements StoreFile {
  readonly #files: MemoryFiles;
  readonly #path: string;
  readonly #content: Content;

  constructor(files: MemoryFiles, path: string, content: Content) {
    this.#files = files;
    this.#path = path;
    this.#content = content;
  }

  async size(): Promise<number> {
    return this.#content.bytes.length;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.from(this.#content.bytes.subarray(offset, offset + length));
    return this.#files.onRead(this.#path, offset, bytes);
  }

  async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(parts);
    this.#files.beforeChange("write", bytes.length);
    this.#content.bytes = overwritten(this.#content.bytes, offset, bytes);
    this.#content.writes.push({ offset, bytes });
  }

  async truncate(size: number): Promise<void> {
    this.#files.beforeChange("truncate", 0);
    this.#content.bytes = Buffer.from(this.#content.bytes.subarray(0, size));
    this.#content.durable = Buffer.from(this.#content.durable.subarray(0, size));
    this.#content.writes.length = 0;
  }

  async sync(): Promise<void> {
    this.#files.beforeChange("sync", 0);
    this.#content.durable = Buffer.from(this.#content.bytes);
    this.#content.writes.length = 0;
  }

  async close(): Promise<void> {}
}

/** The store writes paths as the system does. */
function withSlashes(path: string): string {
  return path.replaceAll("\\", "/");
}

function overwritten(bytes: Buffer, offset: number, part: Buffer): Buffer {
  const result = Buffer.alloc(Math.max(bytes.length, offset + part.length));
  bytes.copy(result);
  part.copy(result, offset);
  return result;
}
