/** The files of a model on disk: a folder, or a GGUF file. */
import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ModelError } from "../errors.ts";
import type { GgufFile } from "../format/gguf.ts";
import { type Checkpoint, type ModelFiles, openCheckpoint } from "./checkpoint.ts";
import { FileSource } from "./file-source.ts";
import { bindGguf, closeParts, type GgufCheckpoint, openGgufParts } from "./gguf-checkpoint.ts";

export async function openCheckpointFolder(path: string): Promise<Checkpoint> {
  return openCheckpoint(await folderFiles(path));
}

export function isGgufPath(path: string): boolean {
  return path.toLowerCase().endsWith(".gguf");
}

/** Opens a GGUF file, and the other parts of a split one from the same folder. */
export async function openGgufFile(path: string, signal?: AbortSignal): Promise<GgufCheckpoint> {
  const files = await openGgufHeaders(path, signal);
  try {
    return await bindGguf(files);
  } catch (error) {
    await closeParts(files);
    throw error;
  }
}

/** The same files, whatever they hold. */
export async function openGgufHeaders(path: string, signal?: AbortSignal): Promise<readonly GgufFile[]> {
  const open = (part: string) => FileSource.open(part, signal);
  return openGgufParts(await open(path), (name) => open(join(dirname(path), name)));
}

/** A folder with config.json, or a GGUF file. */
export async function openCheckpointAt(path: string): Promise<Checkpoint> {
  return isGgufPath(path) ? openGgufFile(path) : openCheckpointFolder(path);
}

/** Throws a ModelError when the path is not a folder. An aborted `signal` ends every read of its files. */
export async function folderFiles(path: string, signal?: AbortSignal): Promise<ModelFiles> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    (error: NodeJS.ErrnoException) => {
      throw new ModelError(
        error.code === "ENOENT" ? "There is no such model folder" : `Cannot open the model folder: ${error.message}`,
        {
          code: "no-model",
          where: path,
          hint: "Give the path of a folder with config.json, tokenizer.json and *.safetensors, or of a .gguf file",
          cause: error,
        },
      );
    },
  );
  if (!isFolder) {
    throw new ModelError("The model is a file, not a folder", {
      code: "no-model",
      where: path,
      hint: "Give a .gguf file, or the folder that holds config.json, tokenizer.json and *.safetensors",
    });
  }
  return {
    name: path,
    has: async (file) => (await stat(join(path, file)).catch(() => undefined))?.isFile() ?? false,
    list: async () => (await readdir(path)).sort(),
    open: (file) => FileSource.open(join(path, file), signal),
  };
}
