/* The ops of images: rotation in two dimensions, what joins patches into cells, and rows into a text (attention without a mask is in attention-ops.h). */
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
