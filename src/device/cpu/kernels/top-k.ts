/**
 * Kernel of `topK`: a heap of the k best so far whose root is the worst of them, so that n candidates cost n comparisons and
 * few of them more. Of equal scores the lower index is better.
 */
import type { Call } from "../../../tensor/op.ts";

export function topKKernel({
  inputs: [scores],
  outputs: [indices],
  inputShapes,
  attributes: { k },
}: Call<{ readonly k: number }>): void {
  const [rows, n] = inputShapes[0]!;
  const heap = new Int32Array(k);
  for (let row = 0; row < rows!; row++) {
    const start = row * n!;
    let size = 0;
    for (let i = 0; i < n!; i++) {
      const score = scores![start + i]!;
      if (!(score > Number.NEGATIVE_INFINITY)) continue;
      if (size < k) {
        heap[size] = i;
        siftUp(heap, size++, scores!, start);
      } else if (score > scores![start + heap[0]!]!) {
        heap[0] = i;
        siftDown(heap, size, scores!, start);
      }
    }
    const chosen = heap.subarray(0, size).slice().sort();
    for (let i = 0; i < k; i++) indices![row * k + i] = i < size ? chosen[i]! : -1;
  }
}

/** True if candidate a is worse than b: a lower score, or the same with a higher index. */
function worse(a: number, b: number, scores: ArrayLike<number>, start: number): boolean {
  const difference = scores[start + a]! - scores[start + b]!;
  return difference < 0 || (difference === 0 && a > b);
}

function siftUp(heap: Int32Array, from: number, scores: ArrayLike<number>, start: number): void {
  let child = from;
  while (child > 0) {
    const parent = (child - 1) >> 1;
    if (!worse(heap[child]!, heap[parent]!, scores, start)) return;
    swap(heap, child, parent);
    child = parent;
  }
}

function siftDown(heap: Int32Array, size: number, scores: ArrayLike<number>, start: number): void {
  let parent = 0;
  for (;;) {
    let worst = parent;
    for (const child of [2 * parent + 1, 2 * parent + 2]) {
      if (child < size && worse(heap[child]!, heap[worst]!, scores, start)) worst = child;
    }
    if (worst === parent) return;
    swap(heap, parent, worst);
    parent = worst;
  }
}

function swap(heap: Int32Array, a: number, b: number): void {
  const kept = heap[a]!;
  heap[a] = heap[b]!;
  heap[b] = kept;
}
