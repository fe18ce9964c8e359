/*
 * Two or three tokens times Q4_0 where a tile is two vectors, without a panel in between: weights are transposed as they are stored, and
 * taken apart where they are multiplied, once for all tokens. Instructions are what limits it, so what tokens have to give is laid out
 * beforehand, for sixteen rows: then each four activations are one load for both vectors.
 */
#pragma once
#include "row-streams.h"

enum { MOST_NIBBLE_TOKENS = 3, NIBBLE_BLOCKS = 16 /* whole lines of eight streams */, PAIR_DWORDS = 9 };

typedef struct {
  i32 dwords[NIBBLE_BLOCKS / 2 * PAIR_DWORDS][TILE] __attribute__((aligned(64))); /* of two blocks four, one that is left out, four */
  float scales[NIBBLE_BLOCKS][TILE];
  TokenBlocks tokens[MOST_NIBBLE_TOKENS];
} NibbleGroup;

/* An even number of blocks of 16 rows. As much is fetched meanwhile. */
static inline __attribute__((always_inline)) void load_nibbles(const Matrix* m, Rows rows, i64 first, i64 blocks, NibbleGroup* to) {
  const i64 bytes = blocks * 18, from = first * 18, apart = m->ahead ? m->ahead_rows * m->row_bytes : 0;
  const u8* ahead = m->ahead ? m->ahead : rows.at;
  _Pragma("clang loop unroll(disable)") for (i64 at = 0; at < bytes; at += 32) {
    const i64 here = min_i64(at, bytes - 16), next = min_i64(at + 16, bytes - 16) - here; /* nothing behind the blocks is read: some comes twice */
    const u8 *row = rows.at + from + here, *lines = ahead + 2 * (from + at);
    OPAQUE(row);
    OPAQUE(lines);
    fetch_lines(lines, apart);
    i32(*dword)[TILE] = to->dwords + here / 4;
    FOR_VECTORS {
      vi t[8];
      transpose_16_bytes(row, rows.stride, 0, 0, t);
      transpose_16_bytes(row, rows.stride, 0, next, t + 4);
      UNROLL for (int j = 0; j < 4; j++) store_vi(&dword[j][v], t[j]);
      UNROLL for (int j = 0; j < 4; j++) store_vi(&dword[next / 4 + j][v], t[4 + j]);
      row += LANES * rows.stride;
      OPAQUE(row);
    }
  }
  for (i64 b = 0; b < blocks; b += 2)
    FOR_VECTORS {
      i32(*d)[TILE] = to->dwords + b / 2 * PAIR_DWORDS;
      const vi low = load_vi(&d[0][v]), high = load_vi(&d[4][v]);
      vf scale[2];
      two_f16_to_vf(low, high, scale);
      UNROLL for (int k = 0; k < 2; k++) store_vf(&to->scales[b + k][v], scale[k]);
      store_vi(&d[0][v], (vi)_mm256_blend_epi16((__m256i)low, (__m256i)high, 0x55));
    }
}

/* acc[t] += the group times T tokens */
static inline __attribute__((always_inline)) void multiply_nibbles(const int T, const NibbleGroup* g, i64 blocks, float (*acc)[TILE]) {
  const i32(*d)[TILE] = g->dwords;
  _Pragma("clang loop unroll(disable)") for (i64 b = 0; b < blocks; d += 5 - b % 2, b++) {
    vi pairs[TILE_VECTORS][MOST_NIBBLE_TOKENS];
    UNROLL for (int i = 0; i < TILE_VECTORS; i++)
      UNROLL for (int t = 0; t < T; t++) pairs[i][t] = vi_of(0);
    _Pragma("clang loop unroll_count(2)") for (int k = 0; k < 8; k++) { /* low and high nibbles of each dword */
      vi w[TILE_VECTORS];
      UNROLL for (int i = 0; i < TILE_VECTORS; i++) {
        const __m256i both = (__m256i)load_vi(&d[k / 2][i * LANES]);
        w[i] = (vi)(k % 2 ? _mm256_srli_epi16(both, 4) : both) & 0x0f0f0f0f;
      }
      UNROLL for (int t = 0; t < T; t++) {
        const i32 four = *(const i32*)(g->tokens[t].bytes[b] + 16 * (k % 2) + 4 * (k / 2));
        UNROLL for (int i = 0; i < TILE_VECTORS; i++) pairs[i][t] = add_pairs(pairs[i][t], w[i], four); /* as in dot_nibbles */
      }
      UNROLL for (int i = 0; i < TILE_VECTORS; i++)
        UNROLL for (int t = 0; t < T; t++) keep_order(&pairs[i][t]);
    }
    UNROLL for (int t = 0; t < T; t++)
      UNROLL for (int i = 0; i < TILE_VECTORS; i++) {
        const vi sum = add_sums(vi_of(g->tokens[t].starts[b]), pairs[i][t]);
        const vf scale = load_vf(&g->scales[b][i * LANES]) * vf_of(g->tokens[t].scales[b]);
        store_vf(&acc[t][i * LANES], fma_vf(vf_of_vi(sum), scale, load_vf(&acc[t][i * LANES])));
      }
  }
}

/* acc[t] += all columns times two or three activations; 0 where a panel is needed. */
int OF_BODY(stream_few)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* room) {
  NibbleGroup* group = (NibbleGroup*)room->floats;
  const i64 all = m->columns / BLOCK;
  if (m->format != Q4_0 || tokens < 2 || tokens > MOST_NIBBLE_TOKENS || all % 2) return 0;
  for (i64 first = 0; first < all; first += NIBBLE_BLOCKS) {
    const i64 blocks = min_i64(NIBBLE_BLOCKS, all - first);
    load_nibbles(m, rows, first, blocks, group);
    for (i64 t = 0; t < tokens; t++) load_token(Q4_0, x, t, first, blocks, &group->tokens[t]);
    if (tokens == 2) multiply_nibbles(2, group, blocks, acc);
    else multiply_nibbles(3, group, blocks, acc);
  }
  return 1;
}
