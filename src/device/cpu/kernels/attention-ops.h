/*
 * Attention, the lightning indexer's scores and the compressor. Rows of paged caches are found through page tables; 16 of
 * them make a tile, as the rows of a weight do, so that the products with all heads are those of product.h.
 */
#pragma once
#include "matrix-ops.h"

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

static __attribute__((noinline, cold)) void store_part(float* at, vf x, i64 n) {
  float lane[LANES];
  store_vf(lane, x);
  for (i64 i = 0; i < n; i++) at[i] = lane[i];
}

static inline void store_n(float* at, vf x, i64 n) {
  if (n >= LANES) store_vf(at, x);
  else store_part(at, x, n);
}

enum { KEY_BLOCK = 128, HEADS_TOGETHER = 4 };

/* sum[h][c] = sum[h][c] * factor[h] + weights[h][key] * rows[key][c], keys in order */
static void add_weighted_rows(float* sum, const float* factor, const float* weights, i64 heads, const float* const* rows, i64 keys, i64 width) {
  for (i64 h = 0; h < heads; h += HEADS_TOGETHER) {
    const i64 n = min_i64(HEADS_TOGETHER, heads - h);
    for (i64 c = 0; c < width; c += 2 * LANES) {
      const i64 left = width - c, second = left - LANES;
      vf low[HEADS_TOGETHER], high[HEADS_TOGETHER];
      for (i64 i = 0; i < HEADS_TOGETHER; i++) {
        const i64 row = (h + min_i64(i, n - 1)) * width + c;
        low[i] = load_n(sum + row, left) * vf_of(factor[h + min_i64(i, n - 1)]);
        high[i] = second > 0 ? load_n(sum + row + LANES, second) * vf_of(factor[h + min_i64(i, n - 1)]) : vf_of(0);
      }
      if (second >= LANES && n == HEADS_TOGETHER) {
        const float* weight = weights + h * KEY_BLOCK;
        for (i64 key = 0; key < keys; key++) {
          const vf a = load_vf(rows[key] + c), b = load_vf(rows[key] + c + LANES);
UNROLL
          for (int i = 0; i < HEADS_TOGETHER; i++) {
            const vf by = vf_of(weight[i * KEY_BLOCK + key]);
            low[i] = fma_vf(by, a, low[i]);
            high[i] = fma_vf(by, b, high[i]);
          }
        }
      } else {
        for (i64 key = 0; key < keys; key++) {
          const vf a = load_n(rows[key] + c, left), b = second > 0 ? load_n(rows[key] + c + LANES, second) : vf_of(0);
          for (i64 i = 0; i < n; i++) {
            const vf by = vf_of(weights[(h + i) * KEY_BLOCK + key]);
            low[i] = fma_vf(by, a, low[i]);
            high[i] = fma_vf(by, b, high[i]);
          }
        }
      }
      for (i64 i = 0; i < n; i++) {
        store_n(sum + (h + i) * width + c, low[i], left);
        if (second > 0) store_n(sum + (h + i) * width + c + LANES, high[i], second);
      }
    }
  }
}

/* The greatest of `count` numbers and `least`. */
static inline float greatest_of(const float* x, i64 count, float least) {
  vf most = vf_of(least);
  i64 i = 0;
  for (; i + LANES <= count; i += LANES) most = max_vf(load_vf(x + i), most);
  float lane[LANES];
  store_vf(lane, most);
  for (int k = 0; k < LANES; k++) least = lane[k] > least ? lane[k] : least;
  for (; i < count; i++) least = x[i] > least ? x[i] : least;
  return least;
}

/*
 * Softmax over keys that come in blocks, for n queries: what was summed is scaled down when a greater logit comes
 * (Dao et al. 2022, arXiv 2205.14135), so that scratch does not grow with the context.
 */
typedef struct {
  float *logits;         /* [n][KEY_BLOCK] */
  float *largest;        /* [n], of the logits so far; where it starts is the caller's choice */
  float *total, *factor; /* [n]: the sum of all exp(logit - largest), and what the last block scaled it by */
  float *sums;           /* [n][width] weighted rows */
} Softmax;

/* `scratch` divided for n queries; the sums lie behind everything else. */
static inline Softmax softmax_in(float (*acc)[TILE], i64 n) {
  float *logits = (float*)(acc + n), *largest = logits + n * KEY_BLOCK;
  return (Softmax){logits, largest, largest + n, largest + 2 * n, largest + 3 * n};
}

/* Adds at most KEY_BLOCK keys: rows[i] is the value of key i, the key itself lies `before` floats in front of it. */
static void add_keys(const Softmax* s, i64 n, const float* const* rows, i64 before, i64 count, i64 width, const Activations* queries,
                     TileScratch* scratch) {
  float(*acc)[TILE] = scratch->acc;
  const vf scale = vf_of((float)(1.0 / __builtin_sqrt((double)width)));
  for (i64 first = 0; first < count; first += TILE) {
    const u8* tile[TILE];
    for (i64 r = 0; r < TILE; r++) tile[r] = (const u8*)(rows[min_i64(first + r, count - 1)] - before);
    product_of_cache_rows(tile, width, queries, n, acc, &scratch->panel);
    for (i64 q = 0; q < n; q++) FOR_VECTORS store_vf(s->logits + q * KEY_BLOCK + first + v, load_vf(&acc[q][v]) * scale);
  }
  for (i64 q = 0; q < n; q++) {
    float* row = s->logits + q * KEY_BLOCK;
    const float most = greatest_of(row, count, s->largest[q]);
    s->factor[q] = exp_vf(vf_of(s->largest[q] - most))[0]; /* 0 at the first block of a softmax that starts at -Infinity */
    s->largest[q] = most;
    vf sum = vf_of(0);
    for (i64 i = 0; i < count; i += LANES) {
      vf weight = exp_vf(load_vf(row + i) - vf_of(most));
      for (i64 lane = count - i; lane < LANES; lane++) weight[lane] = 0;
      store_vf(row + i, weight);
      sum += weight;
    }
    s->total[q] = s->total[q] * s->factor[q] + sum_vf(sum);
  }
  add_weighted_rows(s->sums, s->factor, s->logits, n, rows, count, width);
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
    for (i64 i = 0; i < n * width; i++) softmax.sums[i] = 0;
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
      add_keys(&softmax, n, rows, 0, count, width, &x, scratch);
    }
    float* out = output + (t * heads + h0) * width; /* may be the memory of the queries, which are read by now */
    for (i64 h = 0; h < n; h++) {
      const float total = softmax.total[h], all = total + exp_vf(vf_of(sinks[h0 + h] - softmax.largest[h]))[0];
      mass[t * heads + h0 + h] = total / all;
      for (i64 i = 0; i < width; i++) out[h * width + i] = softmax.sums[h * width + i] / all;
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
  if (LANES == 16 && w->body->attend_in_parts && tokens >= TILE && width % BLOCK == 0 && width <= WIDEST_IN_PARTS) {
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
    for (i64 i = 0; i < n * width; i++) softmax.sums[i] = 0;
    for (i64 first = 0; first < tokens; first += KEY_BLOCK) {
      const i64 count = min_i64(KEY_BLOCK, tokens - first);
      const float* rows[KEY_BLOCK];
      for (i64 i = 0; i < count; i++) rows[i] = values + (first + i) * stride;
      add_keys(&softmax, n, rows, heads * width, count, width, &x, scratch);
    }
    for (i64 q = 0; q < n; q++)
      for (i64 i = 0; i < width; i++) output[((t0 + q) * heads + h) * width + i] = softmax.sums[q * width + i] / softmax.total[q];
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
      product_of_cache_rows(tile, width, &x, heads, scratch->acc, &scratch->panel);
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

static inline vf gate_logit(const float* gates, const float* bias, i64 channel, i64 n) {
  return bias ? load_n(gates + channel, n) + load_n(bias + channel, n) : load_n(gates + channel, n);
}

/*
 * 3 values cache, 8 gates pool, 9 position bias or 0, 10 sequences, 11 entries, 12 count, 13 ratio, 14 overlap, 15 y
 * A unit is one entry; channels are the lanes.
 */
static void op_compress_entries(const Command* c, Worker* w) {
  const Cache values = cache_at(c, 3);
  Cache gates = values;
  gates.pool = at(c, 8);
  const float* bias = at(c, 9);
  const i32 *sequences = at(c, 10), *entries = at(c, 11);
  const i64 ratio = whole(c, 13), overlap = whole(c, 14), channels = values.width, width = overlap ? channels / 2 : channels;
  float* y = at(c, 15);
  for (i64 e; (e = next_unit(w, whole(c, 12))) >= 0;) {
    const i64 group = (i64)entries[e] * ratio, first = overlap ? max_i64(0, group - ratio) : group;
    for (i64 at = 0; at < width; at += LANES) {
      const i64 n = width - at;
      vf largest = vf_of(-__builtin_inff());
      for (i64 row = first; row < group + ratio; row++) {
        /* a token of this group offers its second half when entries overlap, one of the group before its first half */
        const i64 channel = at + (overlap && row >= group ? width : 0);
        const vf logit = gate_logit(cache_row(&gates, sequences[e], row), bias ? bias + row % ratio * channels : 0, channel, n);
        largest = max_vf(largest, logit);
      }
      vf sum = vf_of(0), mean = vf_of(0);
      for (i64 row = first; row < group + ratio; row++) {
        const i64 channel = at + (overlap && row >= group ? width : 0);
        const vf logit = gate_logit(cache_row(&gates, sequences[e], row), bias ? bias + row % ratio * channels : 0, channel, n);
        const vf weight = exp_vf(logit - largest);
        sum += weight;
        mean = fma_vf(weight, load_n(cache_row(&values, sequences[e], row) + channel, n), mean);
      }
      store_n(y + e * width + at, mean / sum, n);
    }
  }
}
