/**
 * A folder with a recorded V4.1 model, that which reads images (test/data/v4.1/f-vision) unless said otherwise, and a tokenizer for it:
 * a token for each byte and those of the prompt format. Its vocabulary of 64 or so tokens is grown to hold them; the new rows are
 * arbitrary numbers.
 */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { letterOfByte } from "../src/tokenizer/byte-alphabet.ts";
import { deepseekPatterns } from "../src/tokenizer/split-words.ts";
import { readStoredTensors } from "./golden/v4-case.ts";
import { randomNumbers } from "./small-model.ts";
import { safetensorsBytes } from "./unit/safetensors-bytes.ts";

const special = [
  "<｜begin▁of▁sentence｜>",
  "<｜end▁of▁sentence｜>",
  "<｜▁pad▁｜>",
  "<｜System｜>",
  "<｜deepseek_image｜>",
  "<｜User｜>",
  "<｜Assistant｜>",
  "<think>",
  "</think>",
  "｜DSML｜",
];
const vocabSize = special.length + 256;

/** The id of a byte. */
export const idOfByte = (byte: number) => special.length + byte;

export interface VisionFolder extends Disposable {
  readonly path: string;
}

/** `withVision: false`: without the tensors of the vision part. `recorded`: a folder of test/data/v4.1. */
export function makeVisionFolder({ withVision = true, recorded = "f-vision" } = {}): VisionFolder {
  const source = join(import.meta.dirname, "data/v4.1", recorded);
  const path = mkdtempSync(join(tmpdir(), "freehold-vision-"));
  const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
  config.text_config.vocab_size = vocabSize;
  writeFileSync(join(path, "config.json"), JSON.stringify(config));
  const map = join(source, "engram_token_map.json");
  if (existsSync(map)) cpSync(map, join(path, "engram_token_map.json"));
  writeFileSync(join(path, "tokenizer.json"), JSON.stringify(tokenizerJson()));
  writeFileSync(join(path, "model.safetensors"), safetensorsBytes(tensors(source, withVision)));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function tensors(source: string, withVision: boolean) {
  const random = randomNumbers(7);
  const all = [...readStoredTensors(join(source, "model.safetensors"))];
  const wanted = withVision ? all : all.filter(([name]) => !/^(vision|aligner|image_)/.test(name));
  return Object.fromEntries(
    wanted.map(([name, { shape, data }]) => {
      const isTable = /^(mtp\.\d+\.markov_head\.)?(embed|head)\.weight$/.test(name);
      const rows = isTable ? vocabSize : shape[0]!;
      const values = new Float32Array((data.length / shape[0]!) * rows);
      values.set(data as Float32Array);
      for (let i = data.length; i < values.length; i++) values[i] = random() - 0.5;
      return [name, { dtype: "F32", shape: [rows, ...shape.slice(1)], bytes: new Uint8Array(values.buffer) }];
    }),
  );
}

function tokenizerJson() {
  const split = (pattern: string) => ({
    type: "Split",
    pattern: { Regex: pattern },
    behavior: "Isolated",
    invert: false,
  });
  return {
    added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [...deepseekPatterns.map(split), { type: "ByteLevel", add_prefix_space: false, use_regex: false }],
    },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(letterOfByte.map((letter, byte) => [letter, idOfByte(byte)])),
      merges: [],
    },
  };
}
