/**
 * The candidate pool of a query: the best blocks of `blockSize` neighbouring entries, by the greatest score inside (DeepSeek V4.1)
 *   scores [tokens, visible], positions [tokens] (i32) -> blocks [tokens, topBlocks] (i32, rising, padded with -1)
 * Only blocks with an entry that the query sees can be chosen, entries w < floor((t + 1) / ratio); the block of the newest of
 * them always is. Of equal blocks the lower is taken first.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface CandidateAttributes {
  readonly ratio: number;
  readonly blockSize: number;
  readonly topBlocks: number;
}

export const candidateBlocks = defineOp<CandidateAttributes>({
  name: "candidateBlocks",
  infer([scores, positions], { topBlocks }) {
    requireShape("candidateBlocks: positions", positions!.shape, [scores!.shape[0]!]);
    return [{ dtype: "i32", shape: [scores!.shape[0]!, topBlocks] }];
  },
  reference({ inputs: [scores, positions], outputs: [blocks], inputShapes, attributes }) {
    const { ratio, blockSize, topBlocks } = attributes;
    const [tokens, columns] = inputShapes[0]!;
    for (let t = 0; t < tokens!; t++) {
      const visible = Math.floor((positions![t]! + 1) / ratio);
      const newest = Math.floor((visible - 1) / blockSize);
      const best = Array.from({ length: newest + 1 }, (_, block) => {
        if (block === newest) return Number.POSITIVE_INFINITY;
        const begin = t * columns! + block * blockSize;
        return Math.max(...scores!.subarray(begin, begin + blockSize));
      });
      const order = best.map((_, block) => block).sort((a, b) => best[b]! - best[a]! || a - b);
      const chosen = order.slice(0, topBlocks).sort((a, b) => a - b);
      for (let i = 0; i < topBlocks; i++) blocks![t * topBlocks + i] = chosen.at(i) ?? -1;
    }
  },
  tolerance: 0, // a set of integers
  cases: () => {
    const positions = integerTensor([4], [0, 19, 38, 29]);
    const scores = randomTensor([4, 40], 1);
    const tied = { ...randomTensor([2, 20], 2), values: Array.from({ length: 40 }, (_, i) => (i % 7 < 3 ? 1 : 0.5)) };
    return [
      {
        name: "entries of one token",
        inputs: [scores, positions],
        attributes: { ratio: 1, blockSize: 4, topBlocks: 3 },
      },
      { name: "entries of two", inputs: [scores, positions], attributes: { ratio: 2, blockSize: 3, topBlocks: 2 } },
      { name: "fewer than wanted", inputs: [scores, positions], attributes: { ratio: 1, blockSize: 8, topBlocks: 9 } },
      {
        name: "ties",
        inputs: [tied, integerTensor([2], [18, 19])],
        attributes: { ratio: 1, blockSize: 2, topBlocks: 4 },
      },
    ];
  },
});
