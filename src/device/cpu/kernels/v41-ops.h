/* Ops that only DeepSeek V4.1 has: streams with fixed weights, the candidate pool, the n-gram memory, the bias of image tokens. */
#pragma once
#include "top-k.h"
#include "vector-ops.h"

/* 3 streams, 4 weights (float64), 5 u, 6 tokens, 7 n, 8 width */
static void op_combine_streams(const Command* c, Worker* w) {
  const double* weights = at(c, 4);
  const i64 n = whole(c, 7), width = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;) {
    const float* streams = (const float*)at(c, 3) + t * n * width;
    float* u = (float*)at(c, 5) + t * width;
    for (i64 i = 0; i < width; i += LANES) {
      vf sum = vf_of(0);
      for (i64 j = 0; j < n; j++) sum = fma_vf(vf_of((float)weights[j]), load_n(streams + j * width + i, width - i), sum);
      store_n(u + i, sum, width - i);
    }
  }
}

/* The rank of the greatest score in a block of entries; the newest block is above all others. */
static inline u32 rank_of_block(const float* row, i64 block, i64 size, i64 newest) {
  u32 best = 0;
  if (block == newest) return 0xffffffffu;
  for (i64 i = block * size; i < (block + 1) * size; i++) {
    const u32 rank = rank_of(row[i]);
    best = rank > best ? rank : best;
  }
  return best;
}

/*
 * As topK, over blocks: their ranks are found again in each pass rather than kept, for a long context has many of them.
 * 3 scores, 4 positions, 5 blocks, 6 tokens, 7 columns, 8 ratio, 9 size of a block, 10 blocks that are chosen
 */
static void op_candidate_blocks(const Command* c, Worker* w) {
  const i32* positions = at(c, 4);
  const i64 columns = whole(c, 7), size = whole(c, 9), k = whole(c, 10);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;) {
    const float* row = (const float*)at(c, 3) + t * columns;
    i32* blocks = (i32*)at(c, 5) + t * k;
    const i64 visible = (positions[t] + 1) / whole(c, 8), total = (visible + size - 1) / size, newest = total - 1;
    u32 prefix = 0, mask = 0;
    i64 wanted = k, count = 0;
    for (int shift = 24; total > k && shift >= 0; shift -= 8) {
      u32 counts[256] = {0};
      for (i64 b = 0; b < total; b++) {
        const u32 rank = rank_of_block(row, b, size, newest);
        if ((rank & mask) == prefix) counts[rank >> shift & 255]++;
      }
      u32 digit = 255;
      for (; counts[digit] < wanted; digit--) wanted -= counts[digit];
      prefix |= digit << shift;
      mask |= 255u << shift;
    }
    for (i64 b = 0; b < total && count < k; b++) {
      const u32 rank = total > k ? rank_of_block(row, b, size, newest) : 1;
      if (rank > prefix || (rank == prefix && wanted-- > 0)) blocks[count++] = (i32)b;
    }
    for (; count < k; count++) blocks[count] = -1;
  }
}

/*
 * 3 streams, 4 projected, 5 query weight, 6 key weight, 7 token ids, 8 y, 9 tokens, 10 n, 11 width, 12 eps, 13 token id whose gate is shut
 * A unit is a stream of a token.
 */
static void op_engram_update(const Command* c, Worker* w) {
  const i32* ids = at(c, 7);
  const i64 tokens = whole(c, 9), n = whole(c, 10), width = whole(c, 11);
  const double eps = c->slot[12];
  for (i64 unit; (unit = next_unit(w, tokens * n)) >= 0;) {
    const i64 t = unit / n, j = unit % n;
    const float *x = (const float*)at(c, 3) + unit * width, *keys = (const float*)at(c, 4) + t * (n + 1) * width;
    const float *key = keys + j * width, *value = keys + n * width;
    const float *query_weight = (const float*)at(c, 5) + j * width, *key_weight = (const float*)at(c, 6) + j * width;
    float* y = (float*)at(c, 8) + unit * width;
    vf products = vf_of(0), of_stream = vf_of(0), of_key = vf_of(0);
    for (i64 i = 0; i < width; i += LANES) {
      const vf xs = load_n(x + i, width - i), ks = load_n(key + i, width - i);
      products = fma_vf(xs * load_n(query_weight + i, width - i), ks * load_n(key_weight + i, width - i), products);
      of_stream = fma_vf(xs, xs, of_stream);
      of_key = fma_vf(ks, ks, of_key);
    }
    const double stream_rms = __builtin_sqrt(sum_vf(of_stream) / (double)width + eps);
    const double key_rms = __builtin_sqrt(sum_vf(of_key) / (double)width + eps);
    const double dot = sum_vf(products) / (__builtin_sqrt((double)width) * stream_rms * key_rms);
    const double magnitude = dot < 0 ? -dot : dot, strength = __builtin_sqrt(magnitude < 1e-6 ? 1e-6 : magnitude);
    const float gate = ids[t] == whole(c, 13) ? 0 : (float)sigmoid(dot < 0 ? -strength : strength);
    for (i64 i = 0; i < width; i += LANES)
      store_n(y + i, fma_vf(vf_of(gate), load_n(value + i, width - i), load_n(x + i, width - i)), width - i);
  }
}

/* 3 scores, 4 bias, 5 bias of image tokens, 6 token ids, 7 y, 8 tokens, 9 experts, 10 id of image tokens */
static void op_add_bias_of_token(const Command* c, Worker* w) {
  const i32* ids = at(c, 6);
  const i64 experts = whole(c, 9);
  for (i64 t; (t = next_unit(w, whole(c, 8))) >= 0;) {
    const float *scores = (const float*)at(c, 3) + t * experts, *bias = at(c, ids[t] == whole(c, 10) ? 5 : 4);
    float* y = (float*)at(c, 7) + t * experts;
    for (i64 e = 0; e < experts; e++) y[e] = scores[e] + bias[e];
  }
}

/* 3 a, 4 b, 5 y, 6 rows, 7 columns of a, 8 columns of b */
static void op_join_columns(const Command* c, Worker* w) {
  const i64 first = whole(c, 7), second = whole(c, 8);
  for (i64 row; (row = next_unit(w, whole(c, 6))) >= 0;) {
    const float *a = (const float*)at(c, 3) + row * first, *b = (const float*)at(c, 4) + row * second;
    float* y = (float*)at(c, 5) + row * (first + second);
    for (i64 i = 0; i < first; i++) y[i] = a[i];
    for (i64 i = 0; i < second; i++) y[first + i] = b[i];
  }
}
