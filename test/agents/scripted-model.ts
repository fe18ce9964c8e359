/**
 * An engine whose answers are fixed by the conversation, so that agents can be tested for real without a model that can code: it
 * calls the agent's shell tool with one command after another, and ends with a sentence. It counts which tokens of each prompt it
 * has seen before, as an exact prefix cache would.
 */
import { token } from "../../src/chat/dialect.ts";
import type {
  EngineEvent,
  EngineInfo,
  EnginePort,
  EngineRequest,
  EngineStatus,
} from "../../src/engine/batching/engine-port.ts";
import { emptyStatus } from "../../src/server/processes/engine-messages.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

/** One request: how much of its prompt was computed for an earlier one. */
export interface Turn {
  readonly promptTokens: number;
  readonly knownTokens: number;
  /** Prompt and answer of the earlier turn that this one has most in common with, in tokens. */
  readonly earlierTokens: number;
  /** It goes on with a conversation: results of its tool are in the prompt. */
  readonly isContinued: boolean;
}

export class ScriptedModel implements EnginePort {
  readonly info: EngineInfo;
  readonly turns: Turn[] = [];
  readonly #tokenizer: Tokenizer;
  readonly #commands: readonly string[];
  readonly #seen: (readonly number[])[] = [];

  constructor(info: EngineInfo, tokenizer: Tokenizer, commands: readonly string[]) {
    this.info = info;
    this.#tokenizer = tokenizer;
    this.#commands = commands;
  }

  submit({ id, tokenIds, maxTokens }: EngineRequest, listener: (event: EngineEvent) => void): void {
    const prompt = this.#tokenizer.decode(tokenIds);
    const answer = scriptedAnswer(prompt, this.#commands);
    const ids = [...this.#tokenizer.encode(answer, { special: true }), this.info.eosTokenIds[0]!].slice(0, maxTokens);
    const shared = this.#seen.map((earlier) => commonStart(earlier, tokenIds));
    const knownTokens = Math.max(0, ...shared);
    const earlier = this.#seen[shared.indexOf(knownTokens)];
    this.turns.push({
      promptTokens: tokenIds.length,
      knownTokens,
      earlierTokens: earlier?.length ?? 0,
      isContinued: prompt.includes("<tool_result>"),
    });
    // The last token of an answer is never computed.
    this.#seen.push([...tokenIds, ...ids.slice(0, -1)]);
    setImmediate(() => this.#answer(id, ids, { prompt: tokenIds.length, cached: knownTokens }, listener));
  }

  #answer(
    _id: string,
    ids: readonly number[],
    tokens: { prompt: number; cached: number },
    listener: (event: EngineEvent) => void,
  ): void {
    listener({ type: "started", cachedTokens: tokens.cached });
    for (let start = 0; start < ids.length; start += 4) listener({ type: "tokens", ids: ids.slice(start, start + 4) });
    listener({
      type: "end",
      finish: ids.at(-1) === this.info.eosTokenIds[0] ? "stop" : "length",
      usage: {
        promptTokens: tokens.prompt,
        cachedTokens: tokens.cached,
        generatedTokens: ids.length,
        draftedTokens: 0,
        acceptedTokens: 0,
        seconds: { queue: 0, prefill: 0, decode: 0 },
      },
    });
  }

  /** Answers are given at once: there is nothing to end. */
  cancel(): void {}

  get status(): EngineStatus {
    return { ...emptyStatus("ready", 1), steps: this.turns.length };
  }
}

/** What the model says to a prompt: a call of the shell tool for each command in turn, then a sentence. */
function scriptedAnswer(prompt: string, commands: readonly string[]): string {
  const isThinking = prompt.endsWith(token.think);
  const lead = isThinking ? `A file is to be made.${token.endThink}` : "";
  const command = commands[prompt.split("<tool_result>").length - 1];
  const tool = shellTool(prompt);
  if (tool === undefined || command === undefined) return `${lead}The file is made.`;
  const parameters = Object.entries(tool.argumentsFor(command)).map(([name, value]) => {
    const isString = typeof value === "string";
    const text = isString ? value : JSON.stringify(value);
    return `<${token.dsml}parameter name="${name}" string="${isString}">${text}</${token.dsml}parameter>`;
  });
  const call = `<${token.dsml}invoke name="${tool.name}">\n${parameters.join("\n")}\n</${token.dsml}invoke>`;
  return `${lead}I make it.\n\n<${token.dsml}tool_calls>\n${call}\n</${token.dsml}tool_calls>`;
}

interface ShellTool {
  readonly name: string;
  argumentsFor(command: string): Readonly<Record<string, unknown>>;
}

interface ToolSchema {
  readonly name: string;
  readonly parameters?: {
    readonly properties?: Readonly<Record<string, { readonly type?: unknown }>>;
    readonly required?: readonly string[];
  };
}

/** The tool of the prompt that runs shell commands, by its name; each agent calls it and its parameters otherwise. */
function shellTool(prompt: string): ShellTool | undefined {
  const schemas = prompt.split("\n").flatMap((line): ToolSchema[] => {
    if (!line.startsWith('{"name": ')) return [];
    return [JSON.parse(line) as ToolSchema];
  });
  const names = ["bash", "shell_command", "run_shell_command", "exec_command", "shell"];
  const schema = names.flatMap((name) => schemas.filter((tool) => tool.name.toLowerCase() === name)).at(0);
  if (schema === undefined) return undefined;
  const { properties = {}, required = [] } = schema.parameters ?? {};
  const key = ["command", "cmd"].find((name) => name in properties)!;
  return {
    name: schema.name,
    argumentsFor(command) {
      const isList = properties[key]!.type === "array";
      const others = required.filter((name) => name !== key);
      return {
        [key]: isList ? ["bash", "-c", command] : command,
        ...Object.fromEntries(others.map((name) => [name, exampleOf(properties[name]?.type)])),
      };
    },
  };
}

function exampleOf(type: unknown): unknown {
  if (type === "boolean") return false;
  if (type === "number" || type === "integer") return 10_000;
  return "make a file";
}

function commonStart(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
