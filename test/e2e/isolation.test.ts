/** Where steps are computed: never on the caller's thread, and by one option in a process of their own. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadModel } from "../../src/engine/load-model.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { DeviceError, UsageError } from "../../src/errors.ts";

const prompt = Array.from({ length: 500 }, (_, i) => 300 + ((i * 37) % 3000));
const options = { temperature: 0, maxTokens: 40, ignoreEos: true };

test("the event loop of the caller turns while one step is computed", async () => {
  using model = await loadModel();
  await model.logits(prompt, { last: true });
  let turns = 0;
  let isDone = false;
  const turn = () => {
    turns++;
    if (!isDone) setImmediate(turn);
  };
  setImmediate(turn);
  await model.runner.step([{ sequence: model.runner.createSequence(), tokenIds: prompt, outputs: 1 }]);
  isDone = true;
  assert.ok(turns > 20, `${turns} turns`);
});

test("threads put no listeners on the caller's output: with eleven of them Node warns of its next pipe", async () => {
  const listeners = () => [process.stdout, process.stderr].map((stream) => stream.listenerCount("unpipe"));
  const before = listeners();
  using model = await loadModel(undefined, { threads: 3 });
  await model.complete(prompt.slice(0, 3), { maxTokens: 1 });
  assert.deepEqual(listeners(), before);
});

describe("a device in a child process", () => {
  test("gives bitwise the logits and the answer of worker threads", async () => {
    using here = await loadModel();
    using there = await loadModel(undefined, { isolation: "process" });
    assert.deepEqual(await there.logits(prompt), await here.logits(prompt));
    const [a, b] = [await there.complete(prompt, options), await here.complete(prompt, options)];
    assert.deepEqual(a.tokenIds, b.tokenIds);
    assert.equal(there.device.weightBytes > 10_000_000, true);
    assert.match(there.device.kernels, /process of its own/);
  });

  test("that dies ends the answer with an error, and a new model works", async () => {
    using model = await loadModel(undefined, { isolation: "process" });
    assert.ok(model.device instanceof ProcessDevice);
    const { pid } = model.device;
    const isDeath = (error: unknown) =>
      error instanceof DeviceError && error.code === "device-process" && /SIGKILL/.test(error.message);
    const answer = (async () => {
      for await (const event of model.generate(prompt, { ...options, maxTokens: 1000 })) {
        if (event.type === "content") process.kill(pid!, "SIGKILL");
      }
    })();
    await assert.rejects(answer, isDeath);
    await assert.rejects(model.complete(prompt, options), isDeath);
    using again = await loadModel(undefined, { isolation: "process" });
    assert.equal((await again.complete(prompt, options)).tokenIds.length, 40);
  });

  test("that cannot be started is refused with the reason of the child", async () => {
    await assert.rejects(loadModel(undefined, { isolation: "process", device: "webgpu" }), DeviceError);
    await assert.rejects(loadModel(undefined, { isolation: "threads", device: "abc" }), UsageError);
  });
});
