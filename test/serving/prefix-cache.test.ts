/** The prefix cache, in memory and on disk: what it gives is bitwise what computing gives, and it never costs more than a miss. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { branchingConversations } from "../soak/prefix-conversations.ts";

/** FREEHOLD_TEST_ROUNDS=1000 is the long form. */
const rounds = Number(process.env.FREEHOLD_TEST_ROUNDS ?? 150);

describe("the prefix cache", () => {
  test(`${rounds} turns of conversations that branch: logits behind a hit are bitwise the cold ones`, async (t) => {
    const counts = await branchingConversations({ rounds, seed: 1 });
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.hits > rounds / 3, `${counts.hits} hits`);
    assert.ok(counts.fromDisk > rounds / 20, `${counts.fromDisk} times from disk`);
    assert.ok(counts.evictions > 0 && counts.reopened > 0);
  });
});
