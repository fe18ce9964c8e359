/** Checkpoints with faults: each is named, all in one error, before anything is computed. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { type ModelFiles, openCheckpoint } from "../../src/engine/checkpoint.ts";
import { openCheckpointFolder } from "../../src/engine/checkpoint-folder.ts";
import { FormatError, ModelError } from "../../src/errors.ts";
import { MemorySource } from "../../src/format/byte-source.ts";
import { officialName } from "../../src/model/weight-names.ts";
import { safetensorsBytes, type TensorBytes } from "./safetensors-bytes.ts";

const cases = join(import.meta.dirname, "../data/v4");

type Tensors = Record<string, TensorBytes>;

/** The tensors of a recorded case, to be changed. */
function tensorsOf(name: string): Tensors {
  const file = readFileSync(join(cases, name, "model.safetensors"));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes));
  delete header.__metadata__;
  return Object.fromEntries(
    Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(header).map(
      ([
        tensor,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => [
        tensor,
        { dtype, shape, bytes: Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)) },
      ],
    ),
  );
}

function configOf(name: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(cases, name, "config.json"), "utf8"));
}

function filesOf(contents: Readonly<Record<string, Uint8Array | object>>): ModelFiles {
  const bytes = (value: Uint8Array | object) =>
    value instanceof Uint8Array ? value : new TextEncoder().encode(JSON.stringify(value));
  return {
    name: "folder",
    has: async (file) => Object.hasOwn(contents, file),
    list: async () => Object.keys(contents),
    open: async (file) => new MemorySource(file, bytes(contents[file]!)),
  };
}

function open(name: string, change: (tensors: Tensors) => void) {
  const tensors = tensorsOf(name);
  change(tensors);
  return openCheckpoint(filesOf({ "config.json": configOf(name), "model.safetensors": safetensorsBytes(tensors) }));
}

async function assertFault(opened: Promise<unknown>, ...patterns: RegExp[]): Promise<void> {
  await assert.rejects(opened, (error) => {
    assert.ok(error instanceof ModelError || error instanceof FormatError, `${error}`);
    for (const pattern of patterns) assert.match(`${error.message} ${error.where}`, pattern);
    assert.ok(!error.message.includes("\n"));
    return true;
  });
}

describe("a checkpoint", () => {
  for (const name of ["window", "ratio128", "ratio4", "mixed", "batch", "mtp", "official"]) {
    test(`${name} opens whole, and every parameter loads with its shape`, async () => {
      const checkpoint = await openCheckpointFolder(join(cases, name));
      for (const { name: parameter, shape } of checkpoint.parameters) {
        const { data } = await checkpoint.load(parameter);
        assert.equal(
          data.length,
          shape.reduce((product, dim) => product * dim, 1),
          parameter,
        );
      }
      await checkpoint.close();
    });
  }

  test("with faults of every kind lists all of them in one error", async () => {
    const opened = open("mtp", (tensors) => {
      delete tensors["model.norm.weight"];
      tensors["model.layers.0.self_attn.extra.weight"] = tensors["model.layers.0.self_attn.sinks"]!;
      tensors["lm_head.weight"] = { ...tensors["lm_head.weight"]!, shape: [32, 160] };
      tensors["model.layers.1.self_attn.sinks"] = { dtype: "I32", shape: [4], bytes: new Uint8Array(16) };
    });
    await assertFault(
      opened,
      /1 missing: norm\.weight/,
      /1 unexpected: model\.layers\.0\.self_attn\.extra\.weight/,
      /lm_head\.weight has the shape \[32,160\], expected \[160,32\]/,
      /sinks is I32, not F32, F16 or BF16/,
    );
  });

  test("that lacks everything lists the first and counts the rest", async () => {
    const opened = open("window", (tensors) => {
      for (const tensor of Object.keys(tensors)) if (tensor.includes("layers")) delete tensors[tensor];
    });
    await assertFault(opened, /and \d+ more/);
  });

  test("whose quantised weight has no scale, a wrong one, or whose scale has no weight is refused", async () => {
    const weight = "layers.0.attn.wq_a";
    await assertFault(
      open("official", (tensors) => delete tensors[`${weight}.scale`]),
      /wq_a\.weight is F8_E4M3 and has no scale/,
    );
    await assertFault(
      open("official", (tensors) => {
        tensors[`${weight}.scale`] = { dtype: "F8_E8M0", shape: [1, 2], bytes: new Uint8Array(2) };
      }),
      /wq_a\.scale has the shape \[1,2\], expected \[2,2\]/,
    );
    await assertFault(
      open("official", (tensors) => {
        tensors["embed.scale"] = { dtype: "F8_E8M0", shape: [1, 2], bytes: new Uint8Array(2) };
      }),
      /embed\.scale scales a weight that needs none/,
    );
  });

  test("with a scale that is not a number fails when that weight is loaded", async () => {
    const checkpoint = await open("official", (tensors) => tensors["layers.0.attn.wkv.scale"]!.bytes.fill(255));
    await checkpoint.load("layers.0.attn.wq_a.weight");
    await assertFault(checkpoint.load("layers.0.attn.wkv.weight"), /255/, /wkv\.scale/);
  });

  test("whose expert table names an expert that does not exist fails when it is loaded", async () => {
    const checkpoint = await open("ratio128", (tensors) => {
      new DataView(tensors["model.layers.0.mlp.gate.tid2eid"]!.bytes.buffer).setBigInt64(8, 99n, true);
    });
    await assertFault(checkpoint.load("layers.0.ffn.gate.tid2eid"), /expert 99 for token 0/);
  });

  test("in shards is the same as in one file; faults of the index are named", async () => {
    const tensors = tensorsOf("window");
    const names = Object.keys(tensors);
    const half = (take: (i: number) => boolean) =>
      Object.fromEntries(names.filter((_, i) => take(i)).map((n) => [n, tensors[n]!]));
    const [even, odd] = [half((i) => i % 2 === 0), half((i) => i % 2 === 1)];
    const weight_map = Object.fromEntries([
      ...Object.keys(even).map((n) => [n, "model-00001-of-00002.safetensors"]),
      ...Object.keys(odd).map((n) => [n, "model-00002-of-00002.safetensors"]),
    ]);
    const contents = (map: object, more: object = {}) => ({
      "config.json": configOf("window"),
      "model.safetensors.index.json": { weight_map: map },
      "model-00001-of-00002.safetensors": safetensorsBytes(even),
      "model-00002-of-00002.safetensors": safetensorsBytes(odd),
      ...more,
    });
    const sharded = await openCheckpoint(filesOf(contents(weight_map)));
    const single = await openCheckpointFolder(join(cases, "window"));
    for (const { name } of single.parameters)
      assert.deepEqual((await sharded.load(name)).data, (await single.load(name)).data);
    await single.close();

    const first = names[0]!;
    await assertFault(
      openCheckpoint(filesOf(contents({ ...weight_map, ghost: "model-00001-of-00002.safetensors" }))),
      /promises ghost/,
    );
    await assertFault(
      openCheckpoint(filesOf(contents({ ...weight_map, [first]: "other.safetensors" }))),
      /shard other\.safetensors is missing/,
    );
    for (const path of ["../model.safetensors", "a/b", "a\\b", ""]) {
      await assertFault(openCheckpoint(filesOf(contents({ ...weight_map, [first]: path }))), /no file name/);
    }
    const cut = safetensorsBytes(odd).subarray(0, 3000);
    await assertFault(
      openCheckpoint(filesOf(contents(weight_map, { "model-00002-of-00002.safetensors": cut }))),
      /00002-of-00002/,
    );
  });

  test("of another kind, without config, without weights or with a bad config is refused by name", async () => {
    const weights = safetensorsBytes({});
    await assertFault(openCheckpoint(filesOf({ "model.safetensors": weights })), /no config\.json/);
    await assertFault(openCheckpoint(filesOf({ "config.json": configOf("window") })), /no weights/);
    await assertFault(openCheckpoint(filesOf({ "config.json": { model_type: "llama" } })), /not supported: llama/);
    await assertFault(openCheckpoint(filesOf({ "config.json": new TextEncoder().encode("{") })), /not JSON/);
    await assertFault(openCheckpointFolder("/does/not/exist"), /no such model folder/);
    await assertFault(openCheckpointFolder(import.meta.filename), /file, not a folder/);
  });

  test("that transformers saved without its MTP module loads without, and says so", async () => {
    const checkpoint = await open("mtp", (tensors) => {
      for (const tensor of Object.keys(tensors)) if (tensor.startsWith("mtp.")) delete tensors[tensor];
    });
    assert.equal(checkpoint.config.numMtpModules, 0);
    assert.match(checkpoint.notes.join(), /MTP/);
  });
});

describe("names of weights", () => {
  const rows: [string, string][] = [
    ["layers.3.attn.wq_a.weight", "layers.3.attn.wq_a.weight"],
    ["model.layers.3.self_attn.q_a_proj.weight", "layers.3.attn.wq_a.weight"],
    ["model.layers.3.attn.wq_a.weight", "layers.3.attn.wq_a.weight"],
    ["model.layers.3.attn.norm.weight", "layers.3.attn.kv_norm.weight"],
    ["model.layers.3.attn.compressor.norm.weight", "layers.3.attn.compressor.norm.weight"],
    ["model.layers.3.self_attn.compressor.indexer.kv_proj.weight", "layers.3.attn.indexer.compressor.wkv.weight"],
    ["model.layers.3.attn_hc.scale", "layers.3.hc_attn_scale"],
    ["model.layers.3.self_attn.q_a_proj.weight_scale_inv", "layers.3.attn.wq_a.scale"],
    ["layers.3.attn.wq_a.scale", "layers.3.attn.wq_a.scale"],
    ["model.layers.0.mlp.gate.tid2eid", "layers.0.ffn.gate.tid2eid"],
    ["model.hc_head.hc_scale", "hc_head_scale"],
    ["lm_head.weight", "head.weight"],
    ["mtp.0.e_proj.weight", "mtp.0.e_proj.weight"],
    ["something.else", "something.else"],
  ];
  for (const [name, official] of rows) {
    test(`${name} is officially ${official}`, () => {
      assert.equal(officialName(name), official);
    });
  }
});

describe("a config that asks for more than any files hold", () => {
  test("65,536 experts in each of 1024 layers: the error comes at once and is short", { timeout: 30_000 }, async () => {
    const layers = 1024;
    const sizes = { num_hidden_layers: layers, n_routed_experts: 65_536, compress_ratios: Array(layers).fill(4) };
    const config = { ...configOf("window"), ...sizes };
    const files = filesOf({ "config.json": config, "model.safetensors": safetensorsBytes(tensorsOf("window")) });
    await assert.rejects(
      openCheckpoint(files),
      (error) => error instanceof ModelError && error.code === "bad-weights" && error.message.length < 10_000,
    );
  });
});
