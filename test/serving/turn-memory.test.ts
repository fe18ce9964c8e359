import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { ConversationMemory } from "../../src/server/generation/conversation-memory.ts";

const turn = {
  reasoning: "A file is to be made. 先想一下 🙂",
  content: "",
  calls: [{ id: "call_1", name: "bash", arguments: '{"command": "echo \\u00e9", "n": 1.0}' }],
  verbatim: [{ text: "\n\n<" }, { special: "｜DSML｜" }, { text: "tool_calls>" }],
};

describe("the turn memory on disk", () => {
  test("gives back after a restart exactly what was put, to its namespace alone", async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "freehold-turns-"));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const before = await ConversationMemory.open(directory);
    before.turns.put("one", "call_1", turn);
    await before.close();
    const after = await ConversationMemory.open(directory);
    t.after(() => after.close());
    assert.deepEqual(await after.turns.get("one", "call_1"), turn);
    assert.equal(await after.turns.get("two", "call_1"), undefined);
    assert.equal(await after.turns.get("one", "call_2"), undefined);
  });

  test("works without a usable directory, as long as the process lives", async (t) => {
    const memory = await ConversationMemory.open("/proc/no-such-folder");
    t.after(() => memory.close());
    memory.turns.put("one", "call_1", turn);
    assert.deepEqual(await memory.turns.get("one", "call_1"), turn);
  });
});
