/** The prefix cache and images: the same image is found again, in memory and on disk; another one in the same text never is. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { BatchEngine } from "../../src/engine/batching/batch-engine.ts";
import type { EngineEvent, EngineRequest, RequestImage } from "../../src/engine/batching/engine-port.ts";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { placeImages } from "../../src/engine/vision/place-images.ts";
import { randomNumbers } from "../small-model.ts";

const folder = join(import.meta.dirname, "../data/v4.1/f-vision");
const model = await loadModel(folder, { device: "cpu" });
const { runner } = model;
const directory = mkdtempSync(join(tmpdir(), "freehold-image-cache-"));
after(() => {
  model[Symbol.dispose]();
  rmSync(directory, { recursive: true, force: true });
});

const media = (name: string) => readFileSync(join(import.meta.dirname, "../data/media", name));
const random = randomNumbers(3);
const text = (count: number) => Array.from({ length: count }, () => 5 + Math.floor(random() * 60));
/** The image stands across the border of two blocks of 128 tokens; its place has the id 4. */
const prompt = [...text(120), 4, ...text(60)];
const withImage = async (name: string) => model.preparePrompt({ prompt, images: [media(name)] });

function openCache(store: "off" | { directory: string }) {
  const disk = store === "off" ? store : { ...store, budgetBytes: 64 << 20, reserveBytes: 0 };
  return PrefixCache.open({ runner, modelDigest: "m", memoryBudgetBytes: 1 << 30, store: disk, now: () => 0 });
}

async function compute(cache: PrefixCache, { tokenIds, images }: Awaited<ReturnType<typeof withImage>>) {
  using sequence = await cache.resume("a", [...tokenIds, 0]);
  sequence.images = images;
  const found = sequence.length;
  const logits = await runner.append({ sequence, tokenIds: tokenIds.slice(found), outputs: 1 });
  cache.remember("a", sequence, { isFinal: true });
  await cache.flush();
  return { found, logits };
}

for (const kind of ["memory", "disk"] as const) {
  describe(`a prompt with an image, remembered in ${kind}`, () => {
    const store = kind === "memory" ? ("off" as const) : { directory: join(directory, kind) };
    test("is found with the same image and not with another, and the logits are the cold ones", async () => {
      const [one, other] = [await withImage("rgb.png"), await withImage("grey.png")];
      assert.equal(one.tokenIds.length, other.tokenIds.length, "the texts are alike token by token");
      const cold = await openCache("off");
      const expected = await compute(cold, other);
      await cold.close();

      let cache = await openCache(store);
      await compute(cache, one);
      if (kind === "disk") {
        await cache.close();
        cache = await openCache(store);
      }
      using again = await cache.resume("a", [...one.tokenIds, 0]);
      assert.equal(again.length, one.tokenIds.length);
      const { found, logits } = await compute(cache, other);
      assert.ok(found <= 120, `${found} tokens of a sequence with another image`);
      assert.deepEqual(logits, expected.logits);
      await cache.close();
    });
  });
}

describe("the batch engine with images", async () => {
  const cache = await openCache("off");
  const engine = new BatchEngine(model, cache);
  after(() => engine.close());

  function run(id: string, tokenIds: readonly number[], images: readonly RequestImage[]): Promise<EngineEvent[]> {
    const request: EngineRequest = {
      id,
      tokenIds,
      images,
      generated: [],
      sampling: { temperature: 0, seed: 1 },
      maxTokens: 6,
      stopTokenIds: [],
      key: "k",
      priority: 1,
      namespace: "n",
    };
    const { promise, resolve } = Promise.withResolvers<EngineEvent[]>();
    const events: EngineEvent[] = [];
    engine.submit(request, (event) => {
      events.push(event);
      if (event.type === "end" || event.type === "error") resolve(events);
    });
    return promise;
  }
  const idsOf = (events: EngineEvent[]) => events.flatMap((event) => (event.type === "tokens" ? event.ids : []));
  const imageOf = (name: string) => engine.prepareImage(`data:image/png;base64,${media(name).toString("base64")}`);

  test("answers several at once, each as it is answered alone, and computes an image once", async () => {
    const names = ["rgba.png", "palette.png", "rgba.png", "plain.gif"];
    const images = await Promise.all(names.map(imageOf));
    const before = model.images!.computed;
    const answers = await Promise.all(images.map((image, i) => run(`r${i}`, placeImages(prompt, 4, [image]), [image])));
    assert.ok(model.images!.computed - before <= 3, "the same image is computed once");
    for (const [i, name] of names.entries()) {
      const alone = await model.complete(
        { prompt, images: [media(name)] },
        { temperature: 0, maxTokens: 6, ignoreEos: true },
      );
      assert.deepEqual(idsOf(answers[i]!), alone.tokenIds, name);
    }
    const rows = model.images!.computed;
    const again = await run("again", placeImages(prompt, 4, [images[0]!]), [images[0]!]);
    const usage = again.findLast((event) => event.type === "end")!.usage;
    assert.equal(usage.cachedTokens, usage.promptTokens - 1);
    assert.equal(model.images!.computed, rows);
  });

  test("refuses tokens of images that do not come with the request, and images that it never saw", async () => {
    const image = await imageOf("grey.png");
    const withoutIt = await run("without", [1, ...image.tokenIds], []);
    assert.deepEqual(withoutIt.at(-1)!.type, "error");
    const unknown = image.tokenIds.map((id, i) => id ^ (i + 1));
    const [lost] = await run("unknown", [1, ...unknown, 2], [{ source: "", tokenIds: unknown }]);
    assert.equal(lost!.type === "error" && lost!.error.code, "image-lost");
  });

  test("tells of an image that cannot be read what the reader says", async () => {
    await assert.rejects(engine.prepareImage("https://example.com/a.png"), { code: "image-url" });
    await assert.rejects(engine.prepareImage("data:image/png;base64,AAAA"), { code: "image-type" });
  });
});
