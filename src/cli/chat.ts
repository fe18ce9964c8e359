/**
 * freehold chat: a conversation. On a terminal with line editing; otherwise every line of stdin is a message. Ctrl-C stops an
 * answer and the conversation goes on; at the prompt it ends the program.
 */
import { createInterface, type Interface } from "node:readline/promises";
import type { Command } from "commander";
import type { GenerateOptions, GenerationResult } from "../engine/generation.ts";
import { embeddedModel } from "../engine/load-model.ts";
import type { Session } from "../engine/session.ts";
import { type AnswerOptions, answerJson, chatRequest, generateOptions, withAnswerOptions } from "./generate-options.ts";
import { messageWithImages, readImageFile } from "./images.ts";
import { interruptible } from "./interrupt.ts";
import {
  command,
  type DraftOptions,
  type ModelOptions,
  openModel,
  terminalOf,
  withDraftOption,
  withModelOptions,
} from "./model-options.ts";
import { showAnswer } from "./show-answer.ts";
import { exitStatus, type Terminal } from "./terminal.ts";

type ChatOptions = ModelOptions & AnswerOptions & DraftOptions;

export function addChat(program: Command): void {
  const examples = ["freehold chat", 'printf "Hi\\nWho are you?\\n" | freehold chat --json'];
  const target = withModelOptions(command(program, "chat", "A conversation in the terminal", examples));
  withAnswerOptions(withDraftOption(target)).action(chat);
}

async function chat(options: ChatOptions): Promise<void> {
  const terminal = terminalOf(options);
  const chosen = generateOptions(options);
  const started = performance.now();
  using loading = interruptible();
  using model = await openModel(options, terminal, loading.signal, true);
  loading[Symbol.dispose]();
  const loadSeconds = (performance.now() - started) / 1000;
  using session = model.createSession();
  const conversation = new Conversation(session, options, chosen, terminal, loadSeconds);
  if (process.stdin.isTTY) await talk(conversation, terminal, model.name);
  else await answerLines(conversation);
}

/** The messages so far, and how the next answer is made. */
class Conversation {
  readonly #session: Session;
  readonly #options: ChatOptions;
  readonly #chosen: GenerateOptions;
  readonly #terminal: Terminal;
  readonly #loadSeconds: number;
  #messages: object[] = [];
  /** Files of the next message. */
  #images: string[] = [];

  constructor(
    session: Session,
    options: ChatOptions,
    chosen: GenerateOptions,
    terminal: Terminal,
    loadSeconds: number,
  ) {
    this.#session = session;
    this.#options = options;
    this.#chosen = chosen;
    this.#terminal = terminal;
    this.#loadSeconds = loadSeconds;
  }

  clear(): void {
    this.#messages = [];
    this.#images = [];
  }

  /** Puts an image in front of the next message. */
  async addImage(file: string): Promise<void> {
    await readImageFile(file);
    this.#images.push(file);
  }

  /** Answers a message. One that fails or is interrupted leaves the conversation as it was. */
  async answer(content: string, signal: AbortSignal): Promise<void> {
    const messages = [...this.#messages, await messageWithImages(content, this.#images)];
    const events = this.#session.generate(chatRequest(messages, this.#options), {
      ...this.#chosen,
      signal,
      onPrefill: (done, total) => this.#terminal.progress(`reading: ${done} of ${total} tokens`),
    });
    const result = await showAnswer(events, this.#terminal);
    this.#messages = [...messages, assistantMessage(result)];
    this.#images = [];
    if (this.#terminal.json) await this.#terminal.writeJson(answerJson(result, this.#loadSeconds));
  }
}

function assistantMessage({ text, reasoning }: GenerationResult): object {
  return { role: "assistant", content: text, ...(reasoning === "" ? {} : { reasoning_content: reasoning }) };
}

async function answerLines(conversation: Conversation): Promise<void> {
  using interruption = interruptible();
  for await (const line of createInterface({ input: process.stdin })) {
    interruption.signal.throwIfAborted();
    if (line.trim() !== "") await conversation.answer(line, interruption.signal);
  }
}

const help =
  "/image FILE puts an image in front of the next message, /clear forgets the conversation, /exit (or Ctrl-D) ends it, Ctrl-C stops an answer";

async function talk(conversation: Conversation, terminal: Terminal, name: string): Promise<void> {
  terminal.note(`${name === embeddedModel ? "the embedded model, a small demonstration" : name}\n${help}`);
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  try {
    for (;;) {
      const line = await nextLine(lines);
      if (line === undefined || line.trim() === "/exit") return;
      if (line.trim() === "/clear") conversation.clear();
      else if (line.trim() === "/help") terminal.note(help);
      else if (/^\s*\/image(\s|$)/.test(line)) await addImage(conversation, line, terminal);
      else if (line.trim() !== "") await answerOnTerminal(conversation, line, lines, terminal);
    }
  } finally {
    lines.close();
  }
}

async function addImage(conversation: Conversation, line: string, terminal: Terminal): Promise<void> {
  try {
    await conversation.addImage(line.replace(/^\s*\/image/, "").trim());
    terminal.note("the image goes with your next message");
  } catch (error) {
    terminal.error(error); // the conversation goes on
  }
}

/** The next line; undefined at the end of input. Ctrl-C at the prompt ends the program. */
function nextLine(lines: Interface): Promise<string | undefined> {
  return new Promise((resolve) => {
    const onClose = () => resolve(undefined);
    const onInterrupt = () => {
      lines.close();
      process.stdout.write("\n");
      process.exit(exitStatus.interrupted);
    };
    lines.once("close", onClose);
    lines.once("SIGINT", onInterrupt);
    void lines.question("> ").then((line) => {
      lines.off("close", onClose);
      lines.off("SIGINT", onInterrupt);
      resolve(line);
    });
  });
}

async function answerOnTerminal(
  conversation: Conversation,
  line: string,
  lines: Interface,
  terminal: Terminal,
): Promise<void> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  lines.on("SIGINT", stop);
  try {
    await conversation.answer(line, controller.signal);
  } catch (error) {
    if (controller.signal.aborted) terminal.endLine();
    else terminal.error(error); // the conversation goes on
  } finally {
    lines.off("SIGINT", stop);
  }
}
