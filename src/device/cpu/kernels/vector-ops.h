/* The ops that are cheap, but in every layer: norms, rotation, sums, scores of the router, hyper-connections. */
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
    /* two loops: of one with a choice inside the compiler makes masked loads from address 0, which cost hundreds of cycles each */
    if (weight)
      for (i64 k = 0; k < width; k++) y[k] = x[k] * scale * weight[k];
    else
      for (i64 k = 0; k < width; k++) y[k] = x[k] * scale;
  }
}

/* 3 x, 4 positions, 5 y, 6 rows, 7 heads, 8 width, 9 frequencies (float64), 10 pairs, 11 inverse */
static void op_rope(const Command* c, Worker* w) {
  const i32* positions = at(c, 4);
  const i64 heads = whole(c, 7), width = whole(c, 8), pairs = whole(c, 10), unrotated = width - 2 * pairs;
  const double *frequencies = at(c, 9), sign = whole(c, 11) ? -1 : 1;
  for (i64 row; (row = next_unit(w, whole(c, 6))) >= 0;) {
    const float* x = (const float*)at(c, 3) + row * heads * width;
    float* y = (float*)at(c, 5) + row * heads * width;
    if (y != x)
      for (i64 i = 0; i < heads * width; i++) y[i] = x[i];
    for (i64 pair = 0; pair < pairs; pair++) {
      double sine, cosine;
      sincos_f64(positions[row] * frequencies[pair] * sign, &sine, &cosine);
      const float s = (float)sine, k = (float)cosine;
      for (i64 h = 0; h < heads; h++) {
        float* at = y + h * width + unrotated + 2 * pair;
        const float even = at[0], odd = at[1];
        at[0] = even * k - odd * s;
        at[1] = odd * k + even * s;
      }
    }
  }
}

/* 3 a, 4 b, 5 y, 6 elements, 7 period of b */
static void op_add(const Command* c, Worker* w) {
  const float *a = at(c, 3), *b = at(c, 4);
  float* y = at(c, 5);
  const i64 total = whole(c, 6), period = whole(c, 7);
  FOR_PIECES(total) {
    if (period == total)
      for (i64 i = unit * PIECE; i < end; i++) y[i] = a[i] + b[i];
    else
      for (i64 i = unit * PIECE, j = i % period; i < end; i++) {
        y[i] = a[i] + b[j];
        if (++j == period) j = 0;
      }
  }
}

/* 3 x, 4 y, 5 elements, 6 factor */
static void op_scale(const Command* c, Worker* w) {
  const float *x = at(c, 3), factor = number(c, 6);
  float* y = at(c, 4);
  FOR_PIECES(whole(c, 5)) for (i64 i = unit * PIECE; i < end; i++) y[i] = factor * x[i];
}

/* 3 gate, 4 up, 5 y, 6 elements, 7 limit */
static void op_swiglu(const Command* c, Worker* w) {
  const float *gate = at(c, 3), *up = at(c, 4), limit = number(c, 7);
  float* y = at(c, 5);
  FOR_PIECES(whole(c, 6))
  for (i64 i = unit * PIECE; i < end; i += LANES) store_n(y + i, gated(load_n(gate + i, end - i), load_n(up + i, end - i), limit), end - i);
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

/* 3 logits, 4 scores, 5 elements: sqrt(softplus) */
static void op_router_scores(const Command* c, Worker* w) {
  const float* logits = at(c, 3);
  float* scores = at(c, 4);
  FOR_PIECES(whole(c, 5)) for (i64 i = unit * PIECE; i < end; i++) {
    const double x = logits[i];
    scores[i] = (float)__builtin_sqrt(x > 20 ? x : log1p_f64(exp_f64(x)));
  }
}

enum { MOST_STREAMS = 16 }; /* mostStreams of hyper-connection-coefficients.ts, which refuses more */

/* 3 streams, 4 weights, 5 u, 6 tokens, 7 n, 8 width */
static void op_collapse_streams(const Command* c, Worker* w) {
  const i64 n = whole(c, 7), width = whole(c, 8);
  for (i64 t; (t = next_unit(w, whole(c, 6))) >= 0;) {
    const float *streams = (const float*)at(c, 3) + t * n * width, *weights = (const float*)at(c, 4) + t * n;
    float* u = (float*)at(c, 5) + t * width;
    for (i64 i = 0; i < width; i += LANES) {
      vf sum = vf_of(0);
      for (i64 j = 0; j < n; j++) sum = fma_vf(vf_of(weights[j]), load_n(streams + j * width + i, width - i), sum);
      store_n(u + i, sum, width - i);
    }
  }
}

/* 3 streams, 4 y, 5 post, 6 mix, 7 next (may be the memory of the streams), 8 tokens, 9 n, 10 width */
static void op_expand_streams(const Command* c, Worker* w) {
  const i64 n = whole(c, 9), width = whole(c, 10);
  for (i64 t; (t = next_unit(w, whole(c, 8))) >= 0;) {
    const float *streams = (const float*)at(c, 3) + t * n * width, *y = (const float*)at(c, 4) + t * width;
    const float *post = (const float*)at(c, 5) + t * n, *mix = (const float*)at(c, 6) + t * n * n;
    float* next = (float*)at(c, 7) + t * n * width;
    for (i64 i = 0; i < width; i += LANES) {
      vf old[MOST_STREAMS];
      for (i64 j = 0; j < n; j++) old[j] = load_n(streams + j * width + i, width - i);
      const vf added = load_n(y + i, width - i);
      for (i64 k = 0; k < n; k++) {
        vf sum = vf_of(post[k]) * added;
        for (i64 j = 0; j < n; j++) sum = fma_vf(vf_of(mix[j * n + k]), old[j], sum);
        store_n(next + k * width + i, sum, width - i);
      }
    }
  }
}

static inline double sigmoid(double x) { return 1 / (1 + exp_f64(-x)); }

/* Before a loop of a few turns, of which there are too few for vectors. */
#define FEW _Pragma("clang loop vectorize(disable)")

/* Sinkhorn's iteration in float64. 3 m, 4 base, 5 scale, 6 pre, 7 post, 8 mix, 9 tokens, 10 n, 11 iterations, 12 eps */
static void op_hyper_connection_coefficients(const Command* c, Worker* w) {
  const float *base = at(c, 4), *scale = at(c, 5);
  const i64 n = whole(c, 10), width = (2 + n) * n;
  const double eps = c->slot[12];
  for (i64 t; (t = next_unit(w, whole(c, 9))) >= 0;) {
    const float* m = (const float*)at(c, 3) + t * width;
    float *pre = (float*)at(c, 6) + t * n, *post = (float*)at(c, 7) + t * n, *mix = (float*)at(c, 8) + t * n * n;
    double x[MOST_STREAMS * MOST_STREAMS];
#define VALUE(i, s) ((double)m[i] * (double)scale[s] + (double)base[i])
    FEW for (i64 j = 0; j < n; j++) {
      pre[j] = (float)(sigmoid(VALUE(j, 0)) + eps);
      post[j] = (float)(2 * sigmoid(VALUE(n + j, 1)));
    }
    for (i64 row = 0; row < n; row++) {
      double largest = -__builtin_inf(), sum = 0;
      FEW for (i64 j = 0; j < n; j++) {
        x[row * n + j] = VALUE(2 * n + row * n + j, 2);
        largest = x[row * n + j] > largest ? x[row * n + j] : largest;
      }
      FEW for (i64 j = 0; j < n; j++) sum += x[row * n + j] = exp_f64(x[row * n + j] - largest);
      FEW for (i64 j = 0; j < n; j++) x[row * n + j] = x[row * n + j] / sum + eps;
    }
#undef VALUE
    for (i64 iteration = 0; iteration < whole(c, 11); iteration++) {
      for (i64 row = 0; iteration > 0 && row < n; row++) { /* the softmax stands for the first division of rows */
        double sum = eps;
        FEW for (i64 j = 0; j < n; j++) sum += x[row * n + j];
        FEW for (i64 j = 0; j < n; j++) x[row * n + j] /= sum;
      }
      FEW for (i64 j = 0; j < n; j++) {
        double sum = eps;
        FEW for (i64 row = 0; row < n; row++) sum += x[row * n + j];
        FEW for (i64 row = 0; row < n; row++) x[row * n + j] /= sum;
      }
    }
    FEW for (i64 i = 0; i < n * n; i++) mix[i] = (float)x[i];
  }
}

/* Reads memory as fast as it comes, to know what weights can be read at. 3 data, 4 bytes, 5 a float a worker for the sum */
static void op_read_memory(const Command* c, Worker* w) {
  enum { STREAMS = 4, PART = 1 << 18 };
  const u8* data = at(c, 3);
  vi sum[STREAMS] = {vi_of(0), vi_of(0), vi_of(0), vi_of(0)};
  for (i64 unit; (unit = next_unit(w, whole(c, 4) / (STREAMS * PART))) >= 0;) {
    const u8* from = data + unit * STREAMS * PART;
    for (i64 i = 0; i < PART; i += 4 * LANES)
      for (int k = 0; k < STREAMS; k++) sum[k] ^= load_vi(from + k * PART + i);
  }
  store_vi((i32*)at(c, 5) + 16 * w->index, (sum[0] ^ sum[1]) ^ (sum[2] ^ sum[3]));
}
