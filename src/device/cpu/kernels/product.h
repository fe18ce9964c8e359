/*
 * One tile of a matrix product: acc[t][r] = row r of the tile . activation t, for 16 rows and any number of tokens. The tile is
 * unpacked stretch by stretch into a panel, and each stretch is multiplied with all tokens while it is in the cache: weights
 * are read once, in place, whatever the number of tokens.
 *
 * Order of the sums, the same for any number of tokens and workers:
 *   whole numbers  for each block: int32, exact; then one fused multiply-add of it, times scale of weight times scale of x
 *   floats         four sums by column modulo 4 over a stretch of 512 columns, (s0 + s1) + (s2 + s3), then stretch after stretch;
 *                  FP8: sixteen by column modulo 16, each four of them so, then the four results in the same way
 */
#pragma once
#include "float-products.h"
#include "float-streams.h"

/* Up to so many tokens, FP4 is multiplied faster token by token than from a panel. */
enum { SHORT_STRETCH = 128, FEW_ROWS_TOKENS = 64, MOST_FP4_STREAMS = LANES == 16 ? 4 : LANES == 8 ? 3 : 1 };

/* Scratch of a worker for tile products: the panel, sums of rows that are worked on one by one, then accumulators. */
struct TileScratch {
  Panel panel;
  float one[FEW_ROWS_TOKENS][TILE] __attribute__((aligned(64)));
  float acc[][TILE];
};

static inline void clear(float (*acc)[TILE], i64 tokens) {
  for (i64 t = 0; t < tokens; t++) FOR_VECTORS store_vf(&acc[t][v], vf_of(0));
}

/* acc[t][r] = row r . activation t */
static NEVER_INLINE void product_of_rows(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel, const Body* body) {
  clear(acc, tokens);
  if (is_block_format(m->format) && x->bytes) {
    if (tokens <= (m->format == FP4 ? MOST_FP4_STREAMS : 1)) {
      Matrix again = *m; /* of what the first token has fetched nothing is fetched twice */
      Activations one = *x;
      i64 t = 0;
      for (; t < tokens && body->stream_blocks(t ? &again : m, rows, &one, acc[t]); t++) one.first_row++, again.ahead = 0;
      if (t == tokens) return;
    }
    if (body->stream_few && body->stream_few(m, rows, x, tokens, acc, panel)) return;
    /* The length of a stretch changes no sum here. For few tokens it is short: fetching the next tile and multiplying this one
       then take turns so quickly that memory is never idle. */
    const i64 stretch = tokens > 4 ? STRETCH : m->format == Q4_K || m->format == Q6_K ? 256 : SHORT_STRETCH;
    for (i64 first = 0; first < m->columns; first += stretch) {
      const i64 count = min_i64(stretch, m->columns - first);
      unpack_blocks(m, rows, first, count, panel);
      body->multiply_bytes(m->format, panel, first, count, x, 0, tokens, acc);
    }
    return;
  }
  for (i64 first = 0; first < m->columns; first += STRETCH) {
    const i64 count = min_i64(STRETCH, m->columns - first);
    if (stream_floats(m, rows, first, count, x, tokens, acc, panel)) continue;
    forget_scaled(x); /* this takes their place */
    unpack_floats(m, rows, first, count, panel);
    multiply_floats(panel, first, count, sums_of_format(m->format), x, tokens, acc);
  }
}

/* The same for 16 rows of a paged cache. */
static void product_of_cache_rows(const u8* const rows[TILE], i64 columns, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel) {
  clear(acc, tokens);
  for (i64 first = 0; first < columns; first += STRETCH) {
    const i64 count = min_i64(STRETCH, columns - first);
    unpack_cache_rows(rows, first, count, panel);
    multiply_floats(panel, first, count, sums_of_format(F32), x, tokens, acc);
  }
}

/*
 * The tile that begins at `row`, of a matrix that ends before row `end`: acc[t][lane + r] = row r of the tile . activation t, where
 * lane is returned. It is 0 but for the last tile, which is moved back so that all its rows exist.
 * Meanwhile as many bytes are fetched from `ahead` on (0: none; a wrong guess does no harm).
 */
static i64 product_of_tile(const Matrix* matrix, i64 row, i64 end, const u8* ahead, const Activations* x, i64 tokens,
                           float (*acc)[TILE], const Worker* w) {
  Matrix m = *matrix;
  TileScratch* scratch = (TileScratch*)w->scratch;
  const Products* products = w->body->products;
  m.bias_8 = w->body->bias_8;
  if (end < TILE) { /* fewer rows than a tile has: one by one, each as all rows of a tile */
    for (i64 r = row; r < end; r++) {
      for (i64 t0 = 0; t0 < tokens; t0 += FEW_ROWS_TOKENS) {
        const i64 n = min_i64(tokens - t0, FEW_ROWS_TOKENS);
        Activations part = *x;
        if (part.index) part.index += t0;
        part.first_row += t0;
        products->product_of_rows(&m, (Rows){m.data + r * m.row_bytes, 0, r}, &part, n, scratch->one, &scratch->panel, w->body);
        for (i64 t = 0; t < n; t++) acc[t0 + t][r - row] = scratch->one[t][0];
      }
    }
    return 0;
  }
  const i64 begin = min_i64(row, end - TILE);
  const Rows rows = {m.data + begin * m.row_bytes, m.row_bytes, begin};
  m.ahead = ahead;
  products->product_of_rows(&m, rows, x, tokens, acc, &scratch->panel, w->body);
  return row - begin;
}
