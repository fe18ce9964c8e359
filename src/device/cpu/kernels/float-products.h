/* Float products of a panel with any number of tokens: four sums by column modulo 4, or sixteen in four rounds (FP8). */
#pragma once
#include "activations.h"

/* Tokens that are multiplied together: as many as registers allow. */
#if LANES == 16
enum { TOKENS_OF_FLOATS = 7 };
#elif defined(__aarch64__)
enum { TOKENS_OF_FLOATS = 6 };
#else
enum { TOKENS_OF_FLOATS = 2 };
#endif

static inline __attribute__((always_inline)) void floats_of_tokens(const int T, const Panel* p, i64 first, i64 count, const i64 sums,
                                                                   const Activations* x, i64 t0, float (*acc)[TILE]) {
  const float* rows[TOKENS_OF_FLOATS];
  UNROLL for (int t = 0; t < T; t++) {
    rows[t] = floats_of(x, t0 + t) + first;
    OPAQUE(rows[t]); /* else the compiler adds strides in the loop to spare registers */
  }
  for (int v = 0; v < TILE; v += LANES) {
    vf part[4][TOKENS_OF_FLOATS];
    for (i64 round = 0; 4 * round < sums; round++) {
      vf sum[TOKENS_OF_FLOATS][4];
      UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int k = 0; k < 4; k++) sum[t][k] = vf_of(0);
      i64 c = 4 * round;
      const float* at[TOKENS_OF_FLOATS];
      UNROLL for (int t = 0; t < T; t++) at[t] = rows[t] + c;
      for (; c + 4 <= count; c += sums) {
        UNROLL for (int k = 0; k < 4; k++) {
          const vf w = load_vf(&p->floats[c + k][v]);
          UNROLL for (int t = 0; t < T; t++) sum[t][k] = fma_vf(w, vf_of(at[t][k]), sum[t][k]);
        }
        UNROLL for (int t = 0; t < T; t++) {
          at[t] += sums;
          MOVING(at[t]);
        }
      }
      for (int k = 0; c + k < count; k++) {
        const vf w = load_vf(&p->floats[c + k][v]);
        UNROLL for (int t = 0; t < T; t++) {
          const vf product = w * vf_of(rows[t][c + k]);
          if (k == 0) sum[t][0] += product;
          else if (k == 1) sum[t][1] += product;
          else sum[t][2] += product;
        }
      }
      UNROLL for (int t = 0; t < T; t++) part[round][t] = (sum[t][0] + sum[t][1]) + (sum[t][2] + sum[t][3]);
    }
    UNROLL for (int t = 0; t < T; t++) {
      const vf whole = sums == 4 ? part[0][t] : (part[0][t] + part[1][t]) + (part[2][t] + part[3][t]);
      store_vf(&acc[t0 + t][v], load_vf(&acc[t0 + t][v]) + whole);
    }
  }
}

/* acc[t] += columns first .. first + count of the panel times activation t, in so many sums by column. */
static void multiply_floats(const Panel* p, i64 first, i64 count, i64 sums, const Activations* x, i64 tokens, float (*acc)[TILE]) {
  i64 t = 0;
  for (; t + TOKENS_OF_FLOATS <= tokens; t += TOKENS_OF_FLOATS) floats_of_tokens(TOKENS_OF_FLOATS, p, first, count, sums, x, t, acc);
  for (; t + 2 <= tokens; t += 2) floats_of_tokens(2, p, first, count, sums, x, t, acc);
  if (t < tokens) floats_of_tokens(1, p, first, count, sums, x, t, acc);
}
