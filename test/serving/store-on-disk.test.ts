/** The store on real files and in real processes: kills, turned bits, full and read-only disks, a second process. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { KvStore } from "../../src/engine/store/kv-store.ts";
import { flipBits } from "../soak/store-flips.ts";
import { killWriters } from "../soak/store-kills.ts";
import { entryOf, versionOf } from "../store-content.ts";

/** FREEHOLD_TEST_KILLS=300 and FREEHOLD_TEST_FLIPS=20000 are the long forms. */
const kills = Number(process.env.FREEHOLD_TEST_KILLS ?? 8);
const flips = Number(process.env.FREEHOLD_TEST_FLIPS ?? 150);

const notOnLinux = process.platform === "linux" ? false : "only Linux tells in /proc which processes have ended";

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-store-"));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const clock = { ms: 0 };

function open(directory: string): Promise<KvStore> {
  return KvStore.open({
    directory,
    budgetBytes: 1 << 30,
    segmentBytes: 64 << 10,
    reserveBytes: 0,
    now: () => clock.ms,
  });
}

async function writer(directory: string): Promise<ChildProcess> {
  const file = fileURLToPath(new URL("../soak/store-writer.ts", import.meta.url));
  const child = spawn(process.execPath, ["--no-warnings", file, directory, "1", "65536"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const line of createInterface(child.stdout!)) if (line === "ready") break;
  return child;
}

describe("the store on disk", () => {
  test(`a writer that is killed ${kills} times loses nothing that was acknowledged`, async (t: TestContext) => {
    const counts = await killWriters({ rounds: kills, seed: 1 });
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.acknowledged > 10 * kills);
  });

  test(`${flips} turned bits give misses or the same bytes`, async (t: TestContext) => {
    const counts = await flipBits({ rounds: flips, seed: 1 });
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.misses > flips / 2, "most bytes are those of payloads");
  });

  test("is its owner's alone, whoever made the directory", () =>
    inDirectory(async (parent) => {
      const made = join(parent, "a", "b");
      await (await open(made)).close();
      assert.equal((await stat(made)).mode & 0o777, 0o700);
      const given = join(parent, "given");
      await mkdir(given);
      await chmod(given, 0o755);
      const store = await open(given);
      await store.group((put) => put(entryOf("a", 1)));
      assert.equal((await stat(given)).mode & 0o777, 0o700);
      for (const name of await readdir(given)) assert.equal((await stat(join(given, name))).mode & 0o077, 0, name);
      await store.close();
    }));

  test("that another process uses is off; a process that was killed holds nothing", () =>
    inDirectory(async (directory) => {
      const child = await writer(directory);
      const second = await open(directory);
      assert.equal(second.state, "off");
      assert.match(second.reason, new RegExp(`process ${child.pid}`));
      assert.equal(await second.group((put) => put(entryOf("a", 1))), false);
      child.kill("SIGKILL");
      await once(child, "exit");
      clock.ms += 60_000;
      assert.equal(await second.group((put) => put(entryOf("a", 1))), true, "the lock of a dead process is taken over");
      assert.equal(second.state, "on");
      const third = await open(directory);
      assert.equal(third.state, "off", "also within one process there is one writer");
      await second.close();
      const fourth = await open(directory);
      assert.equal(await versionOf(fourth, "a"), 1);
      await fourth.close();
    }));

  test("a lock that names a process number which was given out again, or says nothing, is stale", () =>
    inDirectory(async (directory) => {
      for (const text of [
        `process ${process.ppid}\nhost ${hostname()}\nstarted 1\n`,
        "",
        "rubbish",
        "\0".repeat(1000),
      ]) {
        await writeFile(join(directory, "LOCK"), text);
        const store = await open(directory);
        assert.equal(store.state, "on", JSON.stringify(text.slice(0, 40)));
        await store.close();
      }
    }));

  test("a lock of a process that has ended is stale, though its parent has not noticed", { skip: notOnLinux }, () =>
    inDirectory(async (directory) => {
      // The shell's child ends once the shell has become sleep, which never asks for it; the shell itself would.
      const child = "until [ $(cat /proc/$PPID/comm) = sleep ]; do :; done";
      const parent = spawn("sh", ["-c", `sh -c '${child}' & echo $!; exec sleep 60`], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      try {
        const [pid] = (await once(createInterface(parent.stdout), "line")) as [string];
        let fields: string[];
        do fields = (await readFile(`/proc/${pid}/stat`, "latin1")).split(") ")[1]!.split(" ");
        while (fields[0] !== "Z");
        await writeFile(join(directory, "LOCK"), `process ${pid}\nhost ${hostname()}\nstarted ${fields[19]}\n`);
        const store = await open(directory);
        assert.equal(store.state, "on", store.reason);
        await store.close();
      } finally {
        parent.kill("SIGKILL");
      }
    }),
  );

  test("where no directory can be made it is read-only, and starts to write when it can", () =>
    inDirectory(async (parent) => {
      const path = join(parent, "kv");
      await writeFile(path, "a file stands here");
      const store = await open(path);
      assert.equal(store.state, "read-only");
      assert.equal(await store.group((put) => put(entryOf("a", 1))), false);
      await rm(path);
      clock.ms += 600_000;
      assert.equal(await store.group((put) => put(entryOf("a", 1))), true);
      await store.close();
      const nowhere = await open("/proc/freehold-kv");
      assert.equal(nowhere.state, "read-only");
      assert.equal(await nowhere.group((put) => put(entryOf("a", 1))), false);
    }));

  const mounts = canMount();
  test("a disk that is full or read-only is read on, and written again later", mounts, () =>
    inDirectory(async (parent) => {
      const directory = join(parent, "small");
      await mkdir(directory);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "none", directory]);
      try {
        const store = await open(directory);
        const full = Buffer.alloc(700 << 10, 7);
        await store.group((put) => put(entryOf("kept", 1)));
        await writeFile(join(directory, "LOST"), full);
        const large = { ...entryOf("large", 1), payload: new Uint8Array(600 << 10) };
        assert.equal(await store.group((put) => put(large)), false);
        assert.match(store.reason, /ENOSPC/);
        assert.equal(await versionOf(store, "kept"), 1);
        await rm(join(directory, "LOST"));
        clock.ms += 60_000;
        assert.equal(await store.group((put) => put(entryOf("after", 1))), true);
        await store.close();

        execFileSync("mount", ["-o", "remount,ro", directory]);
        const frozen = await open(directory);
        assert.equal(frozen.state, "read-only");
        assert.equal(await versionOf(frozen, "kept"), 1);
        assert.equal(await frozen.group((put) => put(entryOf("late", 1))), false);
        execFileSync("mount", ["-o", "remount,rw", directory]);
        clock.ms += 600_000;
        assert.equal(await frozen.group((put) => put(entryOf("late", 1))), true);
        assert.equal(await versionOf(frozen, "after"), 1);
        await frozen.close();
      } finally {
        execFileSync("umount", [directory]);
      }
    }),
  );
});

/** Mounting needs root; the same is tested with files in memory in kv-store.test.ts. */
function canMount(): { skip: string | false } {
  return {
    skip: process.platform === "linux" && process.getuid?.() === 0 ? false : "needs root, to mount a small disk",
  };
}
