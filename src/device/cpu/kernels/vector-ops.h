/* The ops on rows that are cheap, but in every layer: norms, gates, residual streams. */
#pragma once
#include "attention-ops.h"

enum { PIECE = 4096 }; /* elements of a unit */

#define FOR_PIECES(total)                                                                              \
  for (i64 unit, end; (unit = next_unit(w, ((total) + PIECE - 1) / PIECE)) >= 0 && (end = min_i64(total, (unit + 1) * PIECE), 1);)

/* 3 x, 4 weight or 0, 5 y, 6 rows, 7 width, 8 eps. Squares are summed in four vectors in turn, in float64 where float32 ends. */
static void op_rms_norm(const Command* c, Worker* w) {
  const float* weight = at(c, 4);
  const i64 width = whole(c, 7);
  for (i64 row; (row = next_unit(w, whole(c, 6))) >= 0;) {
    const float* x = (const float*)at(c, 3) + row * width;
    float* y = (float*)at(c, 5) + row * width;
    vf squares[4] = {vf_of(0), vf_of(0), vf_of(0), vf_of(0)};
    i64 i = 0;
    for (; i + 4 * LANES <= width; i += 4 * LANES)
      UNROLL for (int k = 0; k < 4; k++) {
        const vf value = load_vf(x + i + k * LANES);
        squares[k] = fma_vf(value, value, squares[k]);
      }
    double sum = sum_vf((squares[0] + squares[1]) + (squares[2] + squares[3]));
    if (sum > 0x1p127) i = 0, sum = 0;
    for (; i < width; i++) sum += (double)x[i] * (double)x[i];
    const float scale = (float)(1.0 / __builtin_sqrt(sum / (double)width + c->slot[8]));
    for (i64 k = 0; k < width; k += LANES) {
      const vf scaled = load_n(x + k, width - k) * vf_of(scale);
      store_n(y + k, weight ? scaled * load_n(weight + k, width - k) : scaled, width - k);
    }
  }
}

/* 3 gate, 4 up, 5 y, 6 elements, 7 limit */
static void op_swiglu(const Command* c, Worker* w) {
  const float *gate = at(c, 3), *up = at(c, 4), limit = number(c, 7);
  float* y = at(c, 5);
  FOR_PIECES(whole(c, 6))
  w->body->products->gate(gate + unit * PIECE, up + unit * PIECE, end - unit * PIECE, limit, y + unit * PIECE);
}

/* 3 x, 4 y, 5 rows, 6 width of y: silu of the first half times the second */
static void op_gated_halves(const Command* c, Worker* w) {
  const i64 width = whole(c, 6);
  for (i64 row; (row = next_unit(w, whole(c, 5))) >= 0;) {
    const float* gate = (const float*)at(c, 3) + row * 2 * width;
    w->body->products->gate(gate, gate + width, width, 0, (float*)at(c, 4) + row * width);
  }
}

/* 3 streams, 4 weights, 5 u, 6 tokens, 7 n, 8 width */
static void op_collapse_streams(const Command* c, Worker* w) {
  const i64 n = whole(c, 7), width = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;)
    w->body->products->mix_streams((const float*)at(c, 3) + t * n * width, n, width, 0, 0, (const float*)at(c, 4) + t * n, 1, (float*)at(c, 5) + t * width);
}

/* 3 streams, 4 y, 5 post, 6 mix, 7 next (may be the memory of the streams), 8 tokens, 9 n, 10 width */
static void op_expand_streams(const Command* c, Worker* w) {
  const i64 n = whole(c, 9), width = whole(c, 10);
  for (i64 t; (t = next_unit(w, whole(c, 8))) >= 0;)
    w->body->products->mix_streams((const float*)at(c, 3) + t * n * width, n, width, (const float*)at(c, 4) + t * width,
                                   (const float*)at(c, 5) + t * n, (const float*)at(c, 6) + t * n * n, n, (float*)at(c, 7) + t * n * width);
}
