/** The short form of the soak of a server with a model; the long ones are run by hand: npm run soak -- --only crashes,chats */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chats } from "./seed-server.ts";

test("the server answers 24 clients, some of whom go away", { timeout: 120_000 }, async () => {
  const { answers, aborted } = await chats({ seconds: 1, seed: 1, model: "v4" });
  assert.ok(answers > 0 && aborted > 0, `${answers} answers, ${aborted} given up`);
});
