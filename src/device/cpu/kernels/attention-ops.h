/*
 * Attention, the lightning indexer's scores and the compressor. Rows of paged caches are found through page tables; 16 of
 * them make a tile, as the rows of a weight do, so that the products with all heads are those of product.h.
 */
#pragma once
#include "matrix-ops.h"
#include "softmax.h"

/* Tables of a paged cache: slots from the first: pool, width of a row, pages, width of the table, rows of a page. */
typedef struct {
  const float* pool;
  i64 width;
  const i32* pages;
  i64 table_width, page_rows;
} Cache;

static inline Cache cache_at(const Command* c, int slot) {
  return (Cache){at(c, slot), whole(c, slot + 1), at(c, slot + 2), whole(c, slot + 3), whole(c, slot + 4)};
}

static inline const float* cache_row(const Cache* cache, i64 sequence, i64 row) {
  const i64 page = row / cache->page_rows;
  const i64 in_pool = cache->pages[sequence * cache->table_width + page % cache->table_width] * cache->page_rows + row % cache->page_rows;
  return cache->pool + in_pool * cache->width;
}

/*
 * One token and some of its heads at a time, the keys in blocks of 128: the running maximum starts at the sink.
 * 3 queries, 4 sinks, 5 positions, 6 sequences, 7 window cache, 12 entries cache (pool 0: none), 17 selected or 0, 18 k,
 * 19 tokens, 20 heads, 21 head size, 22 window size, 23 ratio, 24 output, 25 mass, 26 heads of a unit
 */
static void op_sparse_attention(const Command* c, Worker* w) {
  const Cache window = cache_at(c, 7), entries = cache_at(c, 12);
  const i32 *positions = at(c, 5), *sequences = at(c, 6), *selected = at(c, 17);
  const i64 k = whole(c, 18), tokens = whole(c, 19), heads = whole(c, 20), width = whole(c, 21), window_size = whole(c, 22);
  const i64 ratio = whole(c, 23), together = whole(c, 26), parts = (heads + together - 1) / together;
  const float *queries = at(c, 3), *sinks = at(c, 4);
  float *output = at(c, 24), *mass = at(c, 25);
  Activations x = {.floats = queries, .stride = width};
  TileScratch* scratch = (TileScratch*)w->scratch;
  for (i64 unit; (unit = next_unit(w, tokens * parts)) >= 0;) {
    const i64 t = unit / parts, h0 = unit % parts * together, n = min_i64(together, heads - h0), position = positions[t];
    const Softmax softmax = softmax_in(scratch->acc, n);
    for (i64 h = 0; h < n; h++) softmax.largest[h] = sinks[h0 + h], softmax.total[h] = 0;
    fill(softmax.sums, n * width, 0);
    x.first_row = t * heads + h0;
    const i64 oldest = max_i64(0, position - window_size + 1), in_window = position - oldest + 1;
    const i64 behind = !entries.pool ? 0 : selected ? k : (position + 1) / ratio;
    for (i64 key = 0; key < in_window + behind;) {
      const float* rows[KEY_BLOCK];
      i64 count = 0;
      for (; count < KEY_BLOCK && key < in_window + behind; key++) {
        const i64 entry = key - in_window, chosen = entry < 0 || !selected ? entry : selected[t * k + entry];
        if (entry < 0) rows[count++] = cache_row(&window, sequences[t], oldest + key);
        else if (chosen >= 0) rows[count++] = cache_row(&entries, sequences[t], chosen);
      }
      w->body->products->add_keys(&softmax, n, rows, 0, count, width, &x, scratch);
    }
    float* out = output + (t * heads + h0) * width; /* may be the memory of the queries, which are read by now */
    for (i64 h = 0; h < n; h++) {
      const float total = softmax.total[h], all = total + exp_vf(vf_of(sinks[h0 + h] - softmax.largest[h]))[0];
      mass[t * heads + h0 + h] = total / all;
      for (i64 i = 0; i < width; i += LANES) store_n(out + h * width + i, load_n(softmax.sums + h * width + i, width - i) / vf_of(all), width - i);
    }
  }
}

/* Queries of a unit, for which keys are unpacked once, also where they are split into parts. See src/device/cpu/vision-slots.ts. */
enum { FULL_QUERIES = 64, QUERIES_IN_PARTS = 512, WIDEST_IN_PARTS = 128 };

/*
 * Attention without a mask (the vision tower): a unit is 64 queries of one head.
 * 3 qkv [tokens][3][heads][width], 4 output [tokens][heads][width], 5 tokens, 6 heads, 7 width
 */
static void op_full_attention(const Command* c, Worker* w) {
  const i64 tokens = whole(c, 5), heads = whole(c, 6), width = whole(c, 7), stride = 3 * heads * width;
  const i64 parts = (tokens + FULL_QUERIES - 1) / FULL_QUERIES;
  const float* qkv = at(c, 3);
  float* output = at(c, 4);
  TileScratch* scratch = (TileScratch*)w->scratch;
  if (w->body->attend_in_parts && tokens >= TILE && width % BLOCK == 0 && width <= WIDEST_IN_PARTS) {
    const i64 groups = (tokens + QUERIES_IN_PARTS - 1) / QUERIES_IN_PARTS;
    for (i64 unit; (unit = next_unit(w, heads * groups)) >= 0;) {
      const i64 h = unit / groups, t0 = unit % groups * QUERIES_IN_PARTS, n = min_i64(QUERIES_IN_PARTS, tokens - t0);
      const float *keys = qkv + (heads + h) * width, *values = keys + heads * width;
      float* to = output + (t0 * heads + h) * width;
      w->body->attend_in_parts(qkv + t0 * stride + h * width, n, keys, values, tokens, stride, width, to, heads * width, scratch->acc);
    }
    return;
  }
  const Softmax softmax = softmax_in(scratch->acc, FULL_QUERIES);
  Activations x = {.floats = qkv, .stride = stride, .together = 1};
  for (i64 unit; (unit = next_unit(w, heads * parts)) >= 0;) {
    const i64 h = unit / parts, t0 = unit % parts * FULL_QUERIES, n = min_i64(FULL_QUERIES, tokens - t0);
    const float* values = qkv + (2 * heads + h) * width;
    x.first_row = t0;
    x.first_column = h * width;
    for (i64 q = 0; q < n; q++) softmax.largest[q] = -__builtin_inff(), softmax.total[q] = 0;
    fill(softmax.sums, n * width, 0);
    for (i64 first = 0; first < tokens; first += KEY_BLOCK) {
      const i64 count = min_i64(KEY_BLOCK, tokens - first);
      const float* rows[KEY_BLOCK];
      for (i64 i = 0; i < count; i++) rows[i] = values + (first + i) * stride;
      w->body->products->add_keys(&softmax, n, rows, heads * width, count, width, &x, scratch);
    }
    for (i64 q = 0; q < n; q++)
      for (i64 i = 0; i < width; i += LANES)
        store_n(output + ((t0 + q) * heads + h) * width + i, load_n(softmax.sums + q * width + i, width - i) / vf_of(softmax.total[q]), width - i);
  }
}

/* Blocks of a pool, rising and padded with -1, and where a walk along the entries stands in them. */
typedef struct {
  const i32* blocks;
  i64 count, size, at;
} Pool;

/* From the first block that ends behind an entry. */
static inline Pool pool_from(const i32* blocks, i64 count, i64 size, i64 entry) {
  i64 low = 0, high = blocks ? count : 0;
  while (low < high) {
    const i64 middle = (low + high) / 2;
    if (blocks[middle] >= 0 && (blocks[middle] + 1) * size <= entry) low = middle + 1;
    else high = middle;
  }
  return (Pool){blocks, count, size, low};
}

/* Whether an entry is in the pool; entries are asked for in rising order. Without blocks all are. */
static inline i32 is_in_pool(Pool* pool, i64 entry) {
  if (!pool->blocks) return 1;
  while (pool->at < pool->count && pool->blocks[pool->at] >= 0 && (pool->blocks[pool->at] + 1) * pool->size <= entry) pool->at++;
  return pool->at < pool->count && pool->blocks[pool->at] >= 0 && pool->blocks[pool->at] * pool->size <= entry;
}

/*
 * 3 queries, 4 weights, 5 keys cache, 10 sequences, 11 positions, 12 tokens, 13 heads, 14 width, 15 ratio, 16 scores, 17 columns,
 * 18 blocks of the pool or 0, 19 blocks of a token, 20 size of a block
 * A unit is one token and 128 entries.
 */
static void op_indexer_scores(const Command* c, Worker* w) {
  const float *queries = at(c, 3), *weights = at(c, 4);
  const Cache keys = cache_at(c, 5);
  const i32 *sequences = at(c, 10), *positions = at(c, 11), *blocks = at(c, 18);
  const i64 tokens = whole(c, 12), heads = whole(c, 13), width = whole(c, 14), ratio = whole(c, 15), columns = whole(c, 17);
  float* scores = at(c, 16);
  Activations x = {.floats = queries, .stride = width};
  TileScratch* scratch = (TileScratch*)w->scratch;
  const i64 parts = (columns + KEY_BLOCK - 1) / KEY_BLOCK;
  for (i64 unit; (unit = next_unit(w, tokens * parts)) >= 0;) {
    const i64 t = unit / parts, visible = (positions[t] + 1) / ratio;
    float* row = scores + t * columns;
    x.first_row = t * heads;
    const i64 first = unit % parts * KEY_BLOCK, end = min_i64(first + KEY_BLOCK, columns);
    Pool pool = pool_from(blocks ? blocks + t * whole(c, 19) : 0, whole(c, 19), whole(c, 20), first);
    for (i64 e = first; e < end; e += TILE) {
      const i64 n = min_i64(TILE, end - e), seen = max_i64(0, min_i64(n, visible - e));
      i32 inside[TILE], any = 0;
      for (i64 i = 0; i < n; i++) {
        row[e + i] = -__builtin_inff();
        any |= inside[i] = i < seen && is_in_pool(&pool, e + i);
      }
      if (!any) continue;
      const u8* tile[TILE];
      for (i64 r = 0; r < TILE; r++) tile[r] = (const u8*)cache_row(&keys, sequences[t], e + min_i64(r, seen - 1));
      w->body->products->product_of_cache_rows(tile, width, &x, heads, scratch->acc, &scratch->panel);
      float sum[TILE];
      FOR_VECTORS {
        vf score = vf_of(0);
        for (i64 h = 0; h < heads; h++) score = fma_vf(vf_of(weights[t * heads + h]), max_vf(load_vf(&scratch->acc[h][v]), vf_of(0)), score);
        store_vf(sum + v, score);
      }
      for (i64 i = 0; i < seen; i++)
        if (inside[i]) row[e + i] = sum[i];
    }
  }
}

/*
 * 3 values cache, 8 gates pool, 9 position bias or 0, 10 sequences, 11 entries, 12 count, 13 ratio, 14 overlap, 15 y
 * A unit is one entry; channels are the lanes, sixteen at a time. The first pass over its rows finds the greatest logits.
 */
static void op_compress_entries(const Command* c, Worker* w) {
  const Cache values = cache_at(c, 3);
  const float *gates = at(c, 8), *bias = at(c, 9);
  const i32 *sequences = at(c, 10), *entries = at(c, 11);
  const i64 ratio = whole(c, 13), overlap = whole(c, 14), channels = values.width, width = overlap ? channels / 2 : channels;
  for (i64 e; (e = next_unit(w, whole(c, 12))) >= 0;) {
    const i64 group = (i64)entries[e] * ratio, before = overlap ? max_i64(0, group - ratio) : group;
    float* y = (float*)at(c, 15) + e * width;
    for (i64 first = 0; first < width; first += TILE) {
      const i64 n = min_i64(TILE, width - first);
      float largest[TILE], sum[TILE], mean[TILE];
      fill(largest, TILE, -__builtin_inff());
      fill(sum, TILE, 0);
      fill(mean, TILE, 0);
      for (int pass = 0; pass < 2; pass++)
        for (i64 row = before; row < group + ratio; row++) {
          /* a token of this group offers its second half when entries overlap, one of the group before its first half */
          const i64 channel = first + (overlap && row >= group ? width : 0);
          const float* value = cache_row(&values, sequences[e], row) + channel;
          const float* gate = gates + (value - values.pool);
          for (i64 v = 0; v < n; v += LANES) {
            vf logit = load_n(gate + v, n - v);
            if (bias) logit += load_n(bias + row % ratio * channels + channel + v, n - v);
            if (pass == 0) store_vf(largest + v, max_vf(load_vf(largest + v), logit));
            else {
              const vf weight = exp_vf(logit - load_vf(largest + v));
              store_vf(sum + v, load_vf(sum + v) + weight);
              store_vf(mean + v, fma_vf(weight, load_n(value + v, n - v), load_vf(mean + v)));
            }
          }
        }
      for (i64 v = 0; v < n; v += LANES) store_n(y + first + v, load_vf(mean + v) / load_vf(sum + v), n - v);
    }
  }
}
