/** A small V4.1 model of random weights as a folder that can be served: n-gram memory, both kinds of groups, candidate pool. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { synthesizeModel } from "../src/engine/synthesize-model.ts";

export interface ModelFolder extends AsyncDisposable {
  readonly path: string;
}

/** The caller disposes of it; 17 MB. */
export async function v41Folder(): Promise<ModelFolder> {
  const path = await mkdtemp(join(tmpdir(), "freehold-v41-"));
  await synthesizeModel(path, { preset: "v4.1-tiny", type: "mxfp4", engramBytes: 2 << 20 });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) };
}
