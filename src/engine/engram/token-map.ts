/**
 * The compressed ids of Engram (DeepSeek V4.1): tokens whose texts read alike share one, whatever their case, accents or spaces.
 * Ids are given in the order of the tokens. One wrong id would make every hash wrong, so that the number of ids is checked.
 */
import { fromJson } from "../../chat/read-json.ts";
import { ModelError } from "../../errors.ts";
import type { EngramConfig, ModelConfig } from "../../model/config.ts";
import { letterOfByte } from "../../tokenizer/byte-alphabet.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import type { ModelFiles } from "../checkpoint.ts";
import { Pacer } from "../pacer.ts";
import { readLongJson } from "../read-json.ts";

/** Some copies of a model have the map as a file: an array of the compressed id of every token. */
export const mapFile = "engram_token_map.json";

/** The map of a model with Engram; from its file where there is one, else from the tokenizer. */
export async function engramTokenMap(
  files: ModelFiles,
  tokenizer: Tokenizer | undefined,
  { vocabSize }: ModelConfig,
  engram: EngramConfig,
): Promise<Int32Array> {
  const pacer = new Pacer();
  if (await files.has(mapFile)) {
    const map = fromJson(await readLongJson(files, mapFile, "", pacer));
    return checkedMap(map, vocabSize, engram, `${files.name}/${mapFile}`);
  }
  if (tokenizer === undefined) {
    throw new ModelError("The model has an n-gram memory, and nothing says which tokens read alike", {
      code: "no-tokenizer",
      where: files.name,
      hint: `Copy tokenizer.json (or ${mapFile}) into the folder`,
    });
  }
  const ids = await pacer.finish(compressedIdsOf(tokenizer));
  return checkedMap([...ids], vocabSize, engram, `${files.name}/tokenizer.json`);
}

function checkedMap(map: unknown, vocabSize: number, engram: EngramConfig, where: string): Int32Array {
  const refuse = (message: string): never => {
    throw new ModelError(message, {
      code: "bad-token-map",
      where,
      hint: "Take the file that was published with the model",
    });
  };
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0;
  if (!Array.isArray(map) || !map.every(isId))
    return refuse("The map of compressed ids is not a list of whole numbers");
  if (map.length > vocabSize || map.length <= engram.padTokenId)
    return refuse(`The map has ${map.length} compressed ids for a vocabulary of ${vocabSize} tokens`);
  const count = map.reduce((most, id) => Math.max(most, id), -1) + 1;
  if (count !== engram.compressedVocabSize)
    return refuse(`There are ${count} compressed ids, the config has ${engram.compressedVocabSize}`);
  return Int32Array.from(map);
}

function compressedIdsOf(tokenizer: Tokenizer): Generator<undefined, Int32Array> {
  const rawOf = (id: number) =>
    tokenizer.isAdded(id)
      ? tokenizer.decode([id])
      : Array.from(tokenizer.tokenBytes(id), (byte) => letterOfByte[byte]!).join("");
  return compressIds(tokenizer.vocabSize, (id) => tokenizer.decode([id]), rawOf);
}

/** Tokens that are read at once: a millisecond or two. */
const atOnce = 512;

/** In steps; `textOf` decodes one token, `rawOf` gives it as the vocabulary spells it. */
export function* compressIds(
  length: number,
  textOf: (id: number) => string,
  rawOf: (id: number) => string,
): Generator<undefined, Int32Array> {
  const ids = new Map<string, number>();
  const compressedIds = new Int32Array(length);
  for (let id = 0; id < length; id++) {
    const text = textOf(id);
    // Part of a character: no text to compare.
    const key = text.includes("\ufffd") ? rawOf(id) : normalized(text) || text;
    const compressed = ids.get(key) ?? ids.size;
    ids.set(key, compressed);
    compressedIds[id] = compressed;
    if (id % atOnce === atOnce - 1) yield;
  }
  return compressedIds;
}

/** Unicode's White_Space; `trim` knows U+FEFF on top. */
const whiteSpace = "[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const outerWhiteSpace = new RegExp(`^${whiteSpace}+|${whiteSpace}+$`, "g");

function normalized(text: string): string {
  const bare = text.normalize("NFKC").normalize("NFD").replace(/\p{M}/gu, "");
  // Character by character: a whole word's final sigma would become another letter.
  const lower = Array.from(bare, (character) => character.toLowerCase()).join("");
  const spaced = lower.replace(/[ \t\r\n]+/g, " ");
  return spaced === " " ? spaced : spaced.replace(outerWhiteSpace, "");
}
