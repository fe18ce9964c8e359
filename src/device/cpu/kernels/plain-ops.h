/* Copies and the bookkeeping of routing: what no instruction set does much better than another. */
#pragma once
#include "vector-ops.h"

/* 3 scores, 4 chosen, 5 weights, 6 tokens, 7 experts, 8 k, 9 normalize, 10 factor */
void op_routing_weights(const Command* c, Worker* w) {
  const float* scores = at(c, 3);
  const i32* chosen = at(c, 4);
  float* weights = at(c, 5);
  const i64 experts = whole(c, 7), k = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;) {
    double sum = 1e-20, none = 0; /* NaN where a score is: it is never chosen, and must not be passed over in silence */
    for (i64 e = t * experts; e < (t + 1) * experts; e++) none += 0 * scores[e];
    for (i64 i = t * k; i < (t + 1) * k; i++)
      if (chosen[i] >= 0) sum += scores[t * experts + chosen[i]];
    for (i64 i = t * k; i < (t + 1) * k; i++) {
      const double score = chosen[i] < 0 ? 0 : scores[t * experts + chosen[i]];
      weights[i] = (float)(score / (whole(c, 9) ? sum : 1) * c->slot[10] + none);
    }
  }
}

/* 3 pool, 4 rows, 5 slots, 6 count, 7 width */
void op_write_rows(const Command* c, Worker* w) {
  const i32* slots = at(c, 5);
  const i64 width = whole(c, 7);
  for (i64 i; (i = next_unit(w, whole(c, 6))) >= 0;) {
    const float* from = (const float*)at(c, 4) + i * width;
    float* to = (float*)at(c, 3) + slots[i] * width;
    for (i64 k = 0; k < width; k++) to[k] = from[k];
  }
}

/* 3 table (of 4-byte elements), 4 index, 5 y, 6 count, 7 width */
void op_gather_rows(const Command* c, Worker* w) {
  const i32* index = at(c, 4);
  const i64 width = whole(c, 7);
  for (i64 i; (i = next_unit(w, whole(c, 6))) >= 0;) {
    const i32* from = (const i32*)at(c, 3) + index[i] * width;
    i32* to = (i32*)at(c, 5) + i * width;
    for (i64 k = 0; k < width; k++) to[k] = from[k];
  }
}

/* 3 x, 4 y, 5 tokens, 6 count, 7 width */
void op_repeat_streams(const Command* c, Worker* w) {
  const i64 count = whole(c, 6), width = whole(c, 7);
  for (i64 t; (t = next_unit(w, whole(c, 5))) >= 0;) {
    const float* x = (const float*)at(c, 3) + t * width;
    for (i64 i = 0; i < count; i++) {
      float* y = (float*)at(c, 4) + (t * count + i) * width;
      for (i64 k = 0; k < width; k++) y[k] = x[k];
    }
  }
}

/* 3 m, 4 base, 5 scale, 6 pre, 7 tokens, 8 n, 9 eps */
void op_hyper_connection_head(const Command* c, Worker* w) {
  const float *m = at(c, 3), *base = at(c, 4), *scale = at(c, 5);
  float* pre = at(c, 6);
  const i64 n = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 7))) >= 0;)
    for (i64 j = 0; j < n; j++)
      pre[t * n + j] = (float)(sigmoid((double)m[t * n + j] * (double)scale[0] + (double)base[j]) + c->slot[9]);
}

/*
 * Which tokens each expert has, written once a step: first[e] .. first[e + 1] are its pairs, in the order of the tokens; token[pair]
 * and weight[pair] say which token and how much. place[e] is the row of activations that its first pair has, where they lie
 * `together`: experts then begin at multiples of it.
 * 3 chosen, 4 weights, 5 tokens, 6 k, 7 experts, 8 first [experts + 1], 9 token, 10 weight, 11 place, 12 together,
 * 13 active: how many experts have any, then their numbers
 */
void op_experts_route(const Command* c, Worker* w) {
  if (next_unit(w, 1) < 0) return;
  const i32* chosen = at(c, 3);
  const float* weights = at(c, 4);
  const i64 pairs = whole(c, 5) * whole(c, 6), k = whole(c, 6), experts = whole(c, 7);
  i32 *first = at(c, 8), *token = at(c, 9), *place = at(c, 11);
  float* weight = at(c, 10);
  i32* active = at(c, 13);
  const i32 together = (i32)whole(c, 12);
  for (i64 e = 0; e <= experts; e++) first[e] = 0;
  for (i64 i = 0; i < pairs; i++)
    if (chosen[i] >= 0) first[chosen[i] + 1]++;
  for (i64 e = 0; e < experts; e++) first[e + 1] += first[e];
  for (i64 i = 0; i < pairs; i++) {
    if (chosen[i] < 0) continue;
    const i32 pair = first[chosen[i]]++; /* moves every start to the next one's; undone below */
    token[pair] = (i32)(i / k);
    weight[pair] = weights[i];
  }
  for (i64 e = experts; e > 0; e--) first[e] = first[e - 1];
  first[0] = 0;
  place[0] = 0;
  for (i64 e = 1; e < experts; e++) place[e] = place[e - 1] + (first[e] - first[e - 1] + together - 1) / together * together;
  active[0] = 0;
  for (i64 e = 0; e < experts; e++)
    if (first[e + 1] > first[e]) active[++active[0]] = (i32)e;
}
