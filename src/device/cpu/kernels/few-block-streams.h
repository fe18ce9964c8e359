/*
 * Two to seven tokens times int8 blocks, without a panel in between: what is stored is transposed as it is, and weights are taken out
 * of it where they are multiplied, once for two to four tokens. For vectors of a whole tile; with shorter ones a panel is not much slower.
 */
#pragma once
#include "activations.h"
#include "dot.h"

enum { MOST_FEW_TOKENS = 7, FEW_TOGETHER = 4, GROUP_BLOCKS = 2 * GROUP_PAIRS, GROUP_STARTS = 2 * GROUP_BLOCKS };

/*
 * What the sums of a group of eight blocks begin with: the zero point of the weights times the sum of the activations. Of tokens that lie
 * alone [token][block][2], of those that lie together [block][TOGETHER]; x is the first token's.
 */
static inline __attribute__((always_inline)) void starts_of_group(const i64 format, const Activations* x, const i64* block, i64 tokens, i32* start) {
  const i32 zero = -zero_point(format, BIAS_8);
  if (x->together == 1)
    for (i64 t = 0; t < tokens; t++) {
      const vi halves = load_vi(x->sums + 2 * block[t]), swapped = __builtin_shufflevector(halves, halves, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
      store_vi(start + GROUP_STARTS * t, (halves + swapped) * zero);
    }
  else
    for (int b = 0; b < GROUP_BLOCKS; b++) {
      const i32* sums = x->sums + 2 * (block[0] / TOGETHER * TOGETHER + b * TOGETHER);
      store_vi(start + b * TOGETHER, (load_vi(sums) + load_vi(sums + TOGETHER)) * zero);
    }
}

/* acc[t] += a group of blocks, whose dwords are d, times T tokens, whose first blocks have these numbers. */
static inline __attribute__((always_inline)) void few_tokens_of_group(const i64 format, const int T, const i32 (*raw)[LANES], const Activations* x,
                                                                      const i64* block, const i32* start, float (*acc)[TILE]) {
  const int dwords = pair_dwords(format), half = dwords / 2, halves = format == Q4_0 ? 2 : 1;
  const i64 together = x->together, next_start = together == 1 ? 2 : TOGETHER, start_of_token = together == 1 ? GROUP_STARTS : 1;
  const i8* bytes[FEW_TOGETHER];
  const float* scales[FEW_TOGETHER];
  vf total[FEW_TOGETHER];
  UNROLL for (int t = 0; t < T; t++) {
    bytes[t] = x->bytes + BLOCK * block[t];
    scales[t] = x->scales + block[t];
    total[t] = load_vf(acc[t]);
  }
  _Pragma("clang loop unroll(disable)") for (i64 b = 0; b < GROUP_BLOCKS * together; b += together, raw += dwords) {
    const vi* d = (const vi*)raw;
    i32 edge[2][FEW_TOGETHER];
    UNROLL for (int t = 0; t < T; t++)
      UNROLL for (int h = 0; h < halves; h++) edge[h][t] = four_across(bytes[t] + BLOCK * b + 16 * h, 4 * half, 0);
    vf scale[2];
    two_f16_to_vf(d[0], d[half], scale);
    UNROLL for (int k = 0; k < 2; k++, start += next_start) {
      if (k) b += together;
      vi sum[FEW_TOGETHER];
      UNROLL for (int t = 0; t < T; t++) sum[t] = vi_of(start[start_of_token * t]);
      UNROLL for (int j = 0; j < half; j++) {
        const vi w = k ? d[half + 1 + j] : j ? d[j] : (d[0] & (i32)0xffff0000) | (d[half] & 0xffff);
        UNROLL for (int h = 0; h < halves; h++) {
          const vi part = format != Q4_0 ? w ^ flip_of(BIAS_8) : (h ? w >> 4 : w) & 0x0f0f0f0f;
          UNROLL for (int t = 0; t < T; t++) {
            const i8* at = bytes[t] + BLOCK * b + 16 * h + 4 * j;
            const i32 four = k ? *(const i32*)at : j ? (i32)*(const u32_at*)(at - 2) : edge[h][t];
            sum[t] = dot_7bit(sum[t], part, four); /* unsigned bytes, of 8 bits too */
          }
        }
      }
      UNROLL for (int t = 0; t < T; t++) total[t] = fma_vf(vf_of_vi(sum[t]), scale[k] * vf_of(scales[t][b]), total[t]);
    }
  }
  UNROLL for (int t = 0; t < T; t++) store_vf(acc[t], total[t]);
}

/* acc[t] += all columns times `tokens` tokens, in the order of bytes_of_tokens. */
static inline __attribute__((always_inline)) void few_streams_of_blocks(const i64 format, const Matrix* m, Rows rows, const Activations* x,
                                                                        i64 tokens, float (*acc)[TILE], i32 (*raw)[LANES]) {
  const int dwords = GROUP_PAIRS * pair_dwords(format), chunks = dwords / 4;
  const i64 start_of_token = x->together == 1 ? GROUP_STARTS : 1, apart = m->ahead_rows * m->row_bytes;
  i32 starts[MOST_FEW_TOKENS * TOGETHER] __attribute__((aligned(64)));
  i64 block[MOST_FEW_TOKENS];
  for (i64 t = 0; t < tokens; t++) block[t] = block_of(x, activation_row(x, t), 0);
  const i32* start = starts + (x->together == 1 ? 0 : block[0] % TOGETHER);
  for (i64 group = 0; group < m->columns / BLOCK / GROUP_BLOCKS; group++) {
    starts_of_group(format, x, block, tokens, starts);
    _Pragma("clang loop unroll(disable)") for (int k = 0; k < chunks; k++) {
      vi four[4];
      transpose_16_bytes(rows.at, rows.stride, 0, group * 4 * dwords + 16 * k, four);
      UNROLL for (int j = 0; j < 4; j++) store_vi(raw[4 * k + j], four[j]);
      /* as much of each stream ahead is 32 bytes: each second time a line */
      const i64 sixteen = group * chunks + k;
      if (m->ahead && sixteen % 2 == 0)
        UNROLL for (int stream = 0; stream < STREAMS; stream++) __builtin_prefetch(m->ahead + stream * apart + 32 * sixteen, 0, 3);
    }
#define SOME(T) few_tokens_of_group(format, T, raw, x, block + t, start + start_of_token * t, acc + t), t += T
    i64 t = 0;
    if (tokens >= 4 && tokens != 5) SOME(4);
    if (tokens - t == 3 || tokens == 5) SOME(3);
    if (tokens - t == 2) SOME(2);
#undef SOME
    for (i64 i = 0; i < tokens; i++) block[i] += GROUP_BLOCKS * x->together;
  }
}

/* acc[t] += all columns times two to seven activations; 0 where a panel is needed. `room` is for eight blocks of a tile. */
int OF_BODY(stream_few)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* room) {
  if (tokens < 2 || tokens > MOST_FEW_TOKENS || m->columns / BLOCK % GROUP_BLOCKS) return 0;
  i32(*raw)[LANES] = (i32(*)[LANES])room->bytes;
  if (m->format == Q8_0) few_streams_of_blocks(Q8_0, m, rows, x, tokens, acc, raw);
  else if (m->format == Q4_0) few_streams_of_blocks(Q4_0, m, rows, x, tokens, acc, raw);
  else return 0;
  return 1;
}
