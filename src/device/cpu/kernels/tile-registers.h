/*
 * The whole-number product of block-products.h in the tile registers of AMX, for many tokens: one instruction multiplies a block of 16 rows
 * with that of 16 tokens. The sums of a block are exact, and the same float operations follow in the same order, so that a token has
 * bitwise the product that it has alone.
 *
 *   A  [16 tokens][block] bytes                       of activations that lie together
 *   B  [block / 4][16 rows][4] bytes of the panel     as they are, but signed
 *   C  [16 tokens][16 rows] int32                     stored to the panel's `sums`, from there scaled and added to 16 vectors
 *
 * On a Sapphire Rapids core a block takes 65 cycles of its clock counter, 110 without tiles: 13 to multiply and 12 to store, which do
 * not overlap, and the rest for the scaling. For that one of two units is left: the other does no multiply-adds of 512 bits for
 * some 115 cycles after every instruction that touches a tile.
 */
#pragma once

enum {
  FEWEST_TOKENS_FOR_TILES = 9, /* eight are faster without: half of each tile would be empty */
  /* A vector that reads what a tile has just stored waits for it: the sums of a block are read some blocks later. */
  BLOCKS_BEHIND = 4,
};

/* Tile 0 is C, 1 is A, 2 is B. */
static inline void configure_tiles(int group) {
  struct {
    u8 palette, start_row, unused[14];
    u16 row_bytes[16];
    u8 rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1, .row_bytes = {64, (u16)group, 64}, .rows = {TOGETHER, TOGETHER, (u8)(group / 4)}};
  _tile_loadconfig(&config);
}

/* Takes the zero point off the weights, which makes them signed bytes. */
static inline void sign_panel(Panel* p, i64 count, i32 zero) {
  const __m512i all = _mm512_set1_epi8((char)zero);
  for (i64 i = 0; i < count / 4; i++) store_vi(p->bytes[i], (vi)_mm512_sub_epi8((__m512i)load_vi(p->bytes[i]), all));
}

/* acc[t] for n <= 16 tokens that lie together. Those that are missing are multiplied as well, whatever stands in their place. */
static inline __attribute__((always_inline)) void tile_of_tokens(Kind kind, Panel* p, i64 first, i64 count, const Activations* x,
                                                                 i64 t0, i64 n, float (*acc)[TILE]) {
  const i64 groups = count / kind.group, block = block_of(x, activation_row(x, t0), first);
  const i8* bytes = x->bytes + BLOCK * block;
  const float* scales = x->scales + block;
  const i32* sums_of_x = x->sums + 2 * block;
  vf total[TOGETHER];
  UNROLL for (int t = 0; t < TOGETHER; t++) total[t] = t < n ? load_vf(acc[t]) : vf_of(0);
  for (i64 g = 0; g < groups + BLOCKS_BEHIND; g++) {
    if (g < groups) {
      _tile_zero(0);
      _tile_loadd(1, bytes + g * kind.group / BLOCK * BLOCK * TOGETHER + g * kind.group % BLOCK, BLOCK);
      _tile_loadd(2, &p->bytes[g * kind.group / 4], sizeof p->bytes[0]);
      _tile_dpbssd(0, 1, 2);
      _tile_stored(0, p->sums[g % SUMS_KEPT], sizeof p->sums[0][0]);
    }
    const i64 done = g - BLOCKS_BEHIND, b = done * kind.group / BLOCK;
    if (done < 0) continue;
    const vf scale = load_vf(p->scales[done]);
    i32(*sums)[TILE] = p->sums[done % SUMS_KEPT];
    const float* of_x = scales + b * TOGETHER;
    MOVING(sums);
    MOVING(of_x);
    UNROLL for (int t = 0; t < TOGETHER; t++) total[t] = fma_vf(vf_of_vi(load_vi(sums[t])), scale * vf_of(of_x[t]), total[t]);
    if (kind.has_minima) {
      const vf minimum = load_vf(p->minima[b]);
      const vi sum = load_vi(sums_of_x + 2 * b * TOGETHER) + load_vi(sums_of_x + (2 * b + 1) * TOGETHER);
      float offset[TOGETHER];
      store_vf(offset, -load_vf(scales + b * TOGETHER) * vf_of_vi(sum));
      UNROLL for (int t = 0; t < TOGETHER; t++) total[t] = fma_vf(minimum, vf_of(offset[t]), total[t]);
    }
  }
  UNROLL for (int t = 0; t < TOGETHER; t++)
    if (t < n) store_vf(acc[t], total[t]);
}

/* Tokens t0 .. tokens, of which t0 begins a group. */
static inline void bytes_in_tiles(Kind kind, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]) {
  configure_tiles(kind.group);
  if (kind.zero) sign_panel(p, count, kind.zero);
  for (i64 t = t0; t < tokens; t += TOGETHER) tile_of_tokens(kind, p, first, count, x, t, min_i64(TOGETHER, tokens - t), acc + t);
  _tile_release(); /* a thread whose tiles are in use is dear to switch, and its core does not sleep deeply */
}
