/** A recorded case of test/data/v4.1: its model, its prompt and stored tensors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../../src/engine/checkpoint.ts";
import { folderFiles, openCheckpointFolder } from "../../src/engine/checkpoint-folder.ts";
import type { EngramMemory, EngramOptions } from "../../src/engine/engram/engram-memory.ts";
import { openEngram } from "../../src/engine/engram/open-engram.ts";
import type { Rounding, V41Config } from "../../src/model/config.ts";
import { type Case, storedTensors } from "./v4-case.ts";

export const v41Cases = ["window-csa2", "groups-candidates", "engram", "everything", "fakequant", "dspark"];

export interface V41Case extends Pick<Case, "tensors" | "shape" | "row"> {
  readonly name: string;
  readonly config: V41Config;
  readonly checkpoint: Checkpoint;
  readonly prompt: number[];
  /** Positions whose rows are stored. */
  readonly positions: number[];
  /** Whether caches were rounded when the stages and `logits` were recorded. */
  readonly recordedRounding: Rounding;
  /** Rows of `logits_kvquant` where the references part. */
  readonly unstableRows: readonly number[];
  /** Anchor positions of the recorded drafts. */
  readonly anchors: readonly number[];
  /** The prompt and a continuation, of which the recorded features are. */
  readonly sequence: readonly number[];
  openEngram(options?: EngramOptions): Promise<EngramMemory | undefined>;
}

export async function loadV41Case(name: string): Promise<V41Case> {
  const folder = join(import.meta.dirname, "../data/v4.1", name);
  const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
  const checkpoint = await openCheckpointFolder(folder);
  const files = await folderFiles(folder);
  if (checkpoint.config.architecture !== "deepseek-v4.1") throw new Error(`${name} is no V4.1 case`);
  const stored = storedTensors(folder);
  return {
    ...stored,
    name,
    config: checkpoint.config,
    checkpoint,
    prompt: Array.from(stored.row("input_ids")),
    positions: golden.rows,
    recordedRounding: golden.fake_quant === "off" ? "none" : "caches",
    unstableRows: golden.unstable_rows_rounded,
    anchors: (golden.dspark ?? []).map(({ anchor }: { anchor: number }) => anchor),
    sequence: golden.dspark_ids ?? [],
    openEngram: (options) => openEngram(checkpoint, files, undefined, options),
  };
}
