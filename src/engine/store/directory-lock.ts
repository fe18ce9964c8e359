/**
 * One writer a directory: a file LOCK that names the process. A lock of a process that is gone is taken over. On the same machine that
 * is certain (process number and start time); a lock of another machine (a shared volume) counts while its file was touched within
 * two minutes.
 */
import { link, open, readFile, rename, stat, unlink, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { FreeholdError } from "../../errors.ts";

export interface DirectoryLock {
  release(): Promise<void>;
}

export class StoreLockedError extends FreeholdError {
  constructor(directory: string, owner: string) {
    super(`The store is used by ${owner}`, {
      code: "store-locked",
      where: directory,
      hint: "Give each process a directory of its own; this one goes on without a store",
    });
  }
}

const touchEveryMs = 30_000;
const foreignLockMs = 120_000;
/** A process that was killed a moment ago may not be gone yet. */
const patienceMs = 1000;
const lookEveryMs = 50;

interface Owner {
  readonly pid: number;
  readonly host: string;
  /** Start time of the process in the kernel's ticks, so that a number that was given out again is noticed; "" where unknown. */
  readonly started: string;
}

/** Throws a StoreLockedError if another process keeps the lock, and the system's error where no file can be made. */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
    try {
      return await tryLock(directory);
    } catch (error) {
      if (!(error instanceof StoreLockedError) || waitedMs >= patienceMs) throw error;
      await pause(lookEveryMs);
    }
  }
}

async function tryLock(directory: string): Promise<DirectoryLock> {
  const path = join(directory, "LOCK");
  const mine = await describe(process.pid);
  for (let attempt = 0; attempt < 5; attempt++) {
    if (await create(path, mine)) return heldLock(path, mine);
    const found = await readFile(path, "latin1").catch(() => undefined);
    if (found === undefined) continue; // released just now
    if (await isHeld(path, found)) throw new StoreLockedError(directory, nameOf(found));
    await removeStale(path, found);
  }
  throw new StoreLockedError(directory, "another process that took it in the same moment");
}

async function create(path: string, mine: string): Promise<boolean> {
  // Written under another name first: a lock is never seen half written.
  const temporary = `${path}.${process.pid}`;
  try {
    await writeFile(temporary, mine, { mode: 0o600 });
    await link(temporary, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    await unlink(temporary).catch(() => {});
  }
}

function heldLock(path: string, mine: string): DirectoryLock {
  const timer = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), touchEveryMs);
  timer.unref();
  return {
    async release() {
      clearInterval(timer);
      const found = await readFile(path, "latin1").catch(() => undefined);
      if (found === mine) await unlink(path).catch(() => {});
    },
  };
}

async function isHeld(path: string, text: string): Promise<boolean> {
  const owner = parse(text);
  if (owner === undefined) return false;
  if (owner.host !== hostname()) return isFresh(path);
  if (!isAlive(owner.pid)) return false;
  return owner.started === "" ? isFresh(path) : (await startTime(owner.pid)) === owner.started;
}

async function isFresh(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs < foreignLockMs;
}

/** Moves a stale lock away. If another process was faster and what was moved is its fresh lock, that is put back. */
async function removeStale(path: string, stale: string): Promise<void> {
  const aside = `${path}.stale.${process.pid}`;
  try {
    await rename(path, aside);
    const moved = await readFile(aside, "latin1");
    if (moved !== stale) await link(aside, path);
  } catch {
    // It is gone: the next attempt sees what is there now.
  } finally {
    await unlink(aside).catch(() => {});
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function describe(pid: number): Promise<string> {
  return `process ${pid}\nhost ${hostname()}\nstarted ${await startTime(pid)}\n`;
}

function parse(text: string): Owner | undefined {
  const found = /^process (\d{1,10})\nhost ([^\n]{0,255})\nstarted (\d*)\n$/.exec(text);
  if (found === null) return undefined;
  return { pid: Number(found[1]), host: found[2]!, started: found[3]! };
}

function nameOf(text: string): string {
  const owner = parse(text);
  if (owner === undefined) return "another process";
  return owner.host === hostname() ? `process ${owner.pid}` : `process ${owner.pid} on ${owner.host}`;
}

/**
 * Field 22 of /proc/PID/stat; the second field is a name in parentheses that may hold anything. "gone" for a process that has ended
 * and waits for its parent to notice: in a container nobody may.
 */
async function startTime(pid: number): Promise<string> {
  const file = await open(`/proc/${pid}/stat`, "r").catch(() => undefined);
  if (file === undefined) return "";
  try {
    const text = await file.readFile("latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? "gone" : (fields[19] ?? "");
  } catch {
    return ""; // it ended while it was read
  } finally {
    await file.close();
  }
}
