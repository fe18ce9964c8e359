/**
 * Names a model by its content, in the time of a few reads: what was computed with it may be found again only by it. Hashed are
 *   the whole config (or the metadata of a GGUF file), and the name, type, shape and place of every tensor,
 *   of every tensor the first, the middle and the last 4 KiB (with more than 2,000 tensors: of every second, every third ...),
 *   and the file that says which tokens share their n-grams, of a model with an n-gram memory.
 * Paths and times are no part of it: a copy is the same model. Two models that differ in nothing but bytes between the samples would
 * be taken for one; training and quantising change all of a tensor, and the prefix cache also compares what the model computes.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import type { ByteSource } from "../format/byte-source.ts";
import type { Checkpoint, CheckpointTensor, ModelFiles } from "./checkpoint.ts";
import { folderFiles, isGgufPath, openCheckpointAt } from "./checkpoint-folder.ts";
import { mapFile } from "./engram/token-map.ts";
import { FileSource } from "./file-source.ts";

const sampleBytes = 4096;
/** A model of 33,000 tensors would otherwise take 100,000 reads, ten seconds from a cold disk. */
const mostSampled = 2000;

/** Of a model folder or a .gguf file. */
export async function digestOfModel(reference: string): Promise<string> {
  const folder = isGgufPath(reference) ? dirname(reference) : reference;
  const checkpoint = await openCheckpointAt(reference);
  try {
    return await modelDigest(
      checkpoint,
      (file) => FileSource.open(join(folder, file)),
      isGgufPath(reference) ? undefined : await tokenMapFile(checkpoint, await folderFiles(folder)),
    );
  } finally {
    await checkpoint.close();
  }
}

async function tokenMapFile({ config }: Checkpoint, files: ModelFiles): Promise<string | undefined> {
  if (config.architecture !== "deepseek-v4.1" || config.engram === undefined) return undefined;
  const names = [mapFile, "tokenizer.json"];
  for (const name of names) if (await files.has(name)) return name;
  return undefined;
}

/** 64 hexadecimal digits. `openFile` opens a file of the folder; those of tensors by the name that the checkpoint has for them. */
export async function modelDigest(
  checkpoint: Pick<Checkpoint, "config" | "tensors">,
  openFile: (name: string) => Promise<ByteSource>,
  tokenMap?: string,
): Promise<string> {
  const hash = createHash("sha256").update("freehold model 1\n").update(stable(checkpoint.config)).update("\n");
  const sorted = [...checkpoint.tensors].sort((a, b) => compare(a.name, b.name));
  for (const { name, dtype, shape } of sorted) hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
  const step = Math.ceil(sorted.length / mostSampled);
  const sampled = sorted.filter((_, i) => i % step === 0);
  const byFile = Map.groupBy(sampled, ({ file }) => file);
  const samples = new Map<string, Uint8Array>();
  for (const [name, tensors] of byFile) {
    const source = await openFile(name);
    try {
      for (const tensor of tensors) samples.set(tensor.name, await sampleOf(source, tensor));
    } finally {
      await source.close();
    }
  }
  for (const { name } of sampled) hash.update(samples.get(name)!);
  if (tokenMap !== undefined) {
    const source = await openFile(tokenMap);
    try {
      hash.update("token map\n").update(await source.read(0, source.size));
    } finally {
      await source.close();
    }
  }
  return hash.digest("hex");
}

async function sampleOf(source: ByteSource, { begin, end }: CheckpointTensor): Promise<Uint8Array> {
  const length = end - begin;
  if (length <= 3 * sampleBytes) return source.read(begin, length);
  const middle = begin + Math.floor((length - sampleBytes) / 2);
  const parts = await Promise.all([begin, middle, end - sampleBytes].map((offset) => source.read(offset, sampleBytes)));
  return Buffer.concat(parts);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** JSON with the keys of objects in order, so that the order in which a config names them is no difference. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => compare(a, b)))
      : inner,
  );
}
