/** The tokenizer in the metadata of a GGUF file, as the object of a tokenizer.json. */
import { ModelError } from "../errors.ts";
import type { GgufFile, GgufList } from "../format/gguf.ts";
import { mostTokens } from "../tokenizer/parse-tokenizer.ts";
import { deepseekPatterns } from "../tokenizer/split-words.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { metadataValue } from "./gguf-checkpoint.ts";
import { Pacer } from "./pacer.ts";

/** Token types of llama.cpp that are part of the vocabulary of bytes; the others are matched by their spelling. */
const normalToken = 1;
const controlToken = 3;
const byteToken = 6;

/** Tokens that are read at once: a millisecond or two. */
const atOnce = 2048;

/** Undefined when the file holds no tokenizer. Throws a ModelError or FormatError for one of another kind, or whose lists do not fit. */
export async function tokenizerOfGguf(
  file: Pick<GgufFile, "metadata"> & { readonly name: string },
): Promise<Tokenizer | undefined> {
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
  const list = (key: string): GgufList => {
    const found = file.metadata.get(`tokenizer.ggml.${key}`)?.value;
    const what = `tokenizer.ggml.${key} is ${found === undefined ? "missing" : "no list"}`;
    return typeof found === "object" ? found : refuse(`Cannot use the tokenizer: ${what}`, "Convert the model again");
  };
  const [tokens, types, merges] = [list("tokens"), list("token_type"), list("merges")];
  if (types.length !== tokens.length) {
    refuse(
      `Cannot use the tokenizer: tokenizer.ggml.token_type has ${types.length} entries for ${tokens.length} tokens`,
      "Convert the model again",
    );
  }
  if (tokens.length > mostTokens) {
    refuse(
      `Cannot use the tokenizer: tokenizer.ggml.tokens has ${tokens.length} entries, ${mostTokens} are the most`,
      "Convert the model again",
    );
  }
  const pacer = new Pacer();
  const vocab = new Map<string, number>();
  const added: unknown[] = [];
  const typeOf = types[Symbol.iterator]();
  let id = 0;
  for (const token of tokens) {
    const [content, type] = [String(token), typeOf.next().value];
    if (type === normalToken || type === byteToken) vocab.set(content, id);
    else added.push({ content, id, special: type === controlToken, normalized: false });
    if (++id % atOnce === 0) await pacer.pause();
  }
  const steps = Tokenizer.inSteps({
    model: { type: "BPE", vocab, merges },
    added_tokens: added,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...deepseekPatterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated" })),
        { type: "ByteLevel", use_regex: false },
      ],
    },
  });
  return pacer.finish(steps);
}
