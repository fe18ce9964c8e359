/**
 * A folder with the recorded V4.1 model that reads images (test/data/v4.1/f-vision) and a tokenizer for it: a token for each byte and
 * those of the prompt format. Its vocabulary of 68 tokens is grown to hold them; the new rows are arbitrary numbers.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { letterOfByte } from "../src/tokenizer/byte-alphabet.ts";
import { deepseekPatterns } from "../src/tokenizer/split-words.ts";
import { readStoredTensors } from "./golden/v4-case.ts";
import { randomNumbers } from "./small-model.ts";
import { safetensorsBytes } from "./unit/safetensors-bytes.ts";

const source = join(import.meta.dirname, "data/v4.1/f-vision");

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

/** `withVision: false`: without the tensors of the vision part. */
export function makeVisionFolder({ withVision = true } = {}): VisionFolder {
  const path = mkdtempSync(join(tmpdir(), "freehold-vision-"));
  const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
  config.text_config.vocab_size = vocabSize;
  writeFileSync(join(path, "config.json"), JSON.stringify(config));
  cpSync(join(source, "engram_token_map.json"), join(path, "engram_token_map.json"));
  writeFileSync(join(path, "tokenizer.json"), JSON.stringify(tokenizerJson()));
  writeFileSync(join(path, "model.safetensors"), safetensorsBytes(tensors(withVision)));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function tensors(withVision: boolean) {
  const random = randomNumbers(7);
  const all = [...readStoredTensors(join(source, "model.safetensors"))];
  const wanted = withVision ? all : all.filter(([name]) => !/^(vision|aligner|image_)/.test(name));
  return Object.fromEntries(
    wanted.map(([name, { shape, data }]) => {
      const isTable = name === "embed.weight" || name === "head.weight";
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
