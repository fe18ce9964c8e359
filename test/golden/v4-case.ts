/** A recorded case of test/data/v4: its model, inputs and stored tensors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../../src/device/device.ts";
import type { Checkpoint } from "../../src/engine/checkpoint.ts";
import { openCheckpointFolder } from "../../src/engine/checkpoint-folder.ts";
import { giveParameter } from "../../src/engine/give-parameter.ts";
import type { ModelConfig } from "../../src/model/config.ts";

export interface StoredTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

export interface Case {
  readonly config: ModelConfig;
  readonly checkpoint: Checkpoint;
  /** Token ids of each sequence. */
  readonly prompts: number[][];
  /** Positions whose rows are stored. */
  readonly positions: number[];
  readonly mtpPositions: number[];
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  shape(key: string): readonly number[];
  /** The part of a stored tensor at the given leading indices. */
  row(key: string, ...indices: number[]): Float32Array | Int32Array;
}

export async function loadCase(name: string): Promise<Case> {
  const folder = join(import.meta.dirname, "../data/v4", name);
  const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
  const checkpoint = await openCheckpointFolder(folder);
  return {
    config: checkpoint.config,
    checkpoint,
    prompts: golden.inputs.token_ids,
    positions: golden.positions,
    mtpPositions: golden.mtp_positions ?? [],
    ...storedTensors(folder),
  };
}

/** The stored tensors of a folder, by key and leading indices. */
export function storedTensors(folder: string): Pick<Case, "tensors" | "shape" | "row"> {
  const tensors = readStoredTensors(join(folder, "golden.safetensors"));
  const stored = (key: string) => {
    const tensor = tensors.get(key);
    if (tensor === undefined) throw new Error(`${folder} has no tensor ${key}`);
    return tensor;
  };
  return {
    tensors,
    shape: (key) => stored(key).shape,
    row(key, ...indices) {
      const { shape, data } = stored(key);
      let [start, length] = [0, data.length];
      indices.forEach((index, axis) => {
        length /= shape[axis]!;
        start += index * length;
      });
      return data.subarray(start, start + length);
    },
  };
}

export async function loadWeights({ checkpoint }: Pick<Case, "checkpoint">, device: Device): Promise<void> {
  for (const parameter of checkpoint.parameters) await giveParameter(checkpoint, parameter, device);
}

/** A reader of F32, I32 and U8 tensors that shares nothing with the one under test. */
export function readStoredTensors(path: string): Map<string, StoredTensor> {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes));
  const tensors = new Map<string, StoredTensor>();
  for (const [
    name,
    {
      dtype,
      shape,
      data_offsets: [begin, end],
    },
  ] of Object.entries<{
    dtype: string;
    shape: number[];
    data_offsets: [number, number];
  }>(header)) {
    if (name === "__metadata__") continue;
    const bytes = Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer;
    const data =
      dtype === "U8"
        ? Int32Array.from(new Uint8Array(bytes))
        : dtype === "I32"
          ? new Int32Array(bytes)
          : new Float32Array(bytes);
    tensors.set(name, { shape, data });
  }
  return tensors;
}
