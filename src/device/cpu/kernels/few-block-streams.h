/*
 * Two to eight tokens times int8 blocks, without a panel in between: what is stored is transposed as it is, and weights are taken out
 * of it where they are multiplied, once for all tokens. For vectors of a whole tile; with shorter ones a panel is not much slower.
 */
#pragma once
#include "activations.h"
#include "dot.h"

enum { MOST_FEW_TOKENS = 8, GROUP_BLOCKS = 2 * GROUP_PAIRS };

/*
 * sums[t] += a group of blocks, stored as dwords, times T tokens that lie together: `block` is the number of the first one's first block.
 * Tokens that are missing are multiplied as well, whatever stands in their place.
 */
static inline __attribute__((always_inline)) void few_tokens_of_group(const i64 format, const int T, const i32 (*raw)[LANES], const Activations* x,
                                                                      i64 block, float (*sums)[TILE]) {
  const int dwords = pair_dwords(format), half = dwords / 2, halves = format == Q4_0 ? 2 : 1;
  const i8* bytes = x->bytes + BLOCK * block;
  const float* scales = x->scales + block;
  const i32* of_x = x->sums + 2 * block;
  i32 starts[GROUP_BLOCKS * TOGETHER] __attribute__((aligned(64)));
  for (int b = 0; b < GROUP_BLOCKS * TOGETHER; b += TOGETHER) {
    const vi of_block = load_vi(of_x + 2 * b) + load_vi(of_x + 2 * b + TOGETHER);
    store_vi(starts + b, of_block * -zero_point(format, BIAS_8));
  }
  const i32* start = starts;
  vf total[MOST_FEW_TOKENS];
  UNROLL for (int t = 0; t < T; t++) total[t] = load_vf(sums[t]);
  _Pragma("clang loop unroll(disable)") for (int pair = 0; pair < GROUP_PAIRS; pair++) {
    const vi* d = (const vi*)raw;
    vf scale[2];
    two_f16_to_vf(d[0], d[half], scale);
    UNROLL for (int k = 0; k < 2; k++) {
      vi sum[MOST_FEW_TOKENS];
      UNROLL for (int t = 0; t < T; t++) sum[t] = vi_of(start[t]);
      UNROLL for (int j = 0; j < half; j++) {
        const vi w = k ? d[half + 1 + j] : j ? d[j] : (d[0] & (i32)0xffff0000) | (d[half] & 0xffff);
        UNROLL for (int h = 0; h < halves; h++) {
          const vi part = format != Q4_0 ? w ^ flip_of(BIAS_8) : (h ? w >> 4 : w) & 0x0f0f0f0f;
          UNROLL for (int t = 0; t < T; t++) {
            const i8* at = bytes + BLOCK * t + 16 * h;
            sum[t] = dot_7bit(sum[t], part, k ? *(const i32*)(at + 4 * j) : four_across(at, 4 * half, j)); /* unsigned bytes, of 8 bits too */
          }
        }
      }
      UNROLL for (int t = 0; t < T; t++) total[t] = fma_vf(vf_of_vi(sum[t]), scale[k] * vf_of(scales[t]), total[t]);
      bytes += BLOCK * TOGETHER, scales += TOGETHER, start += TOGETHER;
    }
    raw += dwords;
    MOVING(bytes);
    MOVING(scales);
    MOVING(start);
    MOVING(raw);
  }
  UNROLL for (int t = 0; t < T; t++) store_vf(sums[t], total[t]);
}

/* acc[t] = all columns times `tokens` tokens that lie together, in the order of bytes_of_tokens. */
static inline __attribute__((always_inline)) void few_streams_of_blocks(const i64 format, const Matrix* m, Rows rows, const Activations* x,
                                                                        i64 tokens, float (*acc)[TILE], i32 (*raw)[LANES]) {
  const int dwords = GROUP_PAIRS * pair_dwords(format), chunks = dwords / 4;
  const i64 apart = m->ahead_rows * m->row_bytes, block = block_of(x, activation_row(x, 0), 0);
  float sums[MOST_FEW_TOKENS][TILE] __attribute__((aligned(64)));
  for (int t = 0; t < MOST_FEW_TOKENS; t++) store_vf(sums[t], vf_of(0));
  for (i64 group = 0; group < m->columns / BLOCK / GROUP_BLOCKS; group++) {
    _Pragma("clang loop unroll(disable)") for (int k = 0; k < chunks; k++) {
      vi four[4];
      i64 stride = rows.stride;
      MOVING(stride);
      transpose_16_bytes(rows.at, stride, 0, group * 4 * dwords + 16 * k, four);
      UNROLL for (int j = 0; j < 4; j++) store_vi(raw[4 * k + j], four[j]);
      /* as much of each stream ahead is 32 bytes: each second time a line */
      const i64 sixteen = group * chunks + k;
      if (m->ahead && sixteen % 2 == 0) fetch_lines(m->ahead + 32 * sixteen, apart);
    }
#define SOME(T) few_tokens_of_group(format, T, raw, x, block + group * GROUP_BLOCKS * TOGETHER, sums)
    if (tokens == 2) SOME(2);
    else if (tokens <= 4) SOME(4);
    else SOME(8);
#undef SOME
  }
  for (i64 t = 0; t < tokens; t++) store_vf(acc[t], load_vf(sums[t]));
}

/* acc[t] = all columns times two to eight activations; 0 where a panel is needed. `room` is for eight blocks of a tile. */
int OF_BODY(stream_few)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* room) {
  if (tokens < 2 || tokens > MOST_FEW_TOKENS || x->together == 1 || m->columns / BLOCK % GROUP_BLOCKS) return 0;
  i32(*raw)[LANES] = (i32(*)[LANES])room->bytes;
  if (m->format == Q8_0) few_streams_of_blocks(Q8_0, m, rows, x, tokens, acc, raw);
  else if (m->format == Q4_0) few_streams_of_blocks(Q4_0, m, rows, x, tokens, acc, raw);
  else return 0;
  return 1;
}
