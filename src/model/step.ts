/**
 * The inputs that every step brings: which tokens, at which position of which sequence, and which rows of the caches they
 * touch. A step is a ragged batch: tokens of several sequences stand one after another, each sequence in rising positions.
 */
import type { Graph, Tensor } from "../tensor/graph.ts";

export interface Step {
  /** [tokens] i32. */
  readonly tokenIds: Tensor;
  /** [tokens] i32, the first token of a sequence is at 0. */
  readonly positions: Tensor;
  /** [tokens] i32, the sequence of the step that the token belongs to. */
  readonly sequences: Tensor;
  /** Positions are computed one token late, when the next token is known. */
  readonly isLate?: boolean;
}

export function stepInputs(g: Graph): Step {
  return {
    tokenIds: g.input("tokenIds", "i32", ["tokens"]),
    positions: g.input("positions", "i32", ["tokens"]),
    sequences: g.input("sequences", "i32", ["tokens"]),
  };
}

/** The groups of `ratio` tokens whose last token is in this step. */
export interface ClosedGroups {
  /** [closed] i32, the sequence of the step. */
  readonly sequences: Tensor;
  /** [closed] i32, the number of the group in its sequence. */
  readonly entries: Tensor;
  /** [closed] i32, position of the group's FIRST token: what its entry is rotated by. */
  readonly positions: Tensor;
}

export function closedGroups(g: Graph, ratio: number): ClosedGroups {
  const input = (name: string) => g.input(`closed.${ratio}.${name}`, "i32", [`closed.${ratio}`]);
  return { sequences: input("sequences"), entries: input("entries"), positions: input("positions") };
}
