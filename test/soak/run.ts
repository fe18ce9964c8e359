/**
 * The long forms of the tests of serving, one after another until the time is over; each round has a new seed, which is printed. The
 * short forms are part of npm test. Run: npm run soak -- --help
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

const usage = `Usage: npm run soak -- [options]

  --minutes N      ends behind the part during which so many are over (default 30; 0: one part)
  --model NAME     ${smallModelNames.join(" or ")} (default v4)
  --only A,B       these parts alone
  --rounds N       rounds of each part that has rounds, instead of its own number
  --seed N         of the first pass; each further one has the next (default 1)

Parts with any model: conversations, cacheKills, cacheFlips, crashes, chats
Parts without one (run with v4): kills, flips, streams, overload, aborts

Example, one part in pieces: npm run soak -- --only cacheFlips --rounds 2000 --minutes 6 --seed 11`;

function readOptions() {
  const text = { type: "string" } as const;
  const options = {
    minutes: text,
    model: text,
    only: text,
    rounds: text,
    seed: text,
    help: { type: "boolean" },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function refuse(why: string): never {
  console.error(`${why}\n\n${usage}`);
  process.exit(2);
}

function wholeNumber(name: string, value: string | undefined): number | undefined {
  if (value === undefined || /^\d+$/.test(value)) return value === undefined ? undefined : Number(value);
  return refuse(`--${name} is ${JSON.stringify(value)}, not a whole number`);
}

const values = readOptions();
if (values.help) {
  console.log(usage);
  process.exit(0);
}
const minutes = wholeNumber("minutes", values.minutes) ?? 30;
const firstSeed = wholeNumber("seed", values.seed) ?? 1;
const givenRounds = wholeNumber("rounds", values.rounds);
const rounds = (own: number) => givenRounds ?? own;
const model =
  smallModelNames.find((name) => name === (values.model ?? "v4")) ??
  refuse(`There is no model "${values.model}"; there are ${smallModelNames.join(", ")}`);

/** With a model: small ones of random weights, and servers with the embedded V4 model or a small one of V4.1. */
const modelParts: Parts = {
  conversations: (seed) => branchingConversations({ rounds: rounds(1000), seed, model }),
  cacheKills: (seed) => killCacheWriters({ rounds: rounds(300), seed, model }),
  cacheFlips: (seed) => flipCacheBits({ rounds: rounds(20_000), seed, model }),
  crashes: (seed) => crashes({ rounds: rounds(50), seed, model }),
  chats: (seed) => chats({ seconds: 120, seed, model }),
};

/** Without one. */
const otherParts: Parts = {
  kills: (seed) => killWriters({ rounds: rounds(300), seed }),
  flips: (seed) => flipBits({ rounds: rounds(20_000), seed }),
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
for (const name of chosen)
  if (!Object.hasOwn(parts, name))
    refuse(`There is no part "${name}" with ${model}; there are ${Object.keys(parts).join(", ")}`);
const ends = performance.now() + 60_000 * minutes;
for (let seed = firstSeed; ; seed++) {
  for (const name of chosen) {
    const started = performance.now();
    console.log(`${name}, ${model}, seed ${seed}`);
    const report = await parts[name]!(seed);
    console.log(`  ${((performance.now() - started) / 1000).toFixed(1)} s ${JSON.stringify(report)}`);
    if (performance.now() > ends) process.exit(0);
  }
}

function exact(report: StreamsReport): StreamsReport {
  assert.deepEqual([report.failed, report.lost, report.wrong], [0, 0, 0], JSON.stringify(report));
  return report;
}
