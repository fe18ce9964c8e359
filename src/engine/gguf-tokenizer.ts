/** The tokenizer in the metadata of a GGUF file, as the object of a tokenizer.json. */
import { ModelError } from "../errors.ts";
import type { GgufFile } from "../format/gguf.ts";
import { deepseekPatterns } from "../tokenizer/split-words.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { metadataValue } from "./gguf-checkpoint.ts";

/** Token types of llama.cpp that are part of the vocabulary of bytes; the others are matched by their spelling. */
const normalToken = 1;
const controlToken = 3;
const byteToken = 6;

/** Undefined when the file holds no tokenizer. */
export function tokenizerOfGguf(file: Pick<GgufFile, "metadata"> & { readonly name: string }): Tokenizer | undefined {
  const model = metadataValue(file, "tokenizer.ggml.model");
  if (model === undefined || model === "none") return undefined;
  const pre = metadataValue(file, "tokenizer.ggml.pre");
  const [tokens, types, merges] = ["tokens", "token_type", "merges"].map((key) =>
    metadataValue(file, `tokenizer.ggml.${key}`),
  );
  const isSupported = model === "gpt2" && typeof pre === "string" && /^deepseek-v[34]$/.test(pre);
  if (
    !isSupported ||
    !Array.isArray(tokens) ||
    !Array.isArray(types) ||
    !Array.isArray(merges) ||
    types.length !== tokens.length
  ) {
    throw new ModelError(
      `The tokenizer ${JSON.stringify(model)} (${JSON.stringify(pre ?? null)}) of the file is not supported`,
      {
        code: "tokenizer",
        where: file.name,
        hint: "Freehold reads byte-level BPE with the splitting rules deepseek-v3",
      },
    );
  }
  const entries = tokens.map((content, id) => ({ content: String(content), id, type: types[id] }));
  const isPlain = (type: unknown) => type === normalToken || type === byteToken;
  return Tokenizer.fromJson({
    model: {
      type: "BPE",
      vocab: Object.fromEntries(entries.filter(({ type }) => isPlain(type)).map(({ content, id }) => [content, id])),
      merges,
    },
    added_tokens: entries
      .filter(({ type }) => !isPlain(type))
      .map(({ content, id, type }) => ({ content, id, special: type === controlToken, normalized: false })),
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...deepseekPatterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated" })),
        { type: "ByteLevel", use_regex: false },
      ],
    },
  });
}
