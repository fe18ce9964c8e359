/*
 * One tile of a matrix product: acc[t][r] = row r of the tile . activation t, for 16 rows and any number of tokens. The tile is
 * unpacked stretch by stretch into a panel, and each stretch is multiplied with all tokens while it is in the cache: weights
 * are read once, in place, whatever the number of tokens.
 *
 * Order of the sums, the same for any number of tokens and workers:
 *   whole numbers  for each block: int32, exact; then one fused multiply-add of it, times scale of weight times scale of x
 *   floats         four sums by column modulo 4 over a stretch of 512 columns, (s0 + s1) + (s2 + s3), then stretch after stretch
 */
#pragma once
#include "panel.h"

/*
 * The right-hand side: float32 rows, or rows quantised to int8 blocks (bytes != 0). The latter lie as they are multiplied: row by row,
 * or TOGETHER rows next to each other, block by block, where there are many. Row i is index[i], or first_row + i.
 */
typedef struct {
  const float* floats; /* [row][stride] */
  const i8* bytes;     /* [row / together][block][row % together][BLOCK], -127..127 */
  const float* scales; /* [row / together][block][row % together] */
  const i32* sums;     /* [row / together][block][half][row % together], of the bytes */
  i64 stride;          /* columns of a row */
  i64 together;        /* 1 or TOGETHER */
  i64 first_row, first_column;
  const i32* index; /* or 0; only for rows that lie alone */
} Activations;

enum { TOGETHER = 16 };

static inline i64 activation_row(const Activations* x, i64 t) { return x->index ? x->index[t] : x->first_row + t; }
static inline const float* floats_of(const Activations* x, i64 t) { return x->floats + activation_row(x, t) * x->stride + x->first_column; }

/* The number of a row's block among all blocks. */
static inline i64 block_of(const Activations* x, i64 row, i64 column) {
  const i64 blocks = x->stride / BLOCK, b = (x->first_column + column) / BLOCK;
  return x->together == 1 ? row * blocks + b : row / TOGETHER * TOGETHER * blocks + b * TOGETHER + row % TOGETHER;
}
/* And where its two sums begin; the second follows `together` further on. */
static inline i64 sums_of(const Activations* x, i64 block) { return x->together == 1 ? 2 * block : 2 * block - block % TOGETHER; }

/*
 * What computes for one instruction set: its ops, and the products of int8 blocks. The latter stand apart because some sets have better
 * instructions for them and none for all else: such a body has the ops of another one (see bodies.h).
 */
struct Body {
  const Op* ops;
  /* acc[t] += columns first .. first + count of the panel times activation t, for tokens t0 .. tokens */
  void (*multiply_bytes)(i64 format, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]);
  /* acc[0] = all columns times one activation; 0 where a panel is needed */
  int (*stream_blocks)(const Matrix* m, Rows rows, const Activations* x, float* acc);
  i32 bias_8; /* what is added to an 8-bit weight in a panel */
};

#define JOIN(a, b) a##_##b
#define NAME_OF(name, body) JOIN(name, body)
/* The name of a function of this body that others call. */
#define OF_BODY(name) NAME_OF(name, BODY)

/* Tokens that are multiplied together: as many as registers allow. */
#if LANES == 16
#define TOKENS_OF_BYTES 8
#define TOKENS_OF_FLOATS 7
#elif defined(__aarch64__)
#define TOKENS_OF_BYTES 8
#define TOKENS_OF_FLOATS 6
#else
#define TOKENS_OF_BYTES 4
#define TOKENS_OF_FLOATS 2
#endif

enum { SHORT_STRETCH = 128 };

typedef struct {
  int is_8bit, group, has_minima;
  i32 zero;
} Kind;

static inline Kind kind_of(i64 format) {
  return (Kind){format == Q8_0, scale_group(format), has_minima(format), zero_point(format, BIAS_8)};
}

#if defined(BODY)
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
  for (int v = 0; v < TILE; v += LANES) {
    vf total[TOKENS_OF_BYTES];
    UNROLL for (int t = 0; t < T; t++) total[t] = load_vf(&acc[t0 + t][v]);
    for (i64 b = 0; b < count / BLOCK; b++) {
      for (int half = 0; half < BLOCK / group; half++) { /* Q6_K: two scales a block */
        const int dwords = group / 4;
        vi sum[TOKENS_OF_BYTES];
        UNROLL for (int t = 0; t < T; t++) {
          const i32* both = sums[t] + 2 * b * together;
          const i32 of_group = group == 16 ? both[half * together] : both[0] + both[together];
          sum[t] = vi_of(-kind.zero * of_group);
        }
        UNROLL_DOTS for (int j = 0; j < dwords; j++) {
          const vi w = load_vi(&p->bytes[8 * b + dwords * half + j][v]);
          UNROLL for (int t = 0; t < T; t++) {
            const i32 four = *(const i32*)(bytes[t] + BLOCK * together * b + group * half + 4 * j);
            sum[t] = is_8bit ? dot_8bit(sum[t], w, four) : dot_7bit(sum[t], w, four);
          }
        }
        const vf scale = load_vf(&p->scales[group == 16 ? 2 * b + half : b][v]);
        UNROLL for (int t = 0; t < T; t++) total[t] = fma_vf(vf_of_vi(sum[t]), scale * vf_of(scales[t][b * together]), total[t]);
        if (kind.has_minima) {
          const vf minimum = load_vf(&p->minima[b][v]);
          UNROLL for (int t = 0; t < T; t++)
            total[t] = fma_vf(minimum, vf_of(-scales[t][b * together] * (float)(sums[t][2 * b * together] + sums[t][(2 * b + 1) * together])), total[t]);
        }
      }
    }
    UNROLL for (int t = 0; t < T; t++) store_vf(&acc[t0 + t][v], total[t]);
  }
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
  if (x->together == TOGETHER) {
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

#if !defined(__AMX_INT8__)
/* acc = all columns times one token: the sums of bytes_of_tokens, without a panel in between. */
static inline __attribute__((always_inline)) void stream_of_blocks(const i64 format, const Matrix* m, Rows rows, const Activations* x,
                                                                   float* acc) {
  const Kind kind = kind_of(format);
  const i64 block = block_of(x, activation_row(x, 0), 0), pair_bytes = format == Q4_0 ? 36 : 68, together = x->together;
  const i8* bytes = x->bytes + BLOCK * block;
  const float* scales = x->scales + block;
  const i32* sums = x->sums + sums_of(x, block);
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  for (i64 pair = 0; pair < m->columns / BLOCK / 2; pair++) {
    fetch_ahead(m, pair, TILE * pair_bytes);
    FOR_EACH_VECTOR {
      vi w[16];
      vf scale[2];
      two_blocks_of(format, rows.at + v * rows.stride, rows.stride, pair * pair_bytes, flip_of(BIAS_8), w, scale);
      UNROLL for (int k = 0; k < 2; k++) {
        const i64 b = (2 * pair + k) * together;
        vi sum = vi_of(-kind.zero * (sums[2 * b] + sums[2 * b + together]));
        UNROLL for (int j = 0; j < 8; j++) {
          const i32 four = *(const i32*)(bytes + BLOCK * b + 4 * j);
          sum = kind.is_8bit ? dot_8bit(sum, w[8 * k + j], four) : dot_7bit(sum, w[8 * k + j], four);
        }
        total[v / LANES] = fma_vf(vf_of_vi(sum), scale[k] * vf_of(scales[b]), total[v / LANES]);
      }
    }
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}

int OF_BODY(stream_blocks)(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  if (m->columns % (2 * BLOCK)) return 0;
  switch (m->format) {
    case Q8_0: stream_of_blocks(Q8_0, m, rows, x, acc); return 1;
    case Q4_0: stream_of_blocks(Q4_0, m, rows, x, acc); return 1;
    default: return 0;
  }
}
#endif
#endif /* BODY */

static inline __attribute__((always_inline)) void floats_of_tokens(const int T, const Panel* p, i64 first, i64 count,
                                                                   const Activations* x, i64 t0, float (*acc)[TILE]) {
  const float* rows[TOKENS_OF_FLOATS];
  UNROLL for (int t = 0; t < T; t++) {
    rows[t] = floats_of(x, t0 + t) + first;
    __asm__("" : "+r"(rows[t])); /* else the compiler adds strides in the loop to spare registers */
  }
  for (int v = 0; v < TILE; v += LANES) {
    vf sum[TOKENS_OF_FLOATS][4];
    UNROLL for (int t = 0; t < T; t++)
      UNROLL for (int k = 0; k < 4; k++) sum[t][k] = vf_of(0);
    i64 c = 0;
    for (; c + 4 <= count; c += 4)
      UNROLL for (int k = 0; k < 4; k++) {
        const vf w = load_vf(&p->floats[c + k][v]);
        UNROLL for (int t = 0; t < T; t++) sum[t][k] = fma_vf(w, vf_of(rows[t][c + k]), sum[t][k]);
      }
    for (int k = 0; c + k < count; k++) {
      const vf w = load_vf(&p->floats[c + k][v]);
      UNROLL for (int t = 0; t < T; t++) {
        const vf product = w * vf_of(rows[t][c + k]);
        if (k == 0) sum[t][0] += product;
        else if (k == 1) sum[t][1] += product;
        else sum[t][2] += product;
      }
    }
    UNROLL for (int t = 0; t < T; t++) {
      const vf whole = (sum[t][0] + sum[t][1]) + (sum[t][2] + sum[t][3]);
      store_vf(&acc[t0 + t][v], load_vf(&acc[t0 + t][v]) + whole);
    }
  }
}

static void multiply_floats(const Panel* p, i64 first, i64 count, const Activations* x, i64 tokens, float (*acc)[TILE]) {
  i64 t = 0;
  for (; t + TOKENS_OF_FLOATS <= tokens; t += TOKENS_OF_FLOATS) floats_of_tokens(TOKENS_OF_FLOATS, p, first, count, x, t, acc);
  for (; t + 2 <= tokens; t += 2) floats_of_tokens(2, p, first, count, x, t, acc);
  if (t < tokens) floats_of_tokens(1, p, first, count, x, t, acc);
}

/* acc += columns first .. first + count times one token: the sums of floats_of_tokens, without a panel in between. */
static inline __attribute__((always_inline)) void stream_of_format(const i64 format, const Matrix* m, Rows rows, i64 first, i64 count,
                                                                   const float* x, float* acc) {
  const int each = 16 / bytes_of_number(format);
  for (int v = 0; v < TILE; v += LANES) {
    vf sum[4] = {vf_of(0), vf_of(0), vf_of(0), vf_of(0)};
    for (i64 c = 0; c < count; c += each) {
      vi t[4];
      vf column[16];
      if (v == 0) fetch_ahead(m, (first + c) / each, TILE * 16);
      transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, (first + c) * bytes_of_number(format), t);
      columns_of(format, t, column);
      UNROLL for (int k = 0; k < each; k++) sum[k % 4] = fma_vf(column[k], vf_of(x[c + k]), sum[k % 4]);
    }
    store_vf(acc + v, load_vf(acc + v) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
  }
}

/* 0 where a panel is needed. */
static int stream_floats(const Matrix* m, Rows rows, i64 first, i64 count, const Activations* x, float* acc) {
  const float* at = floats_of(x, 0) + first;
  if (count % 8) return 0;
  switch (m->format) {
    case F32: stream_of_format(F32, m, rows, first, count, at, acc); return 1;
    case F16: stream_of_format(F16, m, rows, first, count, at, acc); return 1;
    case BF16: stream_of_format(BF16, m, rows, first, count, at, acc); return 1;
    default: return 0;
  }
}

enum { FEW_ROWS_TOKENS = 64 };

/* Scratch of a worker for tile products: the panel, sums of rows that are worked on one by one, then accumulators. */
typedef struct {
  Panel panel;
  float one[FEW_ROWS_TOKENS][TILE] __attribute__((aligned(64)));
  float acc[][TILE];
} TileScratch;

static inline void clear(float (*acc)[TILE], i64 tokens) {
  for (i64 t = 0; t < tokens; t++) FOR_VECTORS store_vf(&acc[t][v], vf_of(0));
}

/* acc[t][r] = row r . activation t */
static void product_of_rows(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel, const Body* body) {
  clear(acc, tokens);
  if (is_block_format(m->format) && x->bytes) {
    if (tokens == 1 && body->stream_blocks(m, rows, x, acc[0])) return;
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
    if (tokens == 1 && stream_floats(m, rows, first, count, x, acc[0])) continue;
    unpack_floats(m, rows, first, count, panel);
    multiply_floats(panel, first, count, x, tokens, acc);
  }
}

/* The same for 16 rows of a paged cache. */
static void product_of_cache_rows(const u8* const rows[TILE], i64 columns, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel) {
  clear(acc, tokens);
  for (i64 first = 0; first < columns; first += STRETCH) {
    const i64 count = min_i64(STRETCH, columns - first);
    unpack_cache_rows(rows, first, count, panel);
    multiply_floats(panel, first, count, x, tokens, acc);
  }
}

/*
 * The tile that begins at `row`, of a matrix that ends before row `end`: acc[t][lane + r] = row r of the tile . activation t, where
 * lane is returned. It is 0 but for the last tile, which is moved back so that all its rows exist.
 * While it is unpacked the tile at `next` is fetched (0: none; a wrong guess does no harm).
 */
static i64 product_of_tile(const Matrix* matrix, i64 row, i64 end, const u8* next, const Activations* x, i64 tokens,
                           float (*acc)[TILE], const Worker* w) {
  Matrix m = *matrix;
  TileScratch* scratch = (TileScratch*)w->scratch;
  m.bias_8 = w->body->bias_8;
  if (end < TILE) { /* fewer rows than a tile has: one by one, each as all rows of a tile */
    for (i64 r = row; r < end; r++) {
      for (i64 t0 = 0; t0 < tokens; t0 += FEW_ROWS_TOKENS) {
        const i64 n = min_i64(tokens - t0, FEW_ROWS_TOKENS);
        Activations part = *x;
        if (part.index) part.index += t0;
        part.first_row += t0;
        product_of_rows(&m, (Rows){m.data + r * m.row_bytes, 0, r}, &part, n, scratch->one, &scratch->panel, w->body);
        for (i64 t = 0; t < n; t++) acc[t0 + t][r - row] = scratch->one[t][0];
      }
    }
    return 0;
  }
  const i64 begin = min_i64(row, end - TILE);
  const Rows rows = {m.data + begin * m.row_bytes, m.row_bytes, begin};
  m.ahead = next;
  product_of_rows(&m, rows, x, tokens, acc, &scratch->panel, w->body);
  return row - begin;
}

/* Columns of row `row` to int8 blocks: scale = greatest magnitude / 127, rounding to nearest (ties to even). */
static void quantize_row(const float* x, i64 columns, const Activations* into, i64 row, i64 column) {
  typedef i8 Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
  for (i64 b = 0; b < columns / BLOCK; b++) {
    const i64 block = block_of(into, row, column + b * BLOCK), sums = sums_of(into, block);
    vi greatest = vi_of(0); /* as bits, which are in the order of the magnitudes; NaN is above all */
    for (int c = 0; c < BLOCK; c += LANES) greatest = __builtin_elementwise_max(greatest, load_vi(x + BLOCK * b + c) & 0x7fffffff);
    const float most = bits_to_f32((u32)__builtin_reduce_max(greatest));
    /* below 2^-120 the inverse would overflow: such a block counts as zero */
    const float scale = most > 0x1p-120f ? most / 127.0f : 0.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    UNROLL for (int half = 0; half < 2; half++) {
      vi sum = vi_of(0);
      UNROLL for (int c = 16 * half; c < 16 * half + 16; c += LANES) {
        /* 1.5 * 2^23 rounds; |x / scale| <= 127.00001 rounds to 127 at most */
        const vf rounded = load_vf(x + BLOCK * b + c) * vf_of(inverse) + vf_of(12582912.0f);
        const vi value = (vi)rounded - (i32)f32_to_bits(12582912.0f);
        *(Bytes*)(into->bytes + BLOCK * block + c) = __builtin_convertvector(value, Bytes);
        sum += value;
      }
      ((i32*)into->sums)[sums + half * into->together] = __builtin_reduce_add(sum);
    }
    ((float*)into->scales)[block] = scale;
  }
}
