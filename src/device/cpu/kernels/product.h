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
/* The same in a loop: where straight code for four short vectors would be too much. */
#define EACH_VECTOR _Pragma("clang loop unroll(disable)") for (int v = 0; v < TILE; v += LANES)

/*
 * Four activations for dword j of the first block of a pair. That block lies two bytes off the dwords: as the halves of its first and
 * its last dword are put together, its weights come in the order n - 2, n - 1, 0, 1, 2, 3 ... of the n that they are, and x with them.
 */
static inline i32 four_across(const i8* x, const int n, const int j) {
  return j > 0 ? *(const u32_at*)(x + 4 * j - 2) : (i32)(*(const u16_at*)(x + n - 2) | (u32)*(const u16_at*)x << 16);
}

/* total += two blocks, whose dwords are d, times one token; bytes, scales and sums are those of the first block. */
static inline __attribute__((always_inline)) vf add_two_blocks(const i64 format, const vi* d, const i8* bytes, const float* scales,
                                                               const i32* sums, i64 together, vf total) {
  const int half = pair_dwords(format) / 2;
  vf scale[2];
  two_f16_to_vf(d[0], d[half], scale);
  UNROLL for (int k = 0; k < 2; k++) {
    const i64 b = k * together;
    const i8* x = bytes + BLOCK * b;
    vi w[8], sum = vi_of(-zero_point(format, BIAS_8) * (sums[2 * b] + sums[2 * b + together]));
    i32 low[8], high[4];
    UNROLL for (int j = 0; j < half; j++) {
      w[j] = k ? d[half + 1 + j] : j ? d[j] : (d[0] & (i32)0xffff0000) | (d[half] & 0xffff);
      low[j] = k ? *(const i32*)(x + 4 * j) : four_across(x, 4 * half, j);
      if (format == Q4_0) high[j] = k ? *(const i32*)(x + 16 + 4 * j) : four_across(x + 16, 4 * half, j);
    }
    if (format == Q4_0) sum = dot_nibbles(sum, w, low, high);
    else
      UNROLL for (int j = 0; j < half; j++) sum = dot_8bit(sum, w[j] ^ flip_of(BIAS_8), low[j]);
    total = fma_vf(vf_of_vi(sum), scale[k] * vf_of(scales[b]), total);
  }
  return total;
}

enum { GROUP_PAIRS = 4 };

/*
 * acc = all columns times one token: the sums of bytes_of_tokens, without a panel in between. Eight blocks are a whole number of 16
 * bytes, so that only pairs behind the last eight load bytes twice; with short vectors, which gain little, all pairs do.
 */
static inline __attribute__((always_inline)) void stream_of_blocks(const i64 format, const Matrix* m, Rows rows, const Activations* x,
                                                                   float* acc) {
  const i64 block = block_of(x, activation_row(x, 0), 0), together = x->together, pairs = m->columns / BLOCK / 2;
  const int dwords = pair_dwords(format), pair_bytes = 4 * dwords;
  const i8* bytes = x->bytes + BLOCK * block;
  const float* scales = x->scales + block;
  const i32* sums = x->sums + sums_of(x, block);
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  i64 pair = 0;
  for (; LANES > 4 && pair + GROUP_PAIRS <= pairs; pair += GROUP_PAIRS)
    FOR_VECTORS {
      vi d[GROUP_PAIRS * MOST_PAIR_DWORDS];
      UNROLL for (int p = 0; p < GROUP_PAIRS; p++) {
        const i64 b = 2 * (pair + p) * together;
        fetch_portion(m, pair / GROUP_PAIRS, GROUP_PAIRS * TILE * pair_bytes, v / LANES * GROUP_PAIRS + p, TILE_VECTORS * GROUP_PAIRS);
        UNROLL for (int k = (dwords * p + 3) / 4 * 4; k < dwords * (p + 1); k += 4)
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, pair * pair_bytes + 4 * k, d + k);
        total[v / LANES] = add_two_blocks(format, d + dwords * p, bytes + BLOCK * b, scales + b, sums + 2 * b, together, total[v / LANES]);
      }
    }
  for (; pair < pairs; pair++)
    EACH_VECTOR {
      vi d[MOST_PAIR_DWORDS];
      const i64 b = 2 * pair * together;
      fetch_ahead(m, pair * TILE_VECTORS + v / LANES, LANES * pair_bytes);
      load_pair(format, rows.at + v * rows.stride, rows.stride, pair * pair_bytes, d);
      total[v / LANES] = add_two_blocks(format, d, bytes + BLOCK * b, scales + b, sums + 2 * b, together, total[v / LANES]);
    }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}

/* total + a block of FP4 codes times one token. */
static inline __attribute__((always_inline)) vf add_fp4_block(const vi q[4], vf scale, const i8* bytes, float x_scale, i32 x_sum, vf total) {
  return fma_vf(vf_of_vi(dot_fp4(vi_of(-zero_point(FP4, BIAS_8) * x_sum), q, bytes)), scale * vf_of(x_scale), total);
}

/* Four blocks of MXFP4 are 68 bytes, as two of Q8_0 are; block k begins in the middle of dword 4 * k, with its scale. */
static inline __attribute__((always_inline)) void stream_of_mxfp4(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 block = block_of(x, activation_row(x, 0), 0), together = x->together;
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  for (i64 four = 0; four < m->columns / BLOCK / 4; four++)
    EACH_VECTOR {
      vi d[MOST_PAIR_DWORDS], q[4];
      load_pair(Q8_0, rows.at + v * rows.stride, rows.stride, four * 68, d);
      UNROLL for (int k = 0; k < 4; k++) {
        const i64 b = block + (4 * four + k) * together;
        const i32* sums = x->sums + sums_of(x, b);
        fetch_portion(m, four * TILE_VECTORS + v / LANES, LANES * 68, k, 4);
        UNROLL for (int j = 0; j < 4; j++) q[j] = k == 3 ? d[13 + j] : (vi)((vu)d[4 * k + j] >> (8 * k + 8)) | d[4 * k + j + 1] << (24 - 8 * k);
        const vf scale = e8m0_half_to_vf((vi)((vu)d[4 * k] >> 8 * k) & 0xff, 0);
        total[v / LANES] = add_fp4_block(q, scale, x->bytes + BLOCK * b, x->scales[b], sums[0] + sums[together], total[v / LANES]);
      }
    }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}

#if LANES >= 8
enum { QUAD_BLOCKS = LANES / 4 };

/* The dword sums of each 128-bit lane of four vectors: dword r of a lane is that of vector r's lane. */
static inline __attribute__((always_inline)) vi sum_lanes(const vi a[4]) {
  vi t[4];
  transpose_quads(a[0], a[1], a[2], a[3], t);
  return (t[0] + t[1]) + (t[2] + t[3]);
}

/* 4-bit codes times bytes of x, in whatever dwords of the same 128-bit lane: even elements are in low halves, odd ones in high. */
static inline __attribute__((always_inline)) vi dot_fp4_rows(vi q, vi even, vi odd) {
  const vi low = lookup_16(fp4_table, q & 0x0f0f0f0f), high = lookup_16(fp4_table, (q >> 4) & 0x0f0f0f0f);
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), (__m512i)low, (__m512i)even), (__m512i)high, (__m512i)odd);
#elif defined(__AVXVNNI__)
  return (vi)_mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), (__m256i)low, (__m256i)even), (__m256i)high, (__m256i)odd);
#else /* 2 * 2 * 24 * 127 < 2^15 */
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)low, (__m256i)even), _mm256_maddubs_epi16((__m256i)high, (__m256i)odd));
  return (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

/*
 * FP4, whose scales lie apart: 16 bytes are a block, QUAD_BLOCKS of them a vector of one row, and what they add up to is turned so that a
 * lane is a row. Scales of sixteen blocks are 16 bytes of each row; behind the last sixteen, some come twice.
 */
static inline __attribute__((always_inline)) void stream_of_fp4(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  typedef i8 Sixteen __attribute__((vector_size(16), aligned(1), may_alias));
  const i64 block = block_of(x, activation_row(x, 0), 0), together = x->together, blocks = m->columns / BLOCK;
  const i64 scale_stride = rows.stride ? m->scale_row_elements : 0;
  const u8* ahead = m->ahead ? m->ahead : rows.at;
  const i64 apart = m->ahead_rows * m->row_bytes;
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  for (i64 sixteen = 0, b = 0; b < blocks; sixteen += 16) {
    sixteen = min_i64(sixteen, blocks - 16);
    u8 codes[4][TILE_VECTORS][4 * LANES] __attribute__((aligned(64))); /* four blocks, rows, a byte of each block */
    FOR_VECTORS {
      const i64 row = rows.first_row + (rows.stride ? v : 0);
      vi t[4];
      transpose_16_bytes(m->scales + row * m->scale_row_elements, scale_stride, 0, sixteen, t);
      UNROLL for (int j = 0; j < 4; j++) store_vi(codes[j][v / LANES], t[j]);
    }
    for (; b < sixteen + 16; b += QUAD_BLOCKS) {
      i8 halves[2][4 * LANES] __attribute__((aligned(64)));
      UNROLL for (int k = 0; k < QUAD_BLOCKS; k++) {
        const i8* bytes = x->bytes + BLOCK * (block + (b + k) * together);
        const Sixteen first = *(const Sixteen*)bytes, second = *(const Sixteen*)(bytes + 16);
        *(Sixteen*)(halves[0] + 16 * k) = __builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        *(Sixteen*)(halves[1] + 16 * k) = __builtin_shufflevector(first, second, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
      }
      const vi even = load_vi(halves[0]), odd = load_vi(halves[1]);
      vi four[4]; /* [rows 4g ...] lane: block */
      _Pragma("clang loop unroll(disable)") for (int g = 0; g < 4; g++) {
        vi sums[4];
        UNROLL for (int i = g * QUAD_BLOCKS; i < (g + 1) * QUAD_BLOCKS; i++)
          __builtin_prefetch(ahead + i % STREAMS * apart + b * 16 * STREAMS + i / STREAMS * LINE, 0, 3);
        UNROLL for (int r = 0; r < 4; r++) sums[r] = dot_fp4_rows(load_vi(rows.at + (4 * g + r) * rows.stride + 16 * b), even, odd);
        four[g] = sum_lanes(sums);
      }
      vi of_block[TILE_VECTORS][QUAD_BLOCKS];
#if LANES == 16
      const __m512i a = _mm512_shuffle_i32x4((__m512i)four[0], (__m512i)four[1], 0x44), c = _mm512_shuffle_i32x4((__m512i)four[0], (__m512i)four[1], 0xee);
      const __m512i d = _mm512_shuffle_i32x4((__m512i)four[2], (__m512i)four[3], 0x44), e = _mm512_shuffle_i32x4((__m512i)four[2], (__m512i)four[3], 0xee);
      of_block[0][0] = (vi)_mm512_shuffle_i32x4(a, d, 0x88), of_block[0][1] = (vi)_mm512_shuffle_i32x4(a, d, 0xdd);
      of_block[0][2] = (vi)_mm512_shuffle_i32x4(c, e, 0x88), of_block[0][3] = (vi)_mm512_shuffle_i32x4(c, e, 0xdd);
#else
      UNROLL for (int i = 0; i < TILE_VECTORS; i++) {
        of_block[i][0] = (vi)_mm256_permute2x128_si256((__m256i)four[2 * i], (__m256i)four[2 * i + 1], 0x20);
        of_block[i][1] = (vi)_mm256_permute2x128_si256((__m256i)four[2 * i], (__m256i)four[2 * i + 1], 0x31);
      }
#endif
      UNROLL for (int k = 0; k < QUAD_BLOCKS; k++) {
        const i64 of_x = block + (b + k) * together, place = b + k - sixteen;
        const i32* sums = x->sums + sums_of(x, of_x);
        const vi zero = vi_of(-zero_point(FP4, BIAS_8) * (sums[0] + sums[together]));
        FOR_VECTORS {
          const vf scale = e8m0_half_to_vf((vi)((vu)load_vi(codes[place / 4][v / LANES]) >> 8 * (place % 4)) & 0xff, 1);
          total[v / LANES] = fma_vf(vf_of_vi(of_block[v / LANES][k] + zero), scale * vf_of(x->scales[of_x]), total[v / LANES]);
        }
      }
    }
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#else
/* FP4, whose scales lie apart: those of sixteen blocks are 16 bytes of each row. Even elements are in low halves, odd ones in high. */
static inline __attribute__((always_inline)) void stream_of_fp4(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  typedef i8 Sixteen __attribute__((vector_size(16), aligned(1), may_alias));
  const i64 block = block_of(x, activation_row(x, 0), 0), together = x->together, scale_stride = rows.stride ? m->scale_row_elements : 0;
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  for (i64 sixteen = 0; sixteen < m->columns / BLOCK; sixteen += 16) {
    vi codes[TILE_VECTORS][4];
    FOR_VECTORS {
      const i64 row = rows.first_row + (rows.stride ? v : 0);
      transpose_16_bytes(m->scales + row * m->scale_row_elements, scale_stride, 0, sixteen, codes[v / LANES]);
    }
    for (int k = 0; k < 16; k++) {
      const i64 b = block + (sixteen + k) * together;
      const i32* sums = x->sums + sums_of(x, b);
      const Sixteen first = *(const Sixteen*)(x->bytes + BLOCK * b), second = *(const Sixteen*)(x->bytes + BLOCK * b + 16);
      i8 apart[BLOCK] __attribute__((aligned(32)));
      *(Sixteen*)apart = __builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      *(Sixteen*)(apart + 16) = __builtin_shufflevector(first, second, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
      EACH_VECTOR {
        vi q[4];
        fetch_ahead(m, (sixteen + k) * TILE_VECTORS + v / LANES, LANES * 16);
        transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, (sixteen + k) * 16, q);
        const vf scale = e8m0_half_to_vf((vi)((vu)codes[v / LANES][k / 4] >> 8 * (k % 4)) & 0xff, 1);
        total[v / LANES] = add_fp4_block(q, scale, apart, x->scales[b], sums[0] + sums[together], total[v / LANES]);
      }
    }
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#endif

/* 0 where a panel is needed. */
int OF_BODY(stream_blocks)(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 blocks = m->columns / BLOCK;
  if (m->format == Q8_0 && blocks % 2 == 0) stream_of_blocks(Q8_0, m, rows, x, acc);
  else if (m->format == Q4_0 && blocks % 2 == 0) stream_of_blocks(Q4_0, m, rows, x, acc);
  else if (m->format == MXFP4 && blocks % 4 == 0) stream_of_mxfp4(m, rows, x, acc);
  else if (m->format == FP4 && blocks % (LANES >= 8 ? 4 : 16) == 0 && blocks >= 16 && !m->scale_is_f32) stream_of_fp4(m, rows, x, acc);
  else return 0;
  return 1;
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

/*
 * One token and floats need no lane for each row: a vector is the same four columns of QUAD_ROWS rows, four sums for each, which the
 * order of the sums asks for anyway.
 */
enum { QUAD_ROWS = LANES / 4 };

static inline vf broadcast_quad(const float* at) {
#if LANES == 16
  return (vf)_mm512_broadcast_f32x4(_mm_loadu_ps(at));
#elif LANES == 8
  return (vf)_mm256_broadcast_ps((const __m128*)at);
#else
  return load_vf(at);
#endif
}

/* 16 bytes of QUAD_ROWS rows that are `stride` bytes apart. */
static inline __attribute__((always_inline)) vi load_quad_rows(const u8* at, i64 stride) {
#define ROW(i) _mm_loadu_si128((const void*)(at + (i) * stride))
#if LANES == 16
  return (vi)_mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(ROW(0)), ROW(1), 1), ROW(2), 2), ROW(3), 3);
#elif LANES == 8
  return (vi)_mm256_inserti128_si256(_mm256_castsi128_si256(ROW(0)), ROW(1), 1);
#else
  (void)stride;
  return load_vi(at);
#endif
#undef ROW
}

/* The eight words of each 128-bit lane, four a vector: in the upper halves of dwords. */
static inline void words_to_dwords(vi words, vi out[2]) {
#if LANES == 16
  out[0] = (vi)_mm512_unpacklo_epi16(_mm512_setzero_si512(), (__m512i)words);
  out[1] = (vi)_mm512_unpackhi_epi16(_mm512_setzero_si512(), (__m512i)words);
#elif LANES == 8
  out[0] = (vi)_mm256_unpacklo_epi16(_mm256_setzero_si256(), (__m256i)words);
  out[1] = (vi)_mm256_unpackhi_epi16(_mm256_setzero_si256(), (__m256i)words);
#else
  typedef u16 Words __attribute__((vector_size(16)));
  out[0] = (vi)__builtin_shufflevector((Words){}, (Words)words, 0, 8, 1, 9, 2, 10, 3, 11);
  out[1] = (vi)__builtin_shufflevector((Words){}, (Words)words, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
}

#if LANES >= 8
/*
 * 16 codes of E4M3 of each row as numbers divided by 2^8, NaN as if it were one: a code moved to the upper half of 16 bits, less its
 * sign one bit down, is that number in half precision. The halves go through memory: converting those in a register is a shuffle more.
 */
static inline __attribute__((always_inline)) void quads_of_fp8(vi raw, vf out[4]) {
  u16 halves[4][LANES] __attribute__((aligned(64)));
#if LANES == 16
  const __m512i order = _mm512_setr_epi32(0, 4, 2, 6, 8, 12, 10, 14, 1, 5, 3, 7, 9, 13, 11, 15), zero = _mm512_setzero_si512();
  const __m512i codes = _mm512_permutexvar_epi32(order, (__m512i)raw), mask = _mm512_set1_epi16((short)0xbfff);
  _mm512_store_si512(halves[0], _mm512_and_si512(_mm512_srai_epi16(_mm512_unpacklo_epi8(zero, codes), 1), mask));
  _mm512_store_si512(halves[2], _mm512_and_si512(_mm512_srai_epi16(_mm512_unpackhi_epi8(zero, codes), 1), mask));
  __asm__("" : "+m"(halves)); /* else the compiler leaves memory out */
  UNROLL for (int j = 0; j < 4; j++) out[j] = (vf)_mm512_cvtph_ps(_mm256_load_si256((const void*)halves[j]));
#else
  const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7), zero = _mm256_setzero_si256();
  const __m256i codes = _mm256_permutevar8x32_epi32((__m256i)raw, order), mask = _mm256_set1_epi16((short)0xbfff);
  _mm256_store_si256((void*)halves[0], _mm256_and_si256(_mm256_srai_epi16(_mm256_unpacklo_epi8(zero, codes), 1), mask));
  _mm256_store_si256((void*)halves[2], _mm256_and_si256(_mm256_srai_epi16(_mm256_unpackhi_epi8(zero, codes), 1), mask));
  __asm__("" : "+m"(halves));
  UNROLL for (int j = 0; j < 4; j++) out[j] = (vf)_mm256_cvtph_ps(_mm_load_si128((const void*)halves[j]));
#endif
}
#else
static inline void quads_of_fp8(vi raw, vf out[4]) { (void)raw, (void)out; } /* a panel is made here */
#endif

/* The greater of each unsigned byte. */
static inline vi greatest_bytes(vi a, vi b) {
  typedef u8 Bytes __attribute__((vector_size(4 * LANES)));
  return (vi)__builtin_elementwise_max((Bytes)a, (Bytes)b);
}
/* Whether any byte has this value. */
static inline int has_byte(vi x, u8 value) {
  typedef i8 Bytes __attribute__((vector_size(4 * LANES)));
  return __builtin_reduce_or((vi)((Bytes)x == (i8)value)) != 0;
}

/* out[j] = columns 4 * j ... of QUAD_ROWS rows, of which `raw` has 16 bytes each; as many as are in them. */
static inline __attribute__((always_inline)) void quads_of(const i64 format, vi raw, vf out[4]) {
  vi words[2];
  switch (format) {
    case F32: out[0] = (vf)raw; return;
    case BF16:
      words_to_dwords(raw, words);
      UNROLL for (int j = 0; j < 2; j++) out[j] = (vf)words[j];
      return;
    case F16: {
#if LANES == 16
      const __m512i halves = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), (__m512i)raw);
      out[0] = (vf)_mm512_cvtph_ps(_mm512_castsi512_si256(halves));
      out[1] = (vf)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
#elif LANES == 8
      const __m256i halves = _mm256_permute4x64_epi64((__m256i)raw, 0xd8);
      out[0] = (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(halves));
      out[1] = (vf)_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
#else
      words_to_dwords(raw, words);
      UNROLL for (int j = 0; j < 2; j++) out[j] = f16_to_vf((vi)((vu)words[j] >> 16));
#endif
      return;
    }
    default: quads_of_fp8(raw, out);
  }
}

/* sum[i] += a line of QUAD_ROWS rows that are `stride` bytes apart times x, for `groups` of them, the next one `next` bytes on. */
static inline __attribute__((always_inline)) void add_line(const i64 format, const int groups, const u8* at, i64 next, i64 stride, const float* x, vf* sum,
                                                           vi* greatest) {
  const int each = 16 / bytes_of_number(format);
  _Pragma("clang loop unroll(disable)") for (int part = 0; part < LINE / 16; part++)
    UNROLL for (int i = 0; i < groups; i++) {
      vf w[4];
      const vi raw = load_quad_rows(at + i * next + 16 * part, stride);
      quads_of(format, raw, w);
      if (format == FP8) *greatest = greatest_bytes(*greatest, raw & 0x7f7f7f7f);
      UNROLL for (int j = 0; j < each / 4; j++) sum[i] = fma_vf(w[j], broadcast_quad(x + each * part + 4 * j), sum[i]);
    }
}

/* Rows of a vector that are multiplied in turn: eight rows, so that lines fit the cache where rows are a power of two apart. */
enum { GROUPS = LANES == 16 ? 2 : 4 };

/*
 * acc += columns first .. first + count times one token: the sums of floats_of_tokens, without a panel in between. A line of
 * these rows is used up before that of others. 0 where a code was NaN.
 */
static inline __attribute__((always_inline)) int stream_of_format(const i64 format, const Matrix* m, Rows rows, i64 first, i64 count,
                                                                  const float* x, float* acc) {
  const int bytes = bytes_of_number(format), columns = LINE / bytes;
  const u8* ahead = (m->ahead ? m->ahead : rows.at) + STREAMS * first * bytes; /* something in any case: no branch between products */
  const i64 apart = m->ahead_rows * m->row_bytes;
  vi greatest = vi_of(0);
  vf result[TILE_VECTORS];
  FOR_EACH_VECTOR {
    const u8* at = rows.at + v * rows.stride + first * bytes;
    vf sum[4] = {vf_of(0), vf_of(0), vf_of(0), vf_of(0)};
    vi s[4];
    for (i64 c = 0; c < count; c += columns)
      UNROLL for (int row = 0; row < 4; row += GROUPS) {
        UNROLL for (int i = row * QUAD_ROWS; i < (row + GROUPS) * QUAD_ROWS; i++)
          __builtin_prefetch(ahead + i % STREAMS * apart + STREAMS * c * bytes + v * LINE / STREAMS + i / STREAMS * LINE, 0, 3);
        add_line(format, GROUPS, at + row * rows.stride + c * bytes, rows.stride, 4 * rows.stride, x + c, sum + row, &greatest);
        __asm__ volatile("" ::: "memory"); /* else the compiler loads the lines of other rows first, and spills */
      }
    transpose_quads((vi)sum[0], (vi)sum[1], (vi)sum[2], (vi)sum[3], s);
    result[v / LANES] = ((vf)s[0] + (vf)s[1]) + ((vf)s[2] + (vf)s[3]);
  }
  if (format == FP8 && has_byte(greatest, 0x7f)) return 0;
  FOR_VECTORS store_vf(acc + v, load_vf(acc + v) + result[v / LANES]);
  return 1;
}

/* Four rows alone, for matrices of so few rows that tiles cannot be shared out evenly: y[r] = row r . x, summed as everywhere. */
static inline __attribute__((always_inline)) void four_rows_of_format(const i64 format, const Matrix* m, const u8* at, const float* x, float* y) {
  const int bytes = bytes_of_number(format), vectors = 4 / QUAD_ROWS;
  for (int r = 0; r < 4; r++) y[r] = 0;
  for (i64 first = 0; first < m->columns; first += STRETCH) {
    const i64 end = min_i64(first + STRETCH, m->columns);
    vf sum[4] = {vf_of(0), vf_of(0), vf_of(0), vf_of(0)};
    float lane[4][4];
    for (i64 c = first; c < end; c += LINE / bytes)
      UNROLL for (int i = 0; i < vectors; i++) add_line(format, 1, at + i * QUAD_ROWS * m->row_bytes + c * bytes, 0, m->row_bytes, x + c, sum + i, 0);
    for (int i = 0; i < vectors; i++) store_vf(lane[i * QUAD_ROWS], sum[i]);
    for (int r = 0; r < 4; r++) y[r] += (lane[r][0] + lane[r][1]) + (lane[r][2] + lane[r][3]);
  }
}

static inline int fits_four_rows(const Matrix* m) { return (m->format == F32 || m->format == F16 || m->format == BF16) && m->row_bytes % LINE == 0; }

static NEVER_INLINE void product_of_four_rows(const Matrix* m, i64 row, const float* x, float* y) {
  const u8* at = m->data + row * m->row_bytes;
  switch (m->format) {
    case F32: four_rows_of_format(F32, m, at, x, y); return;
    case F16: four_rows_of_format(F16, m, at, x, y); return;
    default: four_rows_of_format(BF16, m, at, x, y);
  }
}

#if LANES >= 8
/*
 * FP8: codes are multiplied as they are, and x with the scale that the tile's rows share and with 2^8 that codes are short of. Both are
 * powers of two, so that no product changes. 0 where that is not so, and for NaN.
 */
static NEVER_INLINE int stream_fp8(const Matrix* m, Rows rows, i64 first, i64 count, const float* x, float* acc) {
  float scaled[STRETCH] __attribute__((aligned(64)));
  const i64 last_row = rows.first_row + (rows.stride ? TILE - 1 : 0), block_row = rows.first_row / m->block_rows;
  if (m->block_columns % LANES || block_row != last_row / m->block_rows) return 0;
  vi is_exact = vi_of(-1);
  for (i64 k = 0; k < count;) { /* stretches of one scale */
    const i64 block = (first + k) / m->block_columns, end = min_i64(count, (block + 1) * m->block_columns - first);
    const i64 element = block_row * m->scale_row_elements + block;
    const u32 bits = (m->scale_is_f32 ? f32_to_bits(((const f32_at*)m->scales)[element]) : (u32)m->scales[element] << 23) + (8 << 23);
    if (bits - (9 << 23) > 236u << 23 || bits & 0x7fffff) return 0; /* a power of two that has an inverse, and whose products are finite */
    const vf scale = vf_of(bits_to_f32(bits)), inverse = vf_of(bits_to_f32((254u << 23) - bits));
    for (; k < end; k += LANES) {
      const vf value = load_vf(x + k), product = value * scale;
      store_vf(scaled + k, product);
      is_exact &= (vi)(product * inverse == value); /* neither too large, nor so small that bits are lost, nor NaN */
    }
  }
  if (__builtin_reduce_and(is_exact) == 0) return 0;
  return stream_of_format(FP8, m, rows, first, count, scaled, acc);
}
#endif

/* 0 where a panel is needed. */
static NEVER_INLINE int stream_floats(const Matrix* m, Rows rows, i64 first, i64 count, const Activations* x, float* acc) {
  const float* at = floats_of(x, 0) + first;
  if (count * bytes_of_number(m->format) % LINE) return 0;
  switch (m->format) {
    case F32: return stream_of_format(F32, m, rows, first, count, at, acc);
    case F16: return stream_of_format(F16, m, rows, first, count, at, acc);
    case BF16: return stream_of_format(BF16, m, rows, first, count, at, acc);
#if LANES >= 8
    case FP8: return stream_fp8(m, rows, first, count, at, acc);
#endif
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
static NEVER_INLINE void product_of_rows(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel, const Body* body) {
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
 * Meanwhile as many bytes are fetched from `ahead` on (0: none; a wrong guess does no harm).
 */
static i64 product_of_tile(const Matrix* matrix, i64 row, i64 end, const u8* ahead, const Activations* x, i64 tokens,
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
  m.ahead = ahead;
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
