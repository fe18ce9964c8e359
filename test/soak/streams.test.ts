/** The short forms of the load tests; the long ones are run by hand: node test/soak/streams.ts */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { aborts, overload, streams } from "./streams.ts";

const limits = { timeout: 60_000 };

describe("the gateway under load", () => {
  test("loses, doubles and misorders no token of 200 streams", limits, async () => {
    const report = await streams({ streams: 200, rate: 20, seconds: 2 });
    const { finished, lost, wrong, failed, events } = report;
    assert.deepEqual(
      { finished, lost, wrong, failed, events },
      { finished: 200, lost: 0, wrong: 0, failed: 0, events: 8000 },
    );
  });

  test("serves in full what it takes and refuses the rest, at ten times its rate", limits, async () => {
    const { finished, refused, failed, lost, wrong } = await overload({ streams: 200, rate: 50, seconds: 1 });
    assert.deepEqual({ all: finished + refused, failed, lost, wrong }, { all: 200, failed: 0, lost: 0, wrong: 0 });
    assert.ok(finished >= 20 && refused > 100, `${finished} served, ${refused} refused`);
  });

  test("frees the engine of 300 clients that go away", limits, async () => {
    const { aborted } = await aborts({ streams: 300, rate: 50, seconds: 1 });
    assert.equal(aborted, 300);
  });
});
