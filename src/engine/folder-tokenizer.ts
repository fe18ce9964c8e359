/** The tokenizer.json of a model folder, read without holding up what runs beside it. */
import { fromJson } from "../chat/read-json.ts";
import { type Json, JsonObject } from "../json/parse-json.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ModelFiles } from "./checkpoint.ts";
import { Pacer } from "./pacer.ts";
import { readLongJson } from "./read-json.ts";

/** Throws a ModelError for what is no JSON, a FormatError for what is no tokenizer of this kind. */
export async function tokenizerOfFolder(files: ModelFiles): Promise<Tokenizer> {
  const pacer = new Pacer();
  const hint = "The tokenizer belongs to the model; copy it along";
  const json = await readLongJson(files, "tokenizer.json", hint, pacer);
  return pacer.finish(Tokenizer.inSteps(withEntries(json)));
}

/** As a plain value, but for the vocabulary: an object of so many keys takes as long to make as all the rest. */
function withEntries(json: Json): unknown {
  const model = json instanceof JsonObject ? json.get("model") : undefined;
  const vocab = model instanceof JsonObject ? model.get("vocab") : undefined;
  if (!(vocab instanceof JsonObject)) return fromJson(json);
  const without = (object: Json, key: string) =>
    fromJson(new JsonObject((object as JsonObject).entries.filter(([name]) => name !== key))) as object;
  const entries = vocab.entries.values().map(([token, id]) => [token, fromJson(id)]);
  return { ...without(json, "model"), model: { ...without(model!, "vocab"), vocab: entries } };
}
