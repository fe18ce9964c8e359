/*
 * Float products in the tile registers of AMX, for rows that are always computed together: the patches of an image. Sums are taken in
 * another order than one token alone has them in, which text must not see (float-products.h).
 *
 * The 24 bits of a float32 number are three times eight: x = high + middle + low, each a BF16 number and the sum exact. With weights in
 * BF16 three products of tiles lose no more than float32 sums do. Of two float32 numbers six do: those that are left out are 2^-24 of the
 * whole. BF16 numbers below 2^-126 count as zero, which the instruction says.
 *
 *   A  [16 rows][32 columns] of one part              cut from x into the worker's scratch
 *   B  [32 columns / 2][16 columns of y][2]           rows of weights, or keys, transposed in pairs of columns; pairs of values
 *   C  [16 rows][16 columns of y] float32             in memory, where it waits from stretch to stretch
 */
#pragma once
#include "activations.h"
#include "elementary.h"

/* For size: what is hot here are instructions on tiles and vectors, of which there are as many either way. */
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

enum {
  PARTS = 3,
  KEYS_TOGETHER = 128,
  TILE_ROWS = 2 * TILE, /* of weights, and of x: four accumulators, so that none waits for the product before */
};

/* 16 rows and 32 columns of x. */
typedef struct {
  u16 part[PARTS][TOGETHER][BLOCK];
} SplitTile;

typedef u16 halves __attribute__((vector_size(4 * LANES), may_alias));

/* The first rows of a pair of tiles, and the others, may be fewer than 16. Tiles 0 to 3 are C, 4 and 5 A, 6 and 7 B. */
static inline void configure_float_tiles(i64 rows) {
  const u8 first = (u8)min_i64(rows, TILE), second = (u8)(rows > TILE ? rows - TILE : 1);
  struct {
    u8 palette, start_row, unused[14];
    u16 row_bytes[16];
    u8 rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {first, first, second, second, first, second, TILE, TILE}};
  _tile_loadconfig(&config);
}

static inline __attribute__((always_inline)) void split(vf x, vi part[PARTS]) {
  const vi bits = (vi)x;
  part[0] = bits & (i32)0xffff0000;
  const vf rest = (vf)((vi)(x - (vf)part[0]) & ((bits & 0x7fffffff) != 0x7f800000)); /* nothing behind Infinity */
  part[1] = (vi)rest & (i32)0xffff0000;
  part[2] = (vi)(rest - (vf)part[1]);
}

/* The upper halves of a, then those of b. */
static inline halves join_halves(vi a, vi b) {
  return __builtin_shufflevector((halves)a, (halves)b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45,
                                 47, 49, 51, 53, 55, 57, 59, 61, 63);
}

/* 32 columns of a row of a tile. */
static NEVER_INLINE void split_pair(vf first, vf second, SplitTile* tile, i64 row) {
  vi a[PARTS], b[PARTS];
  split(first, a);
  split(second, b);
  UNROLL for (int p = 0; p < PARTS; p++) *(halves*)tile->part[p][row] = join_halves(a[p], b[p]);
}

/* `count` columns of n rows from x on, `stride` floats apart; the last tile of a row is filled up with zeros. */
static NEVER_INLINE void split_rows(const float* x, i64 stride, i64 n, i64 count, SplitTile* into) {
  const i64 tiles = (count + BLOCK - 1) / BLOCK;
  for (i64 t = 0; t < n; t++)
    for (i64 k = 0; k < tiles; k++) {
      const float* from = x + t * stride + k * BLOCK;
      const i64 left = count - k * BLOCK;
      const vf second = left > LANES ? load_n(from + LANES, left - LANES) : vf_of(0);
      split_pair(load_n(from, left), second, into + t / TOGETHER * tiles + k, t % TOGETHER);
    }
}

/* Columns of 16 rows of BF16 numbers in pairs, up to a whole number of tiles. */
static NEVER_INLINE void pair_columns(const u8* from, i64 row_bytes, i64 count, i32 (*pairs)[TILE]) {
  vi t[4];
  i64 c = 0;
  for (; c + 8 <= count; c += 8) {
    transpose_16_bytes(from, row_bytes, 0, 2 * c, t);
    UNROLL for (int j = 0; j < 4; j++) store_vi(pairs[c / 2 + j], t[j]);
  }
  for (; c % BLOCK || c < count; c += 2)
    for (int r = 0; r < TILE; r++) {
      const u16_at* column = (const u16_at*)(from + r * row_bytes) + c;
      pairs[c / 2][r] = (i32)((c < count ? column[0] : 0u) | (c + 1 < count ? (u32)column[1] << 16 : 0u));
    }
}

/* The right-hand side of a product: where tiles of 16 columns of y begin, and the parts of one, in rows of a tile. */
typedef struct {
  const i32 (*pairs)[TILE];
  i64 next_columns, next_part;
} Pairs;

/* y[rows][32] (+)= x w for 1 to 32 rows, of so many tiles of columns of x; w has 1 or 3 parts. */
static NEVER_INLINE void product_in_tiles(i64 rows, const SplitTile* x, i64 tiles, const Pairs* w, int parts, float* y, i64 stride, int begins) {
  const i64 bytes = 4 * stride;
  const int both = rows > TILE;
  float* second = y + TILE * stride;
  if (begins) {
    _tile_zero(0);
    _tile_zero(1);
    if (both) _tile_zero(2);
    if (both) _tile_zero(3);
  } else {
    _tile_loadd(0, y, bytes);
    _tile_loadd(1, y + TILE, bytes);
    if (both) _tile_loadd(2, second, bytes);
    if (both) _tile_loadd(3, second + TILE, bytes);
  }
  for (i64 k = 0; k < tiles; k++) {
    for (int of_w = 0; of_w < parts; of_w++) {
      const i32(*pairs)[TILE] = w->pairs + of_w * w->next_part + k * TILE;
      _tile_loadd(6, pairs, 64);
      _tile_loadd(7, pairs + w->next_columns, 64);
      for (int p = 0; p < PARTS - of_w; p++) {
        _tile_loadd(4, x[k].part[p], 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (!both) continue;
        _tile_loadd(5, x[tiles + k].part[p], 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, y, bytes);
  _tile_stored(1, y + TILE, bytes);
  if (both) _tile_stored(2, second, bytes);
  if (both) _tile_stored(3, second + TILE, bytes);
}

/* y[t][row .. end] for n rows of x; end - row is a multiple of TILE_ROWS. */
void OF_BODY(multiply_parts)(const Matrix* m, i64 row, i64 end, const float* x, i64 n, float* y, i64 stride, Panel* panel, void* scratch) {
  SplitTile* split_x = scratch;
  i32(*w)[TILE] = (i32(*)[TILE])panel->floats;
  const Pairs pairs = {(const i32(*)[TILE])w, STRETCH / 2, 0};
  for (i64 first = 0; first < m->columns; first += STRETCH) {
    const i64 count = min_i64(STRETCH, m->columns - first), tiles = (count + BLOCK - 1) / BLOCK;
    split_rows(x + first, m->columns, n, count, split_x);
    for (i64 r = row; r < end; r += TILE_ROWS) {
      for (i64 half = 0; half < 2; half++)
        pair_columns(m->data + (r + half * TILE) * m->row_bytes + 2 * first, m->row_bytes, count, w + half * pairs.next_columns);
      configure_float_tiles(TILE_ROWS);
      for (i64 t = 0; t < n; t += TILE_ROWS) {
        if (n - t < TILE_ROWS) configure_float_tiles(n - t);
        product_in_tiles(n - t, split_x + t / TILE * tiles, tiles, &pairs, 1, y + t * stride + r, stride, first == 0);
      }
    }
  }
  _tile_release();
}

/* Parts of up to KEYS_TOGETHER keys: [part][16 keys together][width / 2][16]. Those that are missing, up to a whole tile, are anything. */
static void pair_keys(const float* keys, i64 stride, i64 count, i64 width, SplitTile* split_keys, i32 (*pairs)[TILE]) {
  const i64 next_part = KEYS_TOGETHER * width / 2 / TILE;
  for (i64 first = 0; first < count; first += TILE) {
    split_rows(keys + first * stride, stride, min_i64(TILE, count - first), width, split_keys);
    for (i64 c = 0; c < width; c += BLOCK)
      for (int p = 0; p < PARTS; p++)
        pair_columns((const u8*)split_keys[c / BLOCK].part[p], 2 * BLOCK, BLOCK, pairs + p * next_part + (first / TILE * width + c) / 2);
  }
}

/* Parts of as many values: [part][16 channels together][KEYS_TOGETHER / 2][16]. Those that are missing, up to a whole tile, are zeros. */
static void pair_values(const float* values, i64 stride, i64 count, i64 width, i32 (*pairs)[TILE]) {
  const i64 next_part = KEYS_TOGETHER * width / 2 / TILE;
  for (i64 key = 0; key < count || key % BLOCK; key += 2)
    for (i64 c = 0; c < width; c += TILE) {
      const float* from = values + key * stride + c;
      const vf first = key < count ? load_vf(from) : vf_of(0), second = key + 1 < count ? load_vf(from + stride) : vf_of(0);
      vi a[PARTS], b[PARTS];
      split(first, a);
      split(second, b);
      UNROLL for (int p = 0; p < PARTS; p++) store_vi(pairs[p * next_part + (c / TILE * KEYS_TOGETHER + key) / 2], (vi)((vu)a[p] >> 16) | b[p]);
    }
}

/* e^x of numbers of at most 0: below -104 the result is 0. As exp_vf, with what AVX-512 has for it. */
static inline vf exp_of_negative(vf x) {
  const vf bounded = max_vf(vf_of(-104.0f), x);
  const vf k = (vf)_mm512_roundscale_ps((__m512)(bounded * vf_of(1.44269504f)), 0);
  return (vf)_mm512_scalef_ps((__m512)exp_over_power(bounded, k), (__m512)k);
}

/* Of up to 32 queries: the greatest logit so far, the sum of all weights, and what the keys before are scaled by; 32 numbers each. */
typedef struct {
  float *largest, *total, *factor;
} Weighed;

/* The weights of the keys of `tiles` tiles in parts, from their logits; those of missing keys are -Infinity. */
static void weigh_in_parts(const float* logits, i64 rows, i64 tiles, float scale, Weighed w, SplitTile* weights) {
  for (i64 q = 0; q < rows; q++) {
    vf most = load_vf(logits + q * KEYS_TOGETHER);
    for (i64 i = LANES; i < tiles * BLOCK; i += LANES) most = max_vf(most, load_vf(logits + q * KEYS_TOGETHER + i));
    w.factor[q] = _mm512_reduce_max_ps((__m512)most) * scale;
  }
  for (i64 q = 0; q < rows; q += LANES) {
    const vf before = load_vf(w.largest + q), most = max_vf(before, load_vf(w.factor + q)), factor = exp_of_negative(before - most);
    store_vf(w.largest + q, most);
    store_vf(w.factor + q, factor);
    store_vf(w.total + q, load_vf(w.total + q) * factor);
  }
  for (i64 q = 0; q < rows; q++) {
    const vf most = vf_of(w.largest[q]);
    vf sum = vf_of(0);
    for (i64 k = 0; k < tiles; k++) {
      const float* from = logits + q * KEYS_TOGETHER + k * BLOCK;
      const vf first = exp_of_negative(fma_vf(load_vf(from), vf_of(scale), -most));
      const vf second = exp_of_negative(fma_vf(load_vf(from + LANES), vf_of(scale), -most));
      split_pair(first, second, weights + q / TOGETHER * tiles + k, q % TOGETHER);
      sum += first + second;
    }
    w.total[q] += _mm512_reduce_add_ps((__m512)sum);
  }
}

/*
 * Attention without a mask for n queries of a head: output[q] = the values of all keys by the softmax of the logits. Keys and values are
 * split once for all queries, of which 32 are worked on at a time.
 *   queries [n][width], keys and values [count][width], rows of all three `stride` apart, those of output `output_stride`; width is a
 *   multiple of 32. How much scratch: src/device/cpu/vision-slots.ts.
 */
void OF_BODY(attend_in_parts)(const float* queries, i64 n, const float* keys, const float* values, i64 count, i64 stride, i64 width,
                              float* output, i64 output_stride, void* scratch) {
  const i64 tiles = width / BLOCK, pair_rows = KEYS_TOGETHER * width / 2 / TILE;
  i32(*key_pairs)[TILE] = scratch, (*value_pairs)[TILE] = key_pairs + PARTS * pair_rows;
  SplitTile *split_queries = (SplitTile*)(value_pairs + PARTS * pair_rows), *weights = split_queries + (n + TILE - 1) / TILE * tiles;
  float *logits = (float*)(weights + 2 * KEYS_TOGETHER / BLOCK), *sums = logits + TILE_ROWS * KEYS_TOGETHER;
  const i64 room = (n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
  const Weighed all = {sums + room * width, all.largest + room, all.total + room};
  const float scale = (float)(1.0 / __builtin_sqrt((double)width));
  split_rows(queries, stride, n, width, split_queries);
  for (i64 q = 0; q < room; q++) all.largest[q] = -__builtin_inff(), all.total[q] = 0;
  for (i64 i = 0; i < room * width; i += LANES) store_vf(sums + i, vf_of(0));
  for (i64 first = 0; first < count; first += KEYS_TOGETHER) {
    const i64 here = min_i64(KEYS_TOGETHER, count - first), key_tiles = (here + BLOCK - 1) / BLOCK;
    pair_keys(keys + first * stride, stride, here, width, weights, key_pairs); /* before the weights are there */
    pair_values(values + first * stride, stride, here, width, value_pairs);
    for (i64 q = 0; q < n; q += TILE_ROWS) {
      const i64 rows = min_i64(TILE_ROWS, n - q);
      const Weighed weighed = {all.largest + q, all.total + q, all.factor + q};
      configure_float_tiles(rows);
      for (i64 k = 0; k < key_tiles; k++) {
        const Pairs pairs = {(const i32(*)[TILE])key_pairs + k * width, width / 2, pair_rows};
        product_in_tiles(rows, split_queries + q / TILE * tiles, tiles, &pairs, PARTS, logits + k * BLOCK, KEYS_TOGETHER, 1);
      }
      for (i64 i = 0; i < rows; i++)
        for (i64 k = here; k < key_tiles * BLOCK; k++) logits[i * KEYS_TOGETHER + k] = -__builtin_inff();
      weigh_in_parts(logits, rows, key_tiles, scale, weighed, weights);
      for (i64 i = 0; i < rows; i++) {
        float* sum = sums + (q + i) * width;
        for (i64 c = 0; c < width; c += LANES) store_vf(sum + c, load_vf(sum + c) * vf_of(weighed.factor[i]));
      }
      for (i64 c = 0; c < width; c += BLOCK) {
        const Pairs pairs = {(const i32(*)[TILE])value_pairs + c / TILE * KEYS_TOGETHER / 2, KEYS_TOGETHER / 2, pair_rows};
        product_in_tiles(rows, weights, key_tiles, &pairs, PARTS, sums + q * width + c, width, 0);
      }
    }
  }
  _tile_release();
  for (i64 q = 0; q < n; q++)
    for (i64 c = 0; c < width; c += LANES) store_vf(output + q * output_stride + c, load_vf(sums + q * width + c) / vf_of(all.total[q]));
}

#pragma clang attribute pop
