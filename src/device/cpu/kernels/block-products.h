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

/*
 * T tokens, of which n count: others that lie together with them are multiplied as well, whatever stands in their place. What kinds
 * differ in is known at run time where it costs no more than a branch a block.
 */
static inline __attribute__((always_inline)) void bytes_of_tokens(const int T, const int is_8bit, const int group, const i64 together, Kind kind,
                                                                  const Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 n,
                                                                  float (*acc)[TILE]) {
  const i64 block = block_of(x, activation_row(x, t0), first);
  const int V = is_8bit || (T < 4 && group == BLOCK) ? 1 : VECTORS_OF_BYTES, dwords = group / 4;
#define EACH UNROLL for (int i = 0; i < V; i++) UNROLL for (int t = 0; t < T; t++)
#define LOAD_WEIGHTS(j) UNROLL for (int i = 0; i < V; i++) w[i] = load_vi(weights + TILE * (j) + i * LANES)
#define FOUR(t, j) (*(const i32*)(bytes + BLOCK * (t) + group * half + 4 * (j)))
  for (int v = 0; v < TILE; v += V * LANES) {
    const i8* bytes = x->bytes + BLOCK * block;
    const float* scales = x->scales + block;
    const i32* sums = x->sums + sums_of(x, block);
    const i32* weights = &p->bytes[0][v];
    const float* of_weights = &p->scales[0][v];
    vf total[VECTORS_OF_BYTES][TOKENS_OF_BYTES];
    EACH total[i][t] = t < n ? load_vf(&acc[t0 + t][v + i * LANES]) : vf_of(0);
    for (i64 b = 0; b < count / BLOCK; b++) {
      for (int half = 0; half < BLOCK / group; half++) { /* Q6_K: two scales a block */
        vi sum[VECTORS_OF_BYTES][TOKENS_OF_BYTES], w[VECTORS_OF_BYTES];
        UNROLL for (int t = 0; t < T; t++) {
          const i32 of_group = group == 16 ? sums[half * together + t] : sums[t] + sums[together + t];
          UNROLL for (int i = 0; i < V; i++) sum[i][t] = vi_of(-kind.zero * of_group);
        }
#if SUMS_IN_16_BITS
        if (!is_8bit)
          UNROLL for (int from = 0; from < dwords; from += DWORDS_OF_PAIRS(group)) {
            vi pairs[VECTORS_OF_BYTES][TOKENS_OF_BYTES];
            EACH pairs[i][t] = vi_of(0);
            UNROLL for (int j = from; j < from + DWORDS_OF_PAIRS(group); j++) {
              LOAD_WEIGHTS(j);
              UNROLL for (int t = 0; t < T; t++) {
                const i32 four = FOUR(t, j);
                UNROLL for (int i = 0; i < V; i++) pairs[i][t] = add_pairs(pairs[i][t], w[i], four);
              }
              EACH OPAQUE_VECTOR(pairs[i][t]);
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
          const vf scale = load_vf(of_weights + i * LANES);
          UNROLL for (int t = 0; t < T; t++) total[i][t] = fma_vf(vf_of_vi(sum[i][t]), scale * vf_of(scales[t]), total[i][t]);
        }
        weights += TILE * dwords, of_weights += TILE;
      }
      if (kind.has_minima)
        UNROLL for (int i = 0; i < V; i++) {
          const vf minimum = load_vf(&p->minima[b][v + i * LANES]);
          UNROLL for (int t = 0; t < T; t++)
            total[i][t] = fma_vf(minimum, vf_of(-scales[t] * (float)(sums[t] + sums[together + t])), total[i][t]);
        }
      bytes += BLOCK * together, scales += together, sums += 2 * together;
      MOVING(bytes);
      MOVING(scales);
      MOVING(sums);
    }
    EACH if (t < n) store_vf(&acc[t0 + t][v + i * LANES], total[i][t]);
  }
#undef EACH
#undef LOAD_WEIGHTS
#undef FOUR
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
  /* up to three of eight, or two of four, are faster two and one at a time */
  for (i64 n; (n = min_i64(TOKENS_OF_BYTES, tokens - t)) > (TOKENS_OF_BYTES + 4) / 4; t += n)
    if (may_have_minima && kind.has_minima) bytes_of_tokens(TOKENS_OF_BYTES, is_8bit, group, TOGETHER, with, p, first, count, x, t, n, acc);
    else bytes_of_tokens(TOKENS_OF_BYTES, is_8bit, group, TOGETHER, without, p, first, count, x, t, n, acc);
  if (tokens - t >= 2) bytes_of_tokens(2, is_8bit, group, TOGETHER, kind, p, first, count, x, t, 2, acc), t += 2;
  if (t < tokens) bytes_of_tokens(1, is_8bit, group, x->together, kind, p, first, count, x, t, 1, acc); /* which may lie alone */
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
