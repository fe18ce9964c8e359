/**
 * Answers of one model that are asked for at the same time, in a program that waits for nothing else: the threads of the kernels do
 * not keep it alive while they wait, so it must be kept alive by every step that runs or waits for its turn.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, test } from "node:test";

const data = join(import.meta.dirname, "../data");
const entry = join(import.meta.dirname, "../../src/index.ts");

/** Answers that a process of its own gives, 3 at once; throws when it ends before. Its program comes by the command line (--eval). */
function answersOf(model: string, options: object): unknown {
  const program = `
    import { loadModel } from ${JSON.stringify(entry)};
    const model = await loadModel(${JSON.stringify(join(data, model))}, ${JSON.stringify(options)});
    const ask = (id) => model.complete([1, 2, 3, id], { maxTokens: 12, temperature: 0, ignoreEos: true });
    const together = await Promise.all([4, 5, 6].map(ask));
    const alone = [];
    for (const id of [4, 5, 6]) alone.push(await ask(id));
    console.log(JSON.stringify([together, alone].map((answers) => answers.map(({ tokenIds }) => tokenIds))));
    model[Symbol.dispose]();`;
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 60_000,
  });
  return JSON.parse(output);
}

describe("answers at the same time", () => {
  for (const { model, drafting } of [
    { model: "v4/mtp", drafting: "off" },
    { model: "v4/mtp", drafting: "ngram" },
    { model: "v4/mtp", drafting: "mtp" },
    { model: "v4.1/dspark", drafting: "off" },
    { model: "v4.1/dspark", drafting: "dspark" },
    { model: "v4.1/engram", drafting: "off" },
  ]) {
    for (const device of ["cpu", "wasm"]) {
      test(`${model} with the drafter ${drafting} on ${device}: all come, and are those that come in turn`, () => {
        const [together, alone] = answersOf(model, { device, drafting, threads: 2, contextLength: 64 }) as number[][][];
        assert.equal(together!.length, 3);
        assert.ok(together!.every((tokenIds) => tokenIds.length === 12));
        assert.deepEqual(together, alone);
      });
    }
  }

  test("come from a child process too", () => {
    const options = { isolation: "process", drafting: "dspark", threads: 2, contextLength: 64 };
    const [together, alone] = answersOf("v4.1/dspark", options) as number[][][];
    assert.deepEqual(together, alone);
  });
});
