/** The files of a model in a folder on disk. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ModelError } from "../errors.ts";
import { type Checkpoint, type ModelFiles, openCheckpoint } from "./checkpoint.ts";
import { FileSource } from "./file-source.ts";

export async function openCheckpointFolder(path: string): Promise<Checkpoint> {
  return openCheckpoint(await folderFiles(path));
}

/** Throws a ModelError when the path is not a folder. */
export async function folderFiles(path: string): Promise<ModelFiles> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    (error: NodeJS.ErrnoException) => {
      throw new ModelError(
        error.code === "ENOENT" ? "There is no such model folder" : `Cannot open the model folder: ${error.message}`,
        {
          code: "no-model",
          where: path,
          hint: "Give the path of a folder with config.json, tokenizer.json and *.safetensors",
          cause: error,
        },
      );
    },
  );
  if (!isFolder) {
    throw new ModelError("The model is a file, not a folder", {
      code: "no-model",
      where: path,
      hint: "Give the folder that holds config.json, tokenizer.json and *.safetensors",
    });
  }
  return {
    name: path,
    has: async (file) => (await stat(join(path, file)).catch(() => undefined))?.isFile() ?? false,
    list: async () => (await readdir(path)).sort(),
    open: (file) => FileSource.open(join(path, file)),
  };
}
