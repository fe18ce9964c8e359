/**
 * tokenizer.json (the format of Hugging Face tokenizers), read into what this tokenizer supports: byte-level BPE with
 * DeepSeek's splitting rules. Anything else is refused by name: a tokenizer that is nearly right is wrong.
 */
import { FormatError } from "../errors.ts";
import type { AddedToken } from "./added-tokens.ts";
import { letterOfByte } from "./byte-alphabet.ts";
import { MergeTable } from "./byte-pair-merges.ts";
import { deepseekPatterns } from "./split-words.ts";
import { TokenBytes } from "./token-bytes.ts";

export interface TokenizerData {
  readonly bytes: TokenBytes;
  readonly ids: ReadonlyMap<string, number>;
  readonly idOfByte: Int32Array;
  readonly merges: MergeTable;
  readonly added: readonly AddedToken[];
}

const maxId = 16_777_216;
/** The largest vocabularies in use have 262,144 tokens, and twice as many merges. */
export const mostTokens = 2 ** 20;
const mostMerges = 2 ** 21;
/** Characters of all added tokens, which are held as a tree with a node for each; DeepSeek's have 30,000. */
const mostAddedCharacters = 2 ** 19;
/** Tokens and merges that are read at once: a few milliseconds. */
const atOnce = 2048;

type Fields = Readonly<Record<string, unknown>>;

/**
 * The file in steps of a few milliseconds. Its vocabulary may be an object, or what it has as entries; its merges any list that can be
 * gone through. Throws a FormatError (code "tokenizer") that names the place in the file.
 */
export function* parseTokenizer(json: unknown): Generator<undefined, TokenizerData> {
  const file = object(json, "the file");
  const model = object(file.model, "model");
  if (model.type !== "BPE" && model.type !== undefined)
    fail(`model.type is ${show(model.type)}; only BPE is supported`);
  for (const option of ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[option] !== null && model[option] !== undefined && model[option] !== "")
      fail(`model.${option} is not supported`);
  }
  if (model.byte_fallback === true || model.ignore_merges === true)
    fail("byte_fallback and ignore_merges are not supported");
  requireNoNormalizer(file.normalizer);
  requirePreTokenizer(file.pre_tokenizer);

  const added = parseAdded(file.added_tokens ?? []);
  const ids = yield* parseVocabulary(model.vocab);
  const bytes = new TokenBytes();
  const addedContents = new Set(added.map((token) => token.content));
  let read = 0;
  for (const [token, id] of ids) {
    if (bytes.has(id)) fail(`two tokens have the id ${id}`);
    if (!bytes.setLetters(id, token)) {
      if (!addedContents.has(token)) fail(`the token ${show(token)} is not written in byte letters`);
      bytes.setText(id, token);
    }
    if (++read % atOnce === 0) yield;
  }
  const merges = yield* parseMerges(model.merges, ids);
  for (const { id, content } of added) {
    const known = ids.get(content);
    if (known !== undefined && known !== id) fail(`the added token ${show(content)} has the ids ${known} and ${id}`);
    if (known === undefined && bytes.has(id)) fail(`two tokens have the id ${id}`);
    ids.set(content, id);
    bytes.setText(id, content);
  }
  const idOfByte = Int32Array.from(letterOfByte, (letter, byte) => {
    const id = ids.get(letter);
    if (id === undefined) fail(`no token stands for the byte ${byte}`);
    return id!;
  });
  return { bytes, ids, idOfByte, merges, added };
}

function* parseVocabulary(vocab: unknown): Generator<undefined, Map<string, number>> {
  const ids = new Map<string, number>();
  const entries =
    isIterable(vocab) && !Array.isArray(vocab)
      ? (vocab as Iterable<readonly [string, unknown]>)
      : Object.entries(object(vocab, "model.vocab"));
  for (const [token, id] of entries) {
    ids.set(
      token,
      requireId(id, () => `model.vocab[${show(token)}]`),
    );
    if (ids.size > mostTokens) fail(`model.vocab has more than ${mostTokens} tokens`);
    if (ids.size % atOnce === 0) yield;
  }
  return ids;
}

/** Merges are written as "left right" or as [left, right]. */
function* parseMerges(value: unknown, ids: ReadonlyMap<string, number>): Generator<undefined, MergeTable> {
  if (!isIterable(value)) fail("model.merges is not a list");
  const merges = value as Iterable<unknown> & { readonly length: number };
  if (merges.length > mostMerges) fail(`model.merges has more than ${mostMerges} merges`);
  const table = new MergeTable(merges.length);
  let rank = 0;
  const idOf = (token: string): number => {
    const id = ids.get(token);
    if (id === undefined) fail(`merge ${rank} names ${show(token)}, which is not in the vocabulary`);
    return id!;
  };
  for (const merge of merges) {
    const pair: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = pair;
    if (pair.length !== 2 || typeof left !== "string" || typeof right !== "string")
      fail(`merge ${rank} is ${show(merge)}, not two tokens`);
    table.add(idOf(left as string), idOf(right as string), idOf(`${left}${right}`), rank);
    if (++rank % atOnce === 0) yield;
  }
  return table;
}

function parseAdded(value: unknown): AddedToken[] {
  if (!Array.isArray(value)) fail("added_tokens is not a list");
  let characters = 0;
  return (value as unknown[]).map((item, i) => {
    const token = object(item, `added_tokens[${i}]`);
    const { content } = token;
    if (typeof content !== "string" || content === "") fail(`added_tokens[${i}].content is not a text`);
    characters += (content as string).length;
    if (characters > mostAddedCharacters)
      fail(`added_tokens have more than ${mostAddedCharacters} characters together`);
    for (const option of ["single_word", "lstrip", "rstrip"]) {
      if (token[option] === true) fail(`added_tokens[${i}]: ${option} is not supported`);
    }
    const id = requireId(token.id, () => `added_tokens[${i}].id`);
    return { id, content: content as string, special: token.special === true, normalized: token.normalized === true };
  });
}

function requireNoNormalizer(value: unknown): void {
  if (value === null || value === undefined) return;
  const { type, normalizers } = object(value, "normalizer");
  if (type === "Sequence" && Array.isArray(normalizers) && normalizers.length === 0) return;
  fail(`the normalizer ${show(type)} is not supported`);
}

function requirePreTokenizer(value: unknown): void {
  const { type, pretokenizers } = object(value, "pre_tokenizer");
  if (type !== "Sequence" || !Array.isArray(pretokenizers)) fail(`the pre_tokenizer ${show(type)} is not supported`);
  const steps = (pretokenizers as unknown[]).map((step, i) => object(step, `pre_tokenizer.pretokenizers[${i}]`));
  const last = steps.at(-1);
  if (last?.type !== "ByteLevel" || last.use_regex !== false || last.add_prefix_space === true) {
    fail("the pre_tokenizer does not end in ByteLevel without a regular expression and a prefix space");
  }
  const patterns = steps.slice(0, -1).map((step) => {
    const isIsolated = step.type === "Split" && step.behavior === "Isolated" && step.invert !== true;
    if (!isIsolated) fail(`the pre_tokenizer step ${show(step.type)} is not a Split with the behavior Isolated`);
    return object(step.pattern, "pre_tokenizer pattern").Regex;
  });
  const unknown = patterns.find((pattern, i) => pattern !== deepseekPatterns[i]);
  if (patterns.length !== deepseekPatterns.length || unknown !== undefined) {
    fail(`the pre_tokenizer pattern ${show(unknown ?? "(one is missing)")} is not one of DeepSeek's`);
  }
}

/** A list, or what is given in its place; nothing that JSON writes in braces. */
function isIterable(value: unknown): boolean {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

function object(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) fail(`${what} is not an object`);
  return value as Fields;
}

function requireId(value: unknown, what: () => string): number {
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= maxId) {
    fail(`${what()} is ${show(value)}, not an id below ${maxId}`);
  }
  return value as number;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

function fail(message: string): never {
  throw new FormatError(`Cannot use the tokenizer: ${message}`, {
    code: "tokenizer",
    where: "tokenizer.json",
    hint: "Freehold reads byte-level BPE with the splitting rules of the DeepSeek V3 and V4 tokenizers",
  });
}
