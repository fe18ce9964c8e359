/** An answer as it comes: content to stdout, reasoning (dimmed) to stderr, tool calls as the model wrote them. */
import type { GenerationEvent, GenerationResult } from "../engine/generation.ts";
import type { Terminal } from "./terminal.ts";

/** Shows the events of an answer and returns its result. With --json nothing is shown. */
export async function showAnswer(
  events: AsyncIterable<GenerationEvent>,
  terminal: Terminal,
): Promise<GenerationResult> {
  let isReasoning = false;
  for await (const event of events) {
    if (event.type === "end") {
      if (!terminal.json) await terminal.write("\n");
      return event.result;
    }
    if (terminal.json) continue;
    if (isReasoning && event.type !== "reasoning") terminal.aside("\n");
    isReasoning = event.type === "reasoning";
    switch (event.type) {
      case "reasoning":
        terminal.aside(event.text);
        break;
      case "content":
        await terminal.write(event.text);
        break;
      case "toolCall":
        await terminal.write(`\n${event.name} `);
        break;
      case "toolArguments":
        await terminal.write(event.text);
        break;
      default:
        event satisfies never;
    }
  }
  throw new Error("the generation ended without a result");
}
