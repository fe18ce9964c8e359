/** The name of a model by its content. */
import assert from "node:assert/strict";
import { cp, mkdtemp, open, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { openCheckpointAt } from "../../src/engine/checkpoint-folder.ts";
import { embeddedModel } from "../../src/engine/load-model.ts";
import { digestOfModel } from "../../src/engine/model-digest.ts";
import { synthesizeModel } from "../../src/engine/synthesize-model.ts";
import { v41Folder } from "../v41-folder.ts";

describe("the digest of a model", () => {
  let directory: string;
  let original: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "freehold-digest-"));
    original = await digestOfModel(embeddedModel);
  });
  after(() => rm(directory, { recursive: true }));

  const copy = async (name: string): Promise<string> => {
    const path = join(directory, name);
    await cp(embeddedModel, path, { recursive: true });
    return path;
  };

  test("of a copy is the same, whatever its path, times and other files", async () => {
    const path = await copy("copied");
    await utimes(join(path, "model.safetensors"), 1, 1);
    await writeFile(join(path, "README.md"), "another file");
    await rename(join(path, "model.safetensors"), join(path, "weights.safetensors"));
    assert.equal(await digestOfModel(path), original);
    assert.match(original, /^[0-9a-f]{64}$/);
  });

  test("changes with a value of the config", async () => {
    const path = await copy("config");
    const file = join(path, "config.json");
    await writeFile(file, (await readFile(file, "utf8")).replace('"rope_theta": 10000.0', '"rope_theta": 10001.0'));
    assert.notEqual(await digestOfModel(path), original);
  });

  test("changes with the first, the middle or the last value of any tensor", async () => {
    const path = await copy("weights");
    const file = join(path, "model.safetensors");
    const checkpoint = await openCheckpointAt(path);
    const { tensors } = checkpoint;
    await checkpoint.close();
    const handle = await open(file, "r+");
    const seen = new Set([original]);
    for (const { begin, end } of [tensors[0]!, tensors.at(-1)!, tensors[Math.floor(tensors.length / 2)]!]) {
      for (const at of [begin, Math.floor((begin + end) / 2), end - 1]) {
        const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, at);
        await handle.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, at);
        const digest = await digestOfModel(path);
        assert.ok(!seen.has(digest), `byte ${at}`);
        seen.add(digest);
      }
    }
    await handle.close();
  });

  test("changes with what says which tokens share their n-grams, and with nothing else beside the weights", async () => {
    await using folder = await v41Folder();
    const [map, tokenizer] = ["engram_token_map.json", "tokenizer.json"].map((name) => join(folder.path, name));
    const first = await digestOfModel(folder.path);
    const text = await readFile(map!, "utf8");
    await writeFile(map!, text.replace(/\d+\s*\]\s*$/, "0]"));
    const changed = await digestOfModel(folder.path);
    assert.notEqual(changed, first);
    await writeFile(map!, text);
    await writeFile(tokenizer!, `${await readFile(tokenizer!, "utf8")}\n`);
    assert.equal(await digestOfModel(folder.path), first);
    // Without the map the tokenizer tells.
    await rename(map!, `${map}.old`);
    const byTokenizer = await digestOfModel(folder.path);
    assert.notEqual(byTokenizer, first);
    await writeFile(tokenizer!, `${await readFile(tokenizer!, "utf8")}\n`);
    assert.notEqual(await digestOfModel(folder.path), byTokenizer);
  });

  test("of a GGUF file names its content as well", async () => {
    const paths = ["a.gguf", "b.gguf", "c.gguf"].map((name) => join(directory, name));
    await synthesizeModel(paths[0]!, { preset: "tiny", type: "q8_0", seed: 1 });
    await synthesizeModel(paths[1]!, { preset: "tiny", type: "q8_0", seed: 1 });
    await synthesizeModel(paths[2]!, { preset: "tiny", type: "q8_0", seed: 2 });
    const [a, b, c] = await Promise.all(paths.map((path) => digestOfModel(path)));
    assert.equal(a, b);
    assert.notEqual(a, c);
  });
});
