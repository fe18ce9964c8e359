/* Softmax over keys that come in blocks, and the sum of their values by it. */
#pragma once
#include "elementary.h"
#include "product.h"

enum { KEY_BLOCK = 128, HEADS_TOGETHER = 4 };

/* sum[h][c] = sum[h][c] * factor[h] + weights[h][key] * rows[key][c], keys in order */
static void add_weighted_rows(float* sum, const float* factor, const float* weights, i64 heads, const float* const* rows, i64 keys, i64 width) {
  for (i64 h = 0; h < heads; h += HEADS_TOGETHER) {
    const i64 n = min_i64(HEADS_TOGETHER, heads - h);
    for (i64 c = 0; c < width; c += 2 * LANES) {
      const i64 left = width - c, second = left - LANES;
      vf low[HEADS_TOGETHER], high[HEADS_TOGETHER];
      for (i64 i = 0; i < HEADS_TOGETHER; i++) {
        const i64 row = (h + min_i64(i, n - 1)) * width + c;
        low[i] = load_n(sum + row, left) * vf_of(factor[h + min_i64(i, n - 1)]);
        high[i] = second > 0 ? load_n(sum + row + LANES, second) * vf_of(factor[h + min_i64(i, n - 1)]) : vf_of(0);
      }
      if (second >= LANES && n == HEADS_TOGETHER) {
        const float* weight = weights + h * KEY_BLOCK;
        for (i64 key = 0; key < keys; key++) {
          const vf a = load_vf(rows[key] + c), b = load_vf(rows[key] + c + LANES);
UNROLL
          for (int i = 0; i < HEADS_TOGETHER; i++) {
            const vf by = vf_of(weight[i * KEY_BLOCK + key]);
            low[i] = fma_vf(by, a, low[i]);
            high[i] = fma_vf(by, b, high[i]);
          }
        }
      } else {
        for (i64 key = 0; key < keys; key++) {
          const vf a = load_n(rows[key] + c, left), b = second > 0 ? load_n(rows[key] + c + LANES, second) : vf_of(0);
          for (i64 i = 0; i < n; i++) {
            const vf by = vf_of(weights[(h + i) * KEY_BLOCK + key]);
            low[i] = fma_vf(by, a, low[i]);
            high[i] = fma_vf(by, b, high[i]);
          }
        }
      }
      for (i64 i = 0; i < n; i++) {
        store_n(sum + (h + i) * width + c, low[i], left);
        if (second > 0) store_n(sum + (h + i) * width + c + LANES, high[i], second);
      }
    }
  }
}

/* The greatest of `count` numbers and `least`. */
static inline float greatest_of(const float* x, i64 count, float least) {
  vf most = vf_of(least);
  i64 i = 0;
  for (; i + LANES <= count; i += LANES) most = max_vf(load_vf(x + i), most);
  float lane[LANES];
  store_vf(lane, most);
  for (int k = 0; k < LANES; k++) least = lane[k] > least ? lane[k] : least;
  for (; i < count; i++) least = x[i] > least ? x[i] : least;
  return least;
}

/*
 * Softmax over keys that come in blocks, for n queries: what was summed is scaled down when a greater logit comes
 * (Dao et al. 2022, arXiv 2205.14135), so that scratch does not grow with the context.
 */
struct Softmax {
  float *logits;         /* [n][KEY_BLOCK] */
  float *largest;        /* [n], of the logits so far; where it starts is the caller's choice */
  float *total, *factor; /* [n]: the sum of all exp(logit - largest), and what the last block scaled it by */
  float *sums;           /* [n][width] weighted rows */
};

/* `scratch` divided for n queries; the sums lie behind everything else. */
static inline Softmax softmax_in(float (*acc)[TILE], i64 n) {
  float *logits = (float*)(acc + n), *largest = logits + n * KEY_BLOCK;
  return (Softmax){logits, largest, largest + n, largest + 2 * n, largest + 3 * n};
}

/* Adds at most KEY_BLOCK keys: rows[i] is the value of key i, the key itself lies `before` floats in front of it. */
static void add_keys(const Softmax* s, i64 n, const float* const* rows, i64 before, i64 count, i64 width, const Activations* queries,
                     TileScratch* scratch) {
  float(*acc)[TILE] = scratch->acc;
  const vf scale = vf_of((float)(1.0 / __builtin_sqrt((double)width)));
  for (i64 first = 0; first < count; first += TILE) {
    const u8* tile[TILE];
    for (i64 r = 0; r < TILE; r++) tile[r] = (const u8*)(rows[min_i64(first + r, count - 1)] - before);
    product_of_cache_rows(tile, width, queries, n, acc, &scratch->panel);
    for (i64 q = 0; q < n; q++) FOR_VECTORS store_vf(s->logits + q * KEY_BLOCK + first + v, load_vf(&acc[q][v]) * scale);
  }
  for (i64 q = 0; q < n; q++) {
    float* row = s->logits + q * KEY_BLOCK;
    const float most = greatest_of(row, count, s->largest[q]);
    s->factor[q] = exp_vf(vf_of(s->largest[q] - most))[0]; /* 0 at the first block of a softmax that starts at -Infinity */
    s->largest[q] = most;
    vf sum = vf_of(0);
    for (i64 i = 0; i < count; i += LANES) {
      vf weight = exp_vf(load_vf(row + i) - vf_of(most));
      for (i64 lane = count - i; lane < LANES; lane++) weight[lane] = 0;
      store_vf(row + i, weight);
      sum += weight;
    }
    s->total[q] = s->total[q] * s->factor[q] + sum_vf(sum);
  }
  add_weighted_rows(s->sums, s->factor, s->logits, n, rows, count, width);
}
