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

/** Undefined when the file holds no tokenizer. Throws a ModelError or FormatError for one of another kind, or whose lists do not fit. */
export function tokenizerOfGguf(file: Pick<GgufFile, "metadata"> & { readonly name: string }): Tokenizer | undefined {
  const value = (key: string) => metadataValue(file, `tokenizer.ggml.${key}`);
  const [model, pre] = [value("model"), value("pre")];
  if (model === undefined || model === "none") return undefined;
  const refuse = (message: string, hint: string): never => {
    throw new ModelError(message, { code: "tokenizer", where: file.name, hint });
  };
  if (model !== "gpt2" || typeof pre !== "string" || !/^deepseek-v[34]$/.test(pre)) {
    refuse(
      `The tokenizer ${JSON.stringify(model)} (${JSON.stringify(pre ?? null)}) of the file is not supported`,
      "Freehold reads byte-level BPE with the splitting rules deepseek-v3",
    );
  }
  const list = (key: string): readonly unknown[] => {
    const found = value(key);
    const what = `tokenizer.ggml.${key} is ${found === undefined ? "missing" : "no list"}`;
    return Array.isArray(found) ? found : refuse(`Cannot use the tokenizer: ${what}`, "Convert the model again");
  };
  const [tokens, types, merges] = [list("tokens"), list("token_type"), list("merges")];
  if (types.length !== tokens.length) {
    refuse(
      `Cannot use the tokenizer: tokenizer.ggml.token_type has ${types.length} entries for ${tokens.length} tokens`,
      "Convert the model again",
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
