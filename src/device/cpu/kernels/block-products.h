/* Whole-number products of a panel of unpacked int8 blocks with any number of tokens. */
#pragma once
#include "activations.h"
#include "dot.h"

#if LANES == 16 || defined(__aarch64__)
enum { TOKENS_OF_BYTES = 8 }; /* that are multiplied together: as many as registers allow */
#else
enum { TOKENS_OF_BYTES = 4 };
#endif

/*
 * Vectors of a tile that are multiplied together: with two of them, four activations are loaded once for both. Signed 8-bit weights, whose
 * products take more instructions, gain nothing, and few tokens little but in small groups.
 */
enum { VECTORS_OF_BYTES = LANES == 8 ? 2 : 1 };

typedef struct {
  int is_8bit, group, has_minima;
  i32 zero;
} Kind;

static inline Kind kind_of(i64 format) {
  return (Kind){format == Q8_0, scale_group(format), has_minima(format), zero_point(format, BIAS_8)};
}

/* T tokens; `together` as in Activations. What kinds differ in is known at run time where it costs no more than a branch a block. */
static inline __attribute__((always_inline)) void bytes_of_tokens(const int T, const int is_8bit, const int group, const i64 together, Kind kind,
                                                                  const Panel* p, i64 first, i64 count, const Activations* x, i64 t0,
                                                                  float (*acc)[TILE]) {
  const i8* bytes[TOKENS_OF_BYTES];
  const float* scales[TOKENS_OF_BYTES];
  const i32* sums[TOKENS_OF_BYTES];
  const i64 first_block = block_of(x, activation_row(x, t0), first);
  UNROLL for (int t = 0; t < T; t++) {
    const i64 block = together == 1 ? block_of(x, activation_row(x, t0 + t), first) : first_block + t;
    bytes[t] = x->bytes + BLOCK * block;
    scales[t] = x->scales + block;
    sums[t] = x->sums + (together == 1 ? 2 * block : sums_of(x, first_block) + t);
  }
  const int V = is_8bit || (T < 4 && group == BLOCK) ? 1 : VECTORS_OF_BYTES;
#define EACH UNROLL for (int i = 0; i < V; i++) UNROLL for (int t = 0; t < T; t++)
  for (int v = 0; v < TILE; v += V * LANES) {
    vf total[VECTORS_OF_BYTES][TOKENS_OF_BYTES];
    EACH total[i][t] = load_vf(&acc[t0 + t][v + i * LANES]);
    for (i64 b = 0; b < count / BLOCK; b++) {
      for (int half = 0; half < BLOCK / group; half++) { /* Q6_K: two scales a block */
        const int dwords = group / 4;
        vi sum[VECTORS_OF_BYTES][TOKENS_OF_BYTES], w[VECTORS_OF_BYTES];
        UNROLL for (int t = 0; t < T; t++) {
          const i32* both = sums[t] + 2 * b * together;
          const i32 of_group = group == 16 ? both[half * together] : both[0] + both[together];
          UNROLL for (int i = 0; i < V; i++) sum[i][t] = vi_of(-kind.zero * of_group);
        }
#define FOUR(t, j) (*(const i32*)(bytes[t] + BLOCK * together * b + group * half + 4 * (j)))
#define LOAD_WEIGHTS(j) UNROLL for (int i = 0; i < V; i++) w[i] = load_vi(&p->bytes[8 * b + dwords * half + (j)][v + i * LANES])
#if SUMS_IN_16_BITS
        if (!is_8bit)
          UNROLL for (int first_of = 0; first_of < dwords; first_of += DWORDS_OF_PAIRS(group)) {
            vi pairs[VECTORS_OF_BYTES][TOKENS_OF_BYTES];
            EACH pairs[i][t] = vi_of(0);
            UNROLL for (int j = first_of; j < first_of + DWORDS_OF_PAIRS(group); j++) {
              LOAD_WEIGHTS(j);
              UNROLL for (int t = 0; t < T; t++) {
                const i32 four = FOUR(t, j);
                UNROLL for (int i = 0; i < V; i++) pairs[i][t] = add_pairs(pairs[i][t], w[i], four);
              }
              EACH keep_order(&pairs[i][t]);
            }
            EACH sum[i][t] = add_sums(sum[i][t], pairs[i][t]);
          }
        else
#endif
          UNROLL_DOTS for (int j = 0; j < dwords; j++) {
            LOAD_WEIGHTS(j);
            UNROLL for (int t = 0; t < T; t++) {
              const i32 four = FOUR(t, j);
              UNROLL for (int i = 0; i < V; i++) sum[i][t] = is_8bit ? dot_8bit(sum[i][t], w[i], four) : dot_7bit(sum[i][t], w[i], four);
            }
          }
        UNROLL for (int i = 0; i < V; i++) {
          const vf scale = load_vf(&p->scales[group == 16 ? 2 * b + half : b][v + i * LANES]);
          UNROLL for (int t = 0; t < T; t++) total[i][t] = fma_vf(vf_of_vi(sum[i][t]), scale * vf_of(scales[t][b * together]), total[i][t]);
          if (kind.has_minima) {
            const vf minimum = load_vf(&p->minima[b][v + i * LANES]);
            UNROLL for (int t = 0; t < T; t++)
              total[i][t] = fma_vf(minimum, vf_of(-scales[t][b * together] * (float)(sums[t][2 * b * together] + sums[t][(2 * b + 1) * together])), total[i][t]);
          }
        }
      }
    }
    EACH store_vf(&acc[t0 + t][v + i * LANES], total[i][t]);
  }
#undef EACH
#undef FOUR
#undef LOAD_WEIGHTS
}

#if defined(__AMX_INT8__)
#include "tile-registers.h"
#endif

static inline __attribute__((always_inline)) void bytes_of_some(const int is_8bit, const int group, Kind kind, const Panel* p, i64 first,
                                                                i64 count, const Activations* x, i64 t, i64 tokens, float (*acc)[TILE]) {
  const int may_have_minima = !is_8bit && group == BLOCK;
  if (!may_have_minima) kind.has_minima = 0;
  if (is_8bit) kind.zero = 0; /* where their products differ they are signed */
  const Kind with = {is_8bit, group, 1, 0}, without = {is_8bit, group, 0, kind.zero};
  if (LANES == 8 && group == 16) /* of these, code for each layout is worth less than its size */
    for (; t + TOKENS_OF_BYTES <= tokens; t += TOKENS_OF_BYTES)
      bytes_of_tokens(TOKENS_OF_BYTES, is_8bit, group, x->together, without, p, first, count, x, t, acc);
  else if (x->together == TOGETHER) {
    if (may_have_minima && kind.has_minima)
      for (; t + TOKENS_OF_BYTES <= tokens; t += TOKENS_OF_BYTES)
        bytes_of_tokens(TOKENS_OF_BYTES, is_8bit, group, TOGETHER, with, p, first, count, x, t, acc);
    else
      for (; t + TOKENS_OF_BYTES <= tokens; t += TOKENS_OF_BYTES)
        bytes_of_tokens(TOKENS_OF_BYTES, is_8bit, group, TOGETHER, without, p, first, count, x, t, acc);
  } else if (TOKENS_OF_BYTES == 4) /* fewer than 8 tokens lie alone */
    for (; t + 4 <= tokens; t += 4) bytes_of_tokens(4, is_8bit, group, 1, kind, p, first, count, x, t, acc);
  for (; t + 2 <= tokens; t += 2) bytes_of_tokens(2, is_8bit, group, x->together, kind, p, first, count, x, t, acc);
  if (t < tokens) bytes_of_tokens(1, is_8bit, group, x->together, kind, p, first, count, x, t, acc);
}

#if defined(__AMX_INT8__)
void multiply_bytes_avx512(i64 format, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]);

void OF_BODY(multiply_bytes)(i64 format, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]) {
  const i64 end = x->together == 1 ? t0 : tokens % TOGETHER < FEWEST_TOKENS_FOR_TILES ? tokens / TOGETHER * TOGETHER : tokens;
  multiply_bytes_avx512(format, p, first, count, x, end, tokens, acc);
  if (end > t0) bytes_in_tiles(kind_of(format), p, first, count, x, t0, end, acc);
}
#else
void OF_BODY(multiply_bytes)(i64 format, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]) {
  const Kind kind = kind_of(format);
  if (kind.group == 16) bytes_of_some(0, 16, kind, p, first, count, x, t0, tokens, acc);
  else if (kind.is_8bit && DOT_8BIT_DIFFERS) bytes_of_some(1, BLOCK, kind, p, first, count, x, t0, tokens, acc);
  else bytes_of_some(0, BLOCK, kind, p, first, count, x, t0, tokens, acc);
}
#endif
