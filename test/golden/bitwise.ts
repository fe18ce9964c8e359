/**
 * What every model promises: neither chunking, nor batching, nor winding back, nor forking changes a bit of the logits. And the
 * comparison with recorded values.
 */
import assert from "node:assert/strict";
import type { ModelRunner, Sequence } from "../../src/engine/model-runner.ts";

export interface Subject {
  readonly prompts: readonly (readonly number[])[];
  runner(stepTokens: number): ModelRunner;
}

/** Longer than any prompt of the recorded cases. */
export const oneStep = 512;

/** The logits of all positions. */
export function prefill(subject: Subject, ids: readonly number[], stepTokens: number): Promise<Float32Array[]> {
  const runner = subject.runner(stepTokens);
  return runner.append({ sequence: runner.createSequence(), tokenIds: ids, outputs: ids.length });
}

export async function checkChunks(subject: Subject, chunk: number): Promise<void> {
  for (const ids of subject.prompts) {
    const whole = await prefill(subject, ids, oneStep);
    assertSame(await prefill(subject, ids, chunk), whole);
  }
}

/** Two or three sequences in one step, cut at odd places, each against itself alone. */
export async function checkRagged(subject: Subject): Promise<void> {
  const [first] = subject.prompts;
  const inputs =
    subject.prompts.length > 1 ? subject.prompts : [first!, first!.slice(5), first!.slice(0, 40).reverse()];
  const alone: Float32Array[][] = [];
  for (const ids of inputs) alone.push(await prefill(subject, ids, oneStep));
  const runner = subject.runner(oneStep);
  const sequences = inputs.map(() => runner.createSequence());
  const rows = inputs.map((): Float32Array[] => []);
  for (let round = 0; rows.some((done, s) => done.length < inputs[s]!.length); round++) {
    const batch = sequences
      .map((sequence, s) => ({
        s,
        sequence,
        tokenIds: inputs[s]!.slice(rows[s]!.length).slice(0, 1 + ((round * 13 + s * 7) % 37)),
      }))
      .filter(({ tokenIds }) => tokenIds.length > 0);
    const logits = await runner.step(batch.map((part) => ({ ...part, outputs: part.tokenIds.length })));
    batch.forEach(({ s }, i) => {
      rows[s]!.push(...logits[i]!);
    });
  }
  rows.forEach((found, s) => {
    assertSame(found, alone[s]!);
  });
}

export async function checkRewindAndFork(subject: Subject): Promise<void> {
  const ids = subject.prompts[0]!;
  const whole = await prefill(subject, ids, oneStep);
  const runner = subject.runner(oneStep);
  const sequence = runner.createSequence();
  const half = Math.floor(ids.length / 2);
  const append = (to: Sequence, from: number, end: number) =>
    runner.append({ sequence: to, tokenIds: ids.slice(from, end), outputs: end - from });

  // Wrong tokens beyond the half, wound back; by more than the margin in the second round.
  for (const wrong of [9, 100]) {
    sequence.rewind(sequence.length);
    await append(sequence, 0, half);
    const fork = sequence.fork();
    await runner.append({ sequence, tokenIds: ids.slice(0, wrong).reverse(), outputs: 0 });
    sequence.rewind(Math.min(wrong, sequence.length - half));
    assertSame(await append(sequence, half, ids.length), whole.slice(half));
    // The fork saw nothing of it.
    assertSame(await append(fork, half, ids.length), whole.slice(half));
    fork[Symbol.dispose]();
  }
}

export function assertClose(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  where: string,
  tolerance: number,
): void {
  assert.equal(found.length, expected.length, `${where}: number of values`);
  let worst = { error: 0, index: 0 };
  for (let i = 0; i < expected.length; i++) {
    // Equal infinities differ by NaN.
    const error = Object.is(found[i], expected[i]) ? 0 : Math.abs(found[i]! - expected[i]!);
    if (!(error <= worst.error)) worst = { error, index: i };
  }
  const { index } = worst;
  assert.ok(worst.error <= tolerance, `${where}, element ${index}: ${found[index]}, expected ${expected[index]}`);
}

function assertSame(found: readonly Float32Array[], expected: readonly Float32Array[]): void {
  assert.equal(found.length, expected.length);
  found.forEach((row, p) => {
    for (let i = 0; i < row.length; i++)
      assert.ok(Object.is(row[i], expected[p]![i]), `position ${p}, token ${i} differs`);
  });
}
