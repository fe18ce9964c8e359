/**
 * One conversation, two ways to go on: the session is forked, and what it computed is shared by both.
 * Run: node examples/branch-a-session.ts
 */
import { loadModel } from "../src/index.ts"; // in your project: from "freehold"

using model = await loadModel();
using session = model.createSession();
const options = { thinking: { type: "disabled" } };

const opening = [{ role: "user", content: "Tell me a story." }];
const story = await session.complete({ messages: opening, ...options });
console.log(story.text);

using branch = session.fork();
const told = [...opening, { role: "assistant", content: story.text }];
for (const [path, content] of [
  [session, "Who are you?"],
  [branch, "What is 7 * 8?"],
] as const) {
  const answer = await path.complete({ messages: [...told, { role: "user", content }], ...options });
  console.log(
    `\n${content}\n${answer.text} (${answer.cachedTokens} of ${answer.promptTokens} prompt tokens were there)`,
  );
}
