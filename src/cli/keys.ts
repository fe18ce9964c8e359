/** freehold keys: the file of API keys. A key is shown once, when it is made; the file holds its hash. */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import { withoutUndefined } from "../engine/without-undefined.ts";
import { UsageError } from "../errors.ts";
import { type KeyFile, makeKey, parseKeyFile, type Scope, scopes } from "../server/keys.ts";
import { command, type OutputOptions, terminalOf, wholeNumber } from "./model-options.ts";

interface KeysOptions extends OutputOptions {
  readonly file: string;
}

interface AddOptions extends KeysOptions {
  readonly scope: Scope[];
  readonly expires?: Date;
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  readonly maxQueue?: number;
  readonly priority?: number;
  readonly shareCache?: string;
}

export function addKeys(program: Command): void {
  const keys = program
    .command("keys")
    .summary("Make, list and remove API keys")
    .description("Make, list and remove API keys");
  const withFile = (target: Command) => target.option("--file <file>", "the file of keys", "keys.json");
  withFile(
    command(keys, "add <name>", "Make a key and print it, this once", [
      "freehold keys add laptop",
      "freehold keys add ci --expires 90d --tokens-per-minute 100000",
    ]),
  )
    .addOption(new Option("--scope <scope...>", "what it may do").choices([...scopes]).default(["infer"]))
    .option("--expires <when>", "days from now (90d) or a date (2027-01-31)", expiry)
    .option("--requests-per-minute <n>", "", wholeNumber(1))
    .option("--tokens-per-minute <n>", "tokens of prompts and answers together", wholeNumber(1))
    .option("--max-queue <n>", "its requests that may wait", wholeNumber(1))
    .option("--priority <n>", "0 is served first (default: 1)", wholeNumber(0))
    .option("--share-cache <group>", "share computed prompts with the keys of a group")
    .action(add);
  withFile(
    command(keys, "list", "List the keys of a file", ["freehold keys list", "freehold keys list --json"]),
  ).action(list);
  withFile(
    command(keys, "remove <name>", "Remove a key", [
      "freehold keys remove laptop",
      "freehold keys remove ci --file keys.json",
    ]),
  ).action(remove);
}

async function add(name: string, options: AddOptions): Promise<void> {
  const terminal = terminalOf(options);
  const file = readKeys(options.file);
  if (file.keys.some((known) => known.name === name)) {
    throw new UsageError(`There is a key called ${name} already`, { where: options.file, hint: "Remove it first" });
  }
  const { scope, expires, priority, shareCache, requestsPerMinute, tokensPerMinute, maxQueue } = options;
  const limits = withoutUndefined({ requestsPerMinute, tokensPerMinute, maxQueuedRequests: maxQueue });
  const { key, record } = makeKey({
    name,
    scopes: scope,
    ...withoutUndefined({ expires: expires?.toISOString(), priority, shareCache }),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
  });
  writeKeys(options.file, { ...file, keys: [...file.keys, record] });
  if (terminal.json) await terminal.writeJson({ name, key, file: options.file });
  else await terminal.write(`${key}\n`);
  terminal.note(`note: ${options.file} holds its hash; a running server reads it on SIGHUP`);
}

async function list(options: KeysOptions): Promise<void> {
  const terminal = terminalOf(options);
  const keys = readKeys(options.file).keys.map(({ sha256: _, ...rest }) => rest);
  if (terminal.json) return terminal.writeJson({ keys });
  for (const { name, scopes: granted, expires } of keys) {
    await terminal.write(
      `${name}\t${granted.join(",")}\t${expires === undefined ? "never expires" : `until ${expires}`}\n`,
    );
  }
}

async function remove(name: string, options: KeysOptions): Promise<void> {
  const file = readKeys(options.file);
  const keys = file.keys.filter((known) => known.name !== name);
  if (keys.length === file.keys.length) throw new UsageError(`There is no key called ${name}`, { where: options.file });
  writeKeys(options.file, { ...file, keys });
  if (options.json) await terminalOf(options).writeJson({ removed: name });
}

function readKeys(path: string): KeyFile {
  return existsSync(path) ? parseKeyFile(readFileSync(path, "utf8"), path) : { version: 1, keys: [] };
}

/** Checked, and put in place whole: a server that reads it meanwhile sees the old file or the new one. */
function writeKeys(path: string, file: KeyFile): void {
  const text = `${JSON.stringify(file, null, 2)}\n`;
  parseKeyFile(text, path);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function expiry(text: string): Date {
  const days = /^(\d{1,5})d$/.exec(text)?.[1];
  const date = days === undefined ? new Date(text) : new Date(Date.now() + Number(days) * 86_400_000);
  if (!Number.isNaN(date.getTime())) return date;
  throw new InvalidArgumentError("Give days (90d) or a date (2027-01-31).");
}
