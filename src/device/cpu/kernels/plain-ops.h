/* Copies, sums, rotation, the bookkeeping of routing, hyper-connections: scalars, or numbers that are used once. */
#pragma once
#include "residual-streams.h"
#include "vector-ops.h"

/* 3 scores, 4 chosen, 5 weights, 6 tokens, 7 experts, 8 k, 9 normalize, 10 factor */
static void op_routing_weights(const Command* c, Worker* w) {
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
static void op_write_rows(const Command* c, Worker* w) {
  const i32* slots = at(c, 5);
  const i64 width = whole(c, 7);
  for (i64 i; (i = next_unit(w, whole(c, 6))) >= 0;) {
    const float* from = (const float*)at(c, 4) + i * width;
    float* to = (float*)at(c, 3) + slots[i] * width;
    for (i64 k = 0; k < width; k++) to[k] = from[k];
  }
}

/* 3 table (of 4-byte elements), 4 index, 5 y, 6 count, 7 width */
static void op_gather_rows(const Command* c, Worker* w) {
  const i32* index = at(c, 4);
  const i64 width = whole(c, 7);
  for (i64 i; (i = next_unit(w, whole(c, 6))) >= 0;) {
    const i32* from = (const i32*)at(c, 3) + index[i] * width;
    i32* to = (i32*)at(c, 5) + i * width;
    for (i64 k = 0; k < width; k++) to[k] = from[k];
  }
}

/* 3 x, 4 y, 5 tokens, 6 count, 7 width */
static void op_repeat_streams(const Command* c, Worker* w) {
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
static void op_hyper_connection_head(const Command* c, Worker* w) {
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
static void op_experts_route(const Command* c, Worker* w) {
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

/* 3 matrix, 13 index, 14 count, 15 y: rows of a stored matrix in float32, each as all rows of a tile */
static void op_gather_matrix(const Command* c, Worker* w) {
  const Matrix m = matrix_at(c, 3);
  const i32* index = at(c, 13);
  Panel* panel = (Panel*)w->scratch;
  for (i64 i; (i = next_unit(w, whole(c, 14))) >= 0;) {
    float* y = (float*)at(c, 15) + i * m.columns;
    for (i64 first = 0; first < m.columns; first += STRETCH) {
      const i64 count = min_i64(STRETCH, m.columns - first);
      w->body->products->unpack_floats(&m, (Rows){m.data + index[i] * m.row_bytes, 0, index[i]}, first, count, panel);
      for (i64 k = 0; k < count; k++) y[first + k] = panel->floats[k][0];
    }
  }
}

/*
 * Copies the int8 blocks of each expert's tokens to where they lie together.
 * 3 activations, 9 copies: bytes, 10 scales, 11 sums, 12 active experts, 13 first, 14 token, 15 place
 */
static void op_experts_gather(const Command* c, Worker* w) {
  const Activations x = activations_at(c, 3);
  Activations copy = x;
  copy.bytes = at(c, 9), copy.scales = at(c, 10), copy.sums = at(c, 11);
  const i32 *active = at(c, 12), *first = at(c, 13), *token = at(c, 14), *place = at(c, 15);
  for (i64 unit; (unit = next_unit(w, active[0])) >= 0;) {
    const i64 e = active[1 + unit];
    for (i64 pair = first[e]; pair < first[e + 1]; pair++) {
      const i64 from = block_of(&x, token[pair], 0), to = block_of(&x, place[e] + pair - first[e], 0);
      for (i64 i = 0; i < x.stride / BLOCK * TOGETHER; i += TOGETHER) {
        UNROLL for (int k = 0; k < BLOCK; k += 16) *(quad_at*)(copy.bytes + BLOCK * (to + i) + k) = *(const quad_at*)(x.bytes + BLOCK * (from + i) + k);
        ((float*)copy.scales)[to + i] = x.scales[from + i];
        UNROLL for (int half = 0; half < 2; half++)
          ((i32*)copy.sums)[sums_of(&x, to + i) + half * TOGETHER] = x.sums[sums_of(&x, from + i) + half * TOGETHER];
      }
    }
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
      for (i64 i = unit * PIECE; i < end; i += LANES) store_n(y + i, load_n(a + i, end - i) + load_n(b + i, end - i), end - i);
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
  FOR_PIECES(whole(c, 5)) for (i64 i = unit * PIECE; i < end; i += LANES) store_n(y + i, vf_of(factor) * load_n(x + i, end - i), end - i);
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

/*
 * Reads memory as fast as it comes, to know what weights can be read at: in as many streams, and fetched ahead, as they are. (Half as
 * many and left to the processor, it comes a seventh slower.) 3 data, 4 bytes, 5 a float a worker for the sum
 */
static void op_read_memory(const Command* c, Worker* w) {
  enum { PART = 1 << 17, AHEAD = 16 * LINE };
  const u8* data = at(c, 3);
  vi sum[STREAMS];
  UNROLL for (int k = 0; k < STREAMS; k++) sum[k] = vi_of(0);
  for (i64 unit; (unit = next_unit(w, whole(c, 4) / (STREAMS * PART))) >= 0;) {
    const u8* from = data + unit * STREAMS * PART;
    for (i64 i = 0; i < PART; i += LINE)
      UNROLL for (int k = 0; k < STREAMS; k++) {
        FETCH(from + k * PART + i + AHEAD);
        UNROLL for (int j = 0; j < LINE; j += 4 * LANES) sum[k] ^= load_vi(from + k * PART + i + j);
      }
  }
  UNROLL for (int k = 1; k < STREAMS; k++) sum[0] ^= sum[k];
  store_vi((i32*)at(c, 5) + 16 * w->index, sum[0]);
}
