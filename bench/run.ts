/**
 * The benchmarks: what the engine does in a second on this machine. Run: npm run bench [name ...]
 * Each prints its figures with what they are to be compared with; nothing here is an assertion.
 */
import { cpus } from "node:os";
import { benchBodies } from "./bodies.ts";
import { benchDraftingModules } from "./drafting.ts";
import { benchImages } from "./images.ts";
import { benchKernels } from "./kernels.ts";
import { benchModel } from "./model.ts";
import { benchPrefixCache } from "./prefix-cache.ts";
import { benchSampling } from "./sampling.ts";
import { benchServing } from "./serving.ts";
import { benchTokenizer } from "./tokenizer.ts";

const benchmarks: Readonly<Record<string, () => Promise<void> | void>> = {
  tokenizer: benchTokenizer,
  sampling: benchSampling,
  images: benchImages,
  kernels: benchKernels,
  model: benchModel,
  serving: benchServing,
  bodies: () => benchBodies(),
  drafting: benchDraftingModules,
  "prefix-cache": benchPrefixCache,
};

console.log(`${cpus().at(0)?.model}, Node ${process.version}`);
const chosen = process.argv.slice(2);
for (const [name, bench] of Object.entries(benchmarks)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  console.log(`\n${name}`);
  await bench();
}
