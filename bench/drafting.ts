/**
 * What drafting with a model's own module gains and costs. The recorded models have random weights: their modules are never right, so
 * what is left is the cost. A model whose module is a copy of it is nearly always right: what can be gained at that size.
 */
import { loadModel } from "../src/engine/load-model.ts";
import type { Model } from "../src/engine/model.ts";
import { echoModel } from "../test/echo-model.ts";
import { report } from "./measure.ts";

const folderOf = (name: string) => new URL(`../test/data/${name}`, import.meta.url).pathname;

const cases: [string, (drafting: "off" | "auto") => Promise<Model>][] = [
  ["MTP, always right", (drafting) => echoModel(drafting === "off" ? "off" : "mtp")],
  ["MTP, random weights", (drafting) => loadModel(folderOf("v4/mtp"), { drafting, threads: 1 })],
  ["DSpark, random weights", (drafting) => loadModel(folderOf("v4.1/dspark"), { drafting, threads: 1 })],
];

export async function benchDraftingModules(): Promise<void> {
  for (const [name, load] of cases) {
    using plain = await load("off");
    using drafting = await load("auto");
    const fastest = { plain: Number.POSITIVE_INFINITY, drafting: Number.POSITIVE_INFINITY };
    let drafts = "";
    // In turns: what else the machine does meets both alike.
    for (let run = 0; run < 5; run++) {
      fastest.plain = Math.min(fastest.plain, (await answer(plain)).seconds.decode);
      const result = await answer(drafting);
      fastest.drafting = Math.min(fastest.drafting, result.seconds.decode);
      const { drafted, accepted, steps } = result.drafts;
      drafts = `${accepted} of ${drafted} drafted tokens right, ${(tokens / steps).toFixed(2)} tokens a step`;
    }
    const speed = (seconds: number) => (tokens / seconds).toFixed(0);
    const gain = (fastest.plain / fastest.drafting).toFixed(2);
    report(name, `${speed(fastest.plain)} -> ${speed(fastest.drafting)} tokens/s, ${gain} times; ${drafts}`);
  }
}

const tokens = 400;

function answer(model: Model) {
  const prompt = Array.from({ length: 60 }, (_, i) => (i * 17 + ((i * i) % 7)) % model.config.vocabSize);
  return model.complete(prompt, { temperature: 0, maxTokens: tokens, ignoreEos: true });
}
