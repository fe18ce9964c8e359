/** Ask the embedded model a question and print the answer as it comes. Run: node examples/ask.ts "Who are you?" */
import { loadModel } from "../src/index.ts"; // in your project: from "freehold"

const question = process.argv[2] ?? "What is the capital of France?";
using model = await loadModel();
for await (const event of model.generate({
  messages: [{ role: "user", content: question }],
  thinking: { type: "disabled" },
})) {
  if (event.type === "content") process.stdout.write(event.text);
  if (event.type === "end")
    process.stdout.write(`\n(${event.result.tokenIds.length} tokens, ${event.result.finishReason})\n`);
}
