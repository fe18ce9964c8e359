/**
 * The long forms of the tests of serving, one after another until the time is over; each round has a new seed, which is printed. The
 * short forms are part of npm test. Run: npm run soak -- [--minutes 30] [--model v4.1] [--only crashes,streams] [--seed 1]
 */
import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { smallModelNames } from "../small-model.ts";
import { flipCacheBits } from "./cache-flips.ts";
import { killCacheWriters } from "./cache-kills.ts";
import { branchingConversations } from "./prefix-conversations.ts";
import { chats, crashes } from "./seed-server.ts";
import { flipBits } from "./store-flips.ts";
import { killWriters } from "./store-kills.ts";
import { aborts, overload, type StreamsReport, streams } from "./streams.ts";

type Parts = Readonly<Record<string, (seed: number) => Promise<object>>>;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    model: { type: "string", default: "v4" },
    only: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const model = smallModelNames.find((name) => name === values.model);
if (model === undefined)
  throw new Error(`There is no model "${values.model}"; there are ${smallModelNames.join(", ")}`);

/** With a model: small ones of random weights, and servers with the embedded V4 model or a small one of V4.1. */
const modelParts: Parts = {
  conversations: (seed) => branchingConversations({ rounds: 1000, seed, model }),
  cacheKills: (seed) => killCacheWriters({ rounds: 300, seed, model }),
  cacheFlips: (seed) => flipCacheBits({ rounds: 20_000, seed, model }),
  crashes: (seed) => crashes({ rounds: 50, seed, model }),
  chats: (seed) => chats({ seconds: 120, seed, model }),
};

/** Without one. */
const otherParts: Parts = {
  kills: (seed) => killWriters({ rounds: 300, seed }),
  flips: (seed) => flipBits({ rounds: 20_000, seed }),
  streams: async () => exact(await streams({ streams: 2000, rate: 20, seconds: 20 })),
  /** A hundred a second for a minute. */
  overload: async () => exact(await overload({ streams: 6000, rate: 20, seconds: 5 })),
  aborts: async () => {
    const report = await aborts({ streams: 2000, rate: 20, seconds: 5 });
    assert.ok(report.freedMs < 1000, `the engine was busy for ${report.freedMs} ms after the last abort`);
    return report;
  },
};

const parts: Parts = model === "v4" ? { ...modelParts, ...otherParts } : modelParts;
const chosen = values.only?.split(",") ?? Object.keys(parts);
const ends = performance.now() + 60_000 * Number(values.minutes);
for (let seed = Number(values.seed); ; seed++) {
  for (const name of chosen) {
    const run = parts[name];
    if (run === undefined) throw new Error(`There is no part "${name}"; there are ${Object.keys(parts).join(", ")}`);
    const started = performance.now();
    console.log(`${name}, ${model}, seed ${seed}`);
    const report = await run(seed);
    console.log(`  ${((performance.now() - started) / 1000).toFixed(1)} s ${JSON.stringify(report)}`);
    if (performance.now() > ends) process.exit(0);
  }
}

function exact(report: StreamsReport): StreamsReport {
  assert.deepEqual([report.failed, report.lost, report.wrong], [0, 0, 0], JSON.stringify(report));
  return report;
}
