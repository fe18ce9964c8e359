/** Commands that write files, ended in the middle in every way that a process can answer to: nothing half-written stays. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";

const root = join(import.meta.dirname, "../..");
const scratch = mkdtempSync(join(tmpdir(), "freehold-interrupted-"));
after(() => rmSync(scratch, { recursive: true }));

/** What writes gigabytes, and where: a file, a new folder, a folder that was there. */
const outputs = {
  "a file": { out: "model.gguf", args: ["--preset", "v4-flash:2"] },
  "a file in place of another": { out: "old.gguf", args: ["--preset", "v4-flash:2"], before: "old" },
  "a new folder": { out: "folder", args: ["--preset", "v4.1-flash:2", "--engram", "1"] },
  "a folder that was there": { out: "kept", args: ["--preset", "v4.1-flash:2", "--engram", "1"], before: "folder" },
} as const;

const ends: Readonly<Record<string, (child: ChildProcess) => void>> = {
  SIGINT: (child) => void child.kill("SIGINT"),
  SIGTERM: (child) => void child.kill("SIGTERM"),
  SIGHUP: (child) => void child.kill("SIGHUP"),
  "SIGINT twice": (child) => {
    child.kill("SIGINT");
    child.kill("SIGTERM"); // two of a kind may come as one
  },
};

const noSignals = process.platform === "win32" && "there a signal ends a process without a word";

describe("what was being written is gone after", { skip: noSignals }, () => {
  for (const [what, output] of Object.entries(outputs)) {
    for (const [how, end] of Object.entries(ends)) {
      test(`${how}: ${what}`, async () => {
        const folder = mkdtempSync(join(scratch, "case-"));
        const path = join(folder, output.out);
        const before = "before" in output ? output.before : undefined;
        if (before === "old") writeFileSync(path, "old");
        if (before === "folder") mkdirSync(path);
        const args = [join(root, "bin/freehold.js"), "synthesize-model", path, ...output.args];
        const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
        const exit = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
        while (!isWriting(folder) && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
        end(child);
        assert.deepEqual(await exit, [130, null]);
        assert.deepEqual(readdirSync(folder, { recursive: true }), before === undefined ? [] : [output.out]);
        if (before === "old") assert.equal(readFileSync(path, "utf8"), "old");
      });
    }
  }
});

/** Some of the files' bytes are there, under a name that they do not keep. */
function isWriting(folder: string): boolean {
  return (
    existsSync(folder) && readdirSync(folder, { recursive: true }).some((name) => String(name).endsWith(".partial"))
  );
}
