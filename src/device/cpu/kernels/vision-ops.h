/* The ops of images: rotation in two dimensions, attention without a mask, what joins patches into cells, and rows into a text. */
#pragma once
#include "vector-ops.h"

/* 3 x, 4 positions [tokens][2], 5 y, 6 tokens, 7 heads, 8 width, 9 frequencies (float64), 10 their number, 11 rotated heads */
static void op_axial_rope(const Command* c, Worker* w) {
  const i32* positions = at(c, 4);
  const i64 heads = whole(c, 7), width = whole(c, 8), count = whole(c, 10), rotated = whole(c, 11), half = width / 2;
  const double* frequencies = at(c, 9);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;) {
    const float* x = (const float*)at(c, 3) + t * heads * width;
    float* y = (float*)at(c, 5) + t * heads * width;
    if (y != x)
      for (i64 i = 0; i < heads * width; i++) y[i] = x[i];
    for (i64 a = 0; a < half; a++) {
      double sine, cosine;
      sincos_f64(a < count ? positions[2 * t] * frequencies[a] : positions[2 * t + 1] * frequencies[a - count], &sine, &cosine);
      const float s = (float)sine, k = (float)cosine;
      for (i64 h = 0; h < rotated; h++) {
        float* pair = y + h * width + a;
        const float first = pair[0], second = pair[half];
        pair[0] = first * k - second * s;
        pair[half] = second * k + first * s;
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

/* Queries of a unit: keys are unpacked once for all of them. See src/device/cpu/vision-slots.ts. */
enum { FULL_QUERIES = 64 };

/*
 * A unit is 64 queries of one head. Keys come in blocks of 128, a running maximum for each query, as in op_sparse_attention.
 * 3 qkv [tokens][3][heads][width], 4 output [tokens][heads][width], 5 tokens, 6 heads, 7 width
 */
static void op_full_attention(const Command* c, Worker* w) {
  const i64 tokens = whole(c, 5), heads = whole(c, 6), width = whole(c, 7), stride = 3 * heads * width;
  const i64 parts = (tokens + FULL_QUERIES - 1) / FULL_QUERIES;
  const float* qkv = at(c, 3);
  float* output = at(c, 4);
  const vf scale = vf_of((float)(1.0 / __builtin_sqrt((double)width)));
  TileScratch* scratch = (TileScratch*)w->scratch;
  float(*acc)[TILE] = scratch->acc, *logits = (float*)(acc + FULL_QUERIES), *largest = logits + FULL_QUERIES * KEY_BLOCK;
  float *total = largest + FULL_QUERIES, *factor = total + FULL_QUERIES, *sums = factor + FULL_QUERIES;
  Activations x = {.floats = qkv, .stride = stride, .together = 1};
  for (i64 unit; (unit = next_unit(w, heads * parts)) >= 0;) {
    const i64 h = unit / parts, t0 = unit % parts * FULL_QUERIES, n = min_i64(FULL_QUERIES, tokens - t0);
    const float *keys = qkv + (heads + h) * width, *values = keys + heads * width;
    x.first_row = t0;
    x.first_column = h * width;
    for (i64 q = 0; q < n; q++) largest[q] = -__builtin_inff(), total[q] = 0;
    for (i64 i = 0; i < n * width; i++) sums[i] = 0;
    for (i64 first = 0; first < tokens; first += KEY_BLOCK) {
      const i64 count = min_i64(KEY_BLOCK, tokens - first);
      const float* rows[KEY_BLOCK];
      for (i64 i = 0; i < count; i++) rows[i] = values + (first + i) * stride;
      for (i64 k = 0; k < count; k += TILE) {
        const u8* tile[TILE];
        for (i64 r = 0; r < TILE; r++) tile[r] = (const u8*)(keys + (first + min_i64(k + r, count - 1)) * stride);
        product_of_cache_rows(tile, width, &x, n, acc, &scratch->panel);
        for (i64 q = 0; q < n; q++) FOR_VECTORS store_vf(logits + q * KEY_BLOCK + k + v, load_vf(&acc[q][v]) * scale);
      }
      for (i64 q = 0; q < n; q++) {
        float* row = logits + q * KEY_BLOCK;
        const float most = greatest_of(row, count, largest[q]);
        factor[q] = exp_vf(vf_of(largest[q] - most))[0]; /* 0 at the first block */
        largest[q] = most;
        vf sum = vf_of(0);
        for (i64 i = 0; i < count; i += LANES) {
          vf weight = exp_vf(load_vf(row + i) - vf_of(most));
          for (i64 lane = count - i; lane < LANES; lane++) weight[lane] = 0;
          store_vf(row + i, weight);
          sum += weight;
        }
        total[q] = total[q] * factor[q] + sum_vf(sum);
      }
      add_weighted_rows(sums, factor, logits, n, rows, count, width);
    }
    for (i64 q = 0; q < n; q++)
      for (i64 i = 0; i < width; i++) output[((t0 + q) * heads + h) * width + i] = sums[q * width + i] / total[q];
  }
}

/* 3 x, 4 y, 5 rows, 6 width of y: silu of the first half times the second */
static void op_gated_halves(const Command* c, Worker* w) {
  const i64 width = whole(c, 6);
  for (i64 row; (row = next_unit(w, whole(c, 5))) >= 0;) {
    const float *gate = (const float*)at(c, 3) + row * 2 * width, *up = gate + width;
    float* y = (float*)at(c, 4) + row * width;
    for (i64 i = 0; i < width; i += LANES) store_n(y + i, gated(load_n(gate + i, width - i), load_n(up + i, width - i), 0), width - i);
  }
}

/* The error function by its series with positive terms only; beyond 6 it is 1 in float64. See src/tensor/ops/gelu.ts. */
static inline double erf_f64(double x) {
  const double a = x < 0 ? -x : x, sign = x < 0 ? -1 : 1, twice = 2 * a * a;
  if (!(a <= 6)) return a > 6 ? sign : x;
  double term = a, sum = a;
  for (i64 n = 1; term > 1e-17 * sum; n++) {
    term *= twice / (double)(2 * n + 1);
    sum += term;
  }
  return sign * 1.1283791670955126 * exp_f64(-a * a) * sum; /* 2 / sqrt(pi) */
}

/* 3 x, 4 y, 5 elements */
static void op_gelu(const Command* c, Worker* w) {
  const float* x = at(c, 3);
  float* y = at(c, 4);
  FOR_PIECES(whole(c, 5)) for (i64 i = unit * PIECE; i < end; i++) y[i] = (float)(0.5 * x[i] * (1 + erf_f64(x[i] * 0.7071067811865476)));
}

/* 3 x, 4 members, 5 y, 6 cells, 7 width, 8 k */
static void op_gather_cells(const Command* c, Worker* w) {
  const i64 width = whole(c, 7), k = whole(c, 8);
  for (i64 cell; (cell = next_unit(w, whole(c, 6))) >= 0;) {
    const i32* members = (const i32*)at(c, 4) + cell * k;
    float* y = (float*)at(c, 5) + cell * width * k;
    for (i64 i = 0; i < k; i++) {
      const float* x = (const float*)at(c, 3) + members[i] * width;
      for (i64 channel = 0; channel < width; channel++) y[channel * k + i] = members[i] < 0 ? 0 : x[channel];
    }
  }
}

/* 3 cells, 4 start, 5 newline, 6 end, 7 layout, 8 y, 9 rows, 10 width */
static void op_image_span(const Command* c, Worker* w) {
  const i32* layout = at(c, 7);
  const i64 width = whole(c, 10);
  for (i64 row; (row = next_unit(w, whole(c, 9))) >= 0;) {
    const i64 entry = layout[row];
    const float* from = entry < 0 ? at(c, 3 - (int)entry) : (const float*)at(c, 3) + entry * width;
    float* y = (float*)at(c, 8) + row * width;
    for (i64 i = 0; i < width; i++) y[i] = from[i];
  }
}

/* 3 x, 4 rows, 5 row of each token or -1, 6 y, 7 tokens, 8 width; y may be x */
static void op_place_rows(const Command* c, Worker* w) {
  const i32* row_of = at(c, 5);
  const i64 width = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 7))) >= 0;) {
    const float* from = row_of[t] < 0 ? (const float*)at(c, 3) + t * width : (const float*)at(c, 4) + row_of[t] * width;
    float* y = (float*)at(c, 6) + t * width;
    if (y != from)
      for (i64 i = 0; i < width; i++) y[i] = from[i];
  }
}
