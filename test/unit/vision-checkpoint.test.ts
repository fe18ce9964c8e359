/** The vision part of a model folder: opened apart from the text, only where there is one, and refused with every fault. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { ModelFiles } from "../../src/engine/checkpoint.ts";
import { weightBytes } from "../../src/engine/memory-need.ts";
import { openVisionCheckpoint } from "../../src/engine/vision/vision-checkpoint.ts";
import { ModelError } from "../../src/errors.ts";
import { MemorySource } from "../../src/format/byte-source.ts";
import { parseVisionConfig } from "../../src/model/vision/config.ts";
import { visionParameters } from "../../src/model/vision/image-encoder.ts";
import { countElements } from "../../src/tensor/shape.ts";
import { safetensorsBytes, type TensorBytes } from "./safetensors-bytes.ts";

const configFile = join(import.meta.dirname, "../data/v4.1/f-vision/config.json");
const config = JSON.parse(readFileSync(configFile, "utf8")) as Record<string, unknown>;
const parameters = visionParameters(parseVisionConfig(config)!);

/** Zeros, in the type of the published files. */
function visionTensors(): Record<string, TensorBytes> {
  return Object.fromEntries(
    parameters.map(({ name, shape }) => [
      name,
      { dtype: "BF16", shape, bytes: new Uint8Array(2 * countElements(shape)) },
    ]),
  );
}

const text = { "embed.weight": { dtype: "BF16", shape: [1], bytes: new Uint8Array(2) } };

/** A folder in memory; `opened` hears which files are opened. */
function folder(contents: Readonly<Record<string, Uint8Array | object>>, opened: string[] = []): ModelFiles {
  return {
    name: "folder",
    has: async (file) => Object.hasOwn(contents, file),
    list: async () => Object.keys(contents),
    async open(file) {
      opened.push(file);
      const value = contents[file]!;
      return new MemorySource(
        file,
        value instanceof Uint8Array ? value : new TextEncoder().encode(JSON.stringify(value)),
      );
    },
  };
}

function folderOf(tensors: Record<string, TensorBytes>): ModelFiles {
  return folder({ "config.json": config, "model.safetensors": safetensorsBytes(tensors) });
}

describe("the vision part of a folder", () => {
  test("is opened with all its parameters, beside tensors of the text", async () => {
    const checkpoint = (await openVisionCheckpoint(folderOf({ ...text, ...visionTensors() })))!;
    assert.equal(checkpoint.parameters.length, parameters.length);
    assert.equal(checkpoint.stored("vision.blocks.1.mlp.w1.weight")?.format, "BF16");
    const { shape, data } = await checkpoint.load("image_newline");
    assert.deepEqual([shape, data], [[48], new Float32Array(48)]);
  });

  test("counts as many bytes as a device holds: matrices as they are stored, vectors in float32", async () => {
    const checkpoint = (await openVisionCheckpoint(folderOf(visionTensors())))!;
    const bytes = parameters.reduce((sum, { shape }) => sum + countElements(shape) * (shape.length === 2 ? 2 : 4), 0);
    assert.equal(weightBytes(checkpoint), bytes);
  });

  test("is not there when the config has none, and no file of weights is opened", async () => {
    const opened: string[] = [];
    const files = folder(
      { "config.json": { ...config, vision_config: undefined }, "model.safetensors": new Uint8Array() },
      opened,
    );
    assert.equal(await openVisionCheckpoint(files), undefined);
    assert.deepEqual(opened, ["config.json"]);
  });

  test("is looked for only in the shards that hold some of it", async () => {
    const opened: string[] = [];
    const weightMap = Object.fromEntries([
      ["embed.weight", "a.safetensors"],
      ...parameters.map(({ name }) => [name, "b.safetensors"]),
    ]);
    const contents = {
      "config.json": config,
      "model.safetensors.index.json": { weight_map: weightMap },
      "a.safetensors": safetensorsBytes(text),
      "b.safetensors": safetensorsBytes(visionTensors()),
    };
    await openVisionCheckpoint(folder(contents, opened));
    assert.deepEqual(opened, ["config.json", "model.safetensors.index.json", "b.safetensors"]);
  });

  test("with faults is refused with all of them", async () => {
    const { "aligner.w1.bias": _, ...tensors } = visionTensors();
    tensors["vision.norm.weight"] = { dtype: "BF16", shape: [31], bytes: new Uint8Array(62) };
    tensors.image_end = { dtype: "F8_E4M3", shape: [48], bytes: new Uint8Array(48) };
    tensors["vision.blocks.2.attn.wo.bias"] = { dtype: "BF16", shape: [32], bytes: new Uint8Array(64) };
    await assert.rejects(openVisionCheckpoint(folderOf(tensors)), (error) => {
      assert.ok(error instanceof ModelError);
      assert.equal(error.code, "bad-weights");
      assert.match(error.message, /1 missing: aligner\.w1\.bias/);
      assert.match(error.message, /vision\.norm\.weight has the shape \[31\], expected \[32\]/);
      assert.match(error.message, /image_end is F8_E4M3/);
      assert.match(error.message, /1 unexpected: vision\.blocks\.2\.attn\.wo\.bias/);
      return true;
    });
  });
});
