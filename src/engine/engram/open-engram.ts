/** The n-gram memory of a checkpoint, where the model has one. */
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import type { Checkpoint, ModelFiles } from "../checkpoint.ts";
import { EngramMemory, type EngramOptions } from "./engram-memory.ts";
import { engramTokenMap } from "./token-map.ts";

/** Reads no more than fits the budget; the files of `checkpoint` may be closed afterwards. */
export async function openEngram(
  checkpoint: Checkpoint,
  files: ModelFiles,
  tokenizer: Tokenizer | undefined,
  options: EngramOptions = {},
): Promise<EngramMemory | undefined> {
  const { config, tables } = checkpoint;
  if (config.architecture !== "deepseek-v4.1" || config.engram === undefined) return undefined;
  const tokenMap = await engramTokenMap(files, tokenizer, config, config.engram);
  const stored = tables.map(({ name }) => ({ name, stored: checkpoint.stored(name)! }));
  return EngramMemory.open(config, config.engram, tokenMap, stored, options);
}
