/**
 * A model whose MTP module knows what the model will say: one window-only layer over embeddings of length 1, and a module that is a
 * copy of it and reads nothing but the next token. Behind the first window nearly every draft is right, and chained ones as well,
 * unless a row of the module's caches is missing, stale or a place off: that costs right drafts at once.
 */
import type { Device } from "../src/device/device.ts";
import type { DrafterKind } from "../src/engine/drafting/drafting.ts";
import { Model } from "../src/engine/model.ts";
import { drafterParameters, modelParameters } from "../src/model/parameters.ts";
import { bestBody } from "./kernel-devices.ts";
import { giveRandomWeights, randomNumbers, smallConfigs } from "./small-model.ts";

export const echoConfig = {
  ...smallConfigs.v4,
  numLayers: 1,
  compressRatios: [0],
  hashRouted: [false],
  numMtpModules: 1,
  maxPositionEmbeddings: 4096,
} as const;

export async function echoModel(drafter: DrafterKind = "mtp"): Promise<Model> {
  const device = await bestBody.create({ workers: 1 });
  giveEchoWeights(device);
  return new Model({
    name: "echo",
    config: echoConfig,
    device,
    drafter,
    tokenizer: undefined,
    dialect: "v4",
    defaults: { eosTokenIds: [] },
    contextLength: 4096,
    notes: [],
    addsBeginOfSequence: false,
  });
}

function giveEchoWeights(device: Device): void {
  const given = new Map<string, Float32Array | Int32Array>();
  const recorder = {
    setWeight(name: string, data: Float32Array | Int32Array) {
      given.set(name, data);
    },
  } as Device; // giveRandomWeights does nothing else
  giveRandomWeights(echoConfig, recorder, 3);
  const { hiddenSize } = echoConfig;
  const random = randomNumbers(9);
  const embedding = Float32Array.from(given.get("embed.weight")!, () => random() - 0.5);
  for (let start = 0; start < embedding.length; start += hiddenSize) {
    const row = embedding.subarray(start, start + hiddenSize);
    const length = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / hiddenSize);
    for (let i = 0; i < hiddenSize; i++) row[i] = row[i]! / length;
  }
  given.set("embed.weight", embedding);
  for (const { name } of modelParameters(echoConfig)) device.setWeight(name, given.get(name)!);
  const diagonal = (value: number) =>
    Float32Array.from({ length: hiddenSize ** 2 }, (_, i) => (i % (hiddenSize + 1) === 0 ? value : 0));
  const own = new Map([
    ["e_proj.weight", diagonal(1)],
    ["h_proj.weight", diagonal(0)],
    ["enorm.weight", new Float32Array(hiddenSize).fill(1)],
    ["hnorm.weight", new Float32Array(hiddenSize).fill(1)],
  ]);
  for (const { name } of drafterParameters(echoConfig)) {
    const rest = name.slice("mtp.0.".length);
    const copied = given.get(`layers.0.${rest}`) ?? given.get(rest);
    device.setWeight(name, own.get(rest) ?? copied!);
  }
}
