/**
 * A tiny DeepSeek-V4.1 model with images in its prompt (test/data/v4.1/f-vision), through the public API: against values recorded
 * from NVIDIA NeMo (float32), which has the images as patches, and with real files against itself, cut into steps in every way.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import type { Model } from "../../src/engine/model.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import { contentIds, imageName } from "../../src/engine/vision/content-ids.ts";
import { placeImages } from "../../src/engine/vision/place-images.ts";
import { recordImageEncoder } from "../../src/model/vision/image-encoder.ts";
import { imageInputs } from "../../src/model/vision/image-inputs.ts";
import type { ImagePlan } from "../../src/model/vision/image-plan.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose, checkChunks, checkRagged, type Subject } from "./bitwise.ts";
import { loadV41Case } from "./v4.1-case.ts";

/** As stated by the recorded cases. */
const tolerance = 2e-4;

const golden = await loadV41Case("f-vision");
const folder = join(import.meta.dirname, "../data/v4.1/f-vision");
const { images } = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as {
  images: { start: number; grid_hw: [number, number]; types: number[] }[];
};
const media = (name: string) => new Uint8Array(readFileSync(join(import.meta.dirname, "../data/media", name)));

/** The recorded prompt with tokens that name its images, and their rows, from the recorded patches. */
async function recordedPrompt({ config: { imageTokenId, ...config } }: NonNullable<Model["images"]>, device: Device) {
  const rows = new Map<string, Float32Array>();
  const placed: { tokenIds: number[] }[] = [];
  let patch = 0;
  for (const [i, { grid_hw, types }] of images.entries()) {
    const [patchRows, patchColumns] = grid_hw;
    const side = config.patchSize;
    const plan: ImagePlan = {
      width: side * patchColumns,
      height: side * patchRows,
      mode: "pad",
      patchRows,
      patchColumns,
      rows: Math.ceil(patchRows / config.downsampleRatio),
      columns: Math.ceil(patchColumns / config.downsampleRatio),
      tokens: types.length,
    };
    const all = { imageTokenId, ...config };
    const { sizes, inputs } = imageInputs(all, plan, new Uint8Array(3 * plan.width * plan.height));
    const patches = (golden.tensors.get("pixel_values")!.data as Float32Array).slice(
      patch,
      patch + inputs.patches.length,
    );
    patch += inputs.patches.length;
    const program = device.compile(recordImageEncoder(all), { limits: sizes });
    await program.run({ sizes, inputs: { ...inputs, patches } });
    const tokenIds = contentIds(createHash("sha256").update(`${i}`).digest("hex"), types.length);
    rows.set(imageName(tokenIds), Float32Array.from(program.read("rows")));
    placed.push({ tokenIds });
  }
  const short = golden.prompt.filter((id, t) => id !== imageTokenId || images.some(({ start }) => start === t));
  return { tokenIds: placeImages(short, imageTokenId!, placed), rows };
}

const bodies = kernelBodiesHere.map(({ name, device, instructions }) => ({ name, device, instructions }));
for (const { name, ...options } of [...bodies, { name: "reference", device: "reference" }]) {
  describe(`images in a prompt on ${name}`, async () => {
    const model = await loadModel(folder, { ...options, activations: "float32" });
    after(() => model[Symbol.dispose]());
    const { tokenIds, rows } = await recordedPrompt(model.images!, model.device);
    const { imageTokenId } = model.images!.config;
    const runnerOf = (rounding: "none" | "caches", stepTokens = 512) =>
      new ModelRunner({ ...golden.config, rounding }, model.device, {
        stepTokens,
        imageTokenId,
        engram: model.runner.engram,
      });
    const logitsOf = async (rounding: "none" | "caches") => {
      const runner = runnerOf(rounding);
      using sequence = runner.createSequence();
      sequence.images = rows;
      return await runner.append({ sequence, tokenIds, outputs: tokenIds.length });
    };

    test("the logits of every position are those of the reference", async () => {
      for (const [p, row] of (await logitsOf("none")).entries())
        assertClose(row, golden.row("logits", p), `position ${p}`, tolerance);
    });

    test("with rounded caches they are its logits_kvquant", async () => {
      for (const [p, row] of (await logitsOf("caches")).entries())
        assertClose(row, golden.row("logits_kvquant", p), `position ${p}`, tolerance);
    });

    test("greedy decoding gives the same tokens", async () => {
      const runner = runnerOf("none");
      using sequence = runner.createSequence();
      sequence.images = rows;
      let [logits] = await runner.append({ sequence, tokenIds, outputs: 1 });
      for (const [i, expected] of golden.row("greedy.tokens").entries()) {
        assertClose(logits!, golden.row("greedy.logits", i), `step ${i}`, tolerance);
        const token = logits!.indexOf(Math.max(...logits!));
        assert.equal(token, expected, `token ${i}`);
        [logits] = await runner.append({ sequence, tokenIds: [token], outputs: 1 });
      }
    });

    if (name === "reference") return; // it has no steps of its own to differ in

    /** Files: the prompt has two of them, and text around. */
    const prompt = { prompt: [0, 35, 4, 24, 47, 4, 61, 22, 50], images: [media("rgb.png"), media("baseline.jpg")] };

    test("chunks, batches, winding back and forks change no bit", async () => {
      const { tokenIds: ids, images: known } = await model.preparePrompt(prompt);
      const subject: Subject = {
        prompts: [ids, ids.slice(0, -2), [7, ...ids, 9]],
        runner(stepTokens) {
          const runner = runnerOf("caches", stepTokens);
          const create = runner.createSequence.bind(runner);
          runner.createSequence = () => Object.assign(create(), { images: known });
          return runner;
        },
      };
      for (const chunk of [1, 2, 3, 7, 64]) await checkChunks(subject, chunk);
      await checkRagged(subject);

      const runner = subject.runner(64);
      const sequence = runner.createSequence();
      const whole = await runner.append({ sequence, tokenIds: ids, outputs: ids.length });
      // To the middle of the second image, within what caches can be wound back by; then to that of the first, beyond it.
      for (const length of [ids.length - 6, 9]) {
        const fork = sequence.fork();
        for (const each of [sequence, fork]) {
          each.rewind(each.length - length);
          assert.deepEqual(
            await runner.append({ sequence: each, tokenIds: ids.slice(length), outputs: ids.length - length }),
            whole.slice(length),
          );
        }
      }
    });

    test("the public API gives the same logits in chunks and token by token, and an answer that follows them", async () => {
      const whole = await model.logits(prompt);
      for (const chunk of [1, 5]) assert.deepEqual(await model.logits(prompt, { chunk }), whole);
      const last = whole.at(-1)!;
      const answer = await model.complete(prompt, { temperature: 0, maxTokens: 3, ignoreEos: true });
      assert.equal(answer.tokenIds[0], last.indexOf(Math.max(...last)));
      assert.equal(answer.promptTokens, whole.length);
    });
  });
}

describe("a session with images", async () => {
  const model = await loadModel(folder, { device: "cpu" });
  after(() => model[Symbol.dispose]());
  const prompt = (image: string, ...more: number[]) => ({
    prompt: [0, 35, 4, 24, 47, ...more],
    images: [media(image)],
  });
  const options = { temperature: 0, maxTokens: 2, ignoreEos: true };

  test("computes the same image once, and another one anew", async () => {
    using session = model.createSession();
    const first = await session.complete(prompt("rgb.png"), options);
    assert.equal(first.cachedTokens, 0);
    const computed = model.images!.computed;
    const same = await session.complete(prompt("rgb.png", 50, 51), options);
    assert.ok(same.cachedTokens >= first.promptTokens - 1, `${same.cachedTokens} of ${first.promptTokens}`);
    assert.equal(model.images!.computed, computed, "its rows were there");
    const other = await session.complete(prompt("grey.png", 50, 51), options);
    assert.equal(other.cachedTokens, 2, "what stands before the image");
    assert.equal(model.images!.computed, computed + 1);
    const alone = await model.complete(prompt("grey.png", 50, 51), options);
    assert.deepEqual(other.tokenIds, alone.tokenIds);
  });

  test("fits an image in another file of the same pixels to what was computed", async () => {
    using session = model.createSession();
    const file = media("plain.gif");
    const first = await session.complete({ prompt: [0, 4, 9], images: [file] }, options);
    const url = `data:image/png;base64,${Buffer.from(file).toString("base64")}`; // what it is called does not count
    const second = await session.complete({ prompt: [0, 4, 9, 10], images: [url] }, options);
    assert.ok(second.cachedTokens >= first.promptTokens - 1);
  });

  test("refuses as many images as the prompt has no places for", async () => {
    const wrong = { prompt: [0, 35], images: [media("rgb.png")] };
    await assert.rejects(model.complete(wrong), { name: "RequestError", code: "image-count" });
  });

  test("without a vision part refuses images", async () => {
    using text = await loadModel(folder, { device: "cpu", images: false });
    assert.equal(text.images, undefined);
    await assert.rejects(text.complete(prompt("rgb.png")), { name: "RequestError", code: "unsupported_image" });
    await assert.rejects(text.logits([2 ** 30 + 2 ** 29]), { code: "token-id" });
  });

  test("refuses tokens of an image that nobody gave", async () => {
    await assert.rejects(model.logits([0, ...contentIds("ab".repeat(32), 4)]), { code: "image-lost" });
  });
});
