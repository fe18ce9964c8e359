/*
 * From weights as files store them to panels: 16 rows (a tile) side by side, so that a vector lane is a row. Every format goes
 * through the same first step: the same 16 bytes of each row are loaded and transposed, after which a vector holds dword j of
 * all rows. Panels live in a worker's scratch for as long as one stretch of columns is worked on.
 *
 *   whole-number panel  [columns / 4][TILE] dwords of four bytes, weights of block formats without their scale
 *   scales              [columns / group][TILE] float32, and minima likewise where the format has them; group = 32, or 16 (Q6_K)
 *   float panel         [columns][TILE] float32
 */
#pragma once
#include "dot.h"
#include "matrix.h"
#include "number-codes.h"

/* v = first row of each vector of a tile */
#define FOR_VECTORS UNROLL for (int v = 0; v < TILE; v += LANES)
/* The same where much is done for each: four turns stay turns, which keeps the code small. */
#if LANES == 4
#define UNROLL_WIDE
#else
#define UNROLL_WIDE UNROLL
#endif
/* And where two turns stay turns as well. */
#if LANES == 16
#define UNROLL_WIDEST UNROLL
#else
#define UNROLL_WIDEST
#endif
#define FOR_EACH_VECTOR UNROLL_WIDE for (int v = 0; v < TILE; v += LANES)
/* Where so much is done for each that even two turns cost nothing. */
#define IN_TURN for (int v = 0; v < TILE; v += LANES)

enum { STRETCH = 512 }; /* columns of a panel: a multiple of 256 (Q4_K, Q6_K) and of 128 (FP8) */

enum { SUMS_KEPT = 8 };

typedef struct {
  i32 bytes[STRETCH / 4][TILE] __attribute__((aligned(64)));
  float scales[STRETCH / 16][TILE] __attribute__((aligned(64)));
  float minima[STRETCH / BLOCK][TILE] __attribute__((aligned(64)));
  union {
    float floats[STRETCH][TILE] __attribute__((aligned(64)));
    i32 sums[SUMS_KEPT][TILE][TILE]; /* of the products in tile registers, during which there are no floats */
  };
} Panel;

static inline int is_block_format(i64 format) { return format >= Q8_0; }
static inline int scale_group(i64 format) { return format == Q6_K ? 16 : BLOCK; }
static inline int has_minima(i64 format) { return format == Q4_K; }
/* What was added to a weight so that its byte is unsigned. */
static inline i32 zero_point(i64 format, i32 bias_8) {
  switch (format) {
    case Q8_0: return bias_8;
    case Q4_0: return 8;
    case Q6_K: return 32;
    case MXFP4: case FP4: return 12;
    default: return 0;
  }
}

/* The four dwords of each 128-bit lane of a, b, c and d, transposed: out[j] has their dwords j next to each other, lane by lane. */
static inline __attribute__((always_inline)) void transpose_quads(vi a, vi b, vi c, vi d, vi out[4]) {
#if LANES == 4
#define LOW(x, y) __builtin_shufflevector(x, y, 0, 4, 1, 5)
#define HIGH(x, y) __builtin_shufflevector(x, y, 2, 6, 3, 7)
#define LOW_PAIRS(x, y) __builtin_shufflevector(x, y, 0, 1, 4, 5)
#define HIGH_PAIRS(x, y) __builtin_shufflevector(x, y, 2, 3, 6, 7)
#elif LANES == 8
#define LOW(x, y) __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(x, y) __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_PAIRS(x, y) __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_PAIRS(x, y) __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define LOW(x, y) (vi) _mm512_unpacklo_epi32((__m512i)(x), (__m512i)(y))
#define HIGH(x, y) (vi) _mm512_unpackhi_epi32((__m512i)(x), (__m512i)(y))
#define LOW_PAIRS(x, y) (vi) _mm512_unpacklo_epi64((__m512i)(x), (__m512i)(y))
#define HIGH_PAIRS(x, y) (vi) _mm512_unpackhi_epi64((__m512i)(x), (__m512i)(y))
#endif
  const vi ab_low = LOW(a, b), ab_high = HIGH(a, b), cd_low = LOW(c, d), cd_high = HIGH(c, d);
  out[0] = LOW_PAIRS(ab_low, cd_low);
  out[1] = HIGH_PAIRS(ab_low, cd_low);
  out[2] = LOW_PAIRS(ab_high, cd_high);
  out[3] = HIGH_PAIRS(ab_high, cd_high);
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
}

#if LANES >= 8
enum { QUAD_LANES = LANES / 4 };

/* Lane k of four[g] holds a dword each of rows 4g ...: out[v][k] = those of the rows of vector v of a tile. */
static inline __attribute__((always_inline)) void rows_of_quads(const vi four[4], vi out[TILE_VECTORS][QUAD_LANES]) {
#if LANES == 16
  const __m512i a = _mm512_shuffle_i32x4((__m512i)four[0], (__m512i)four[1], 0x44), b = _mm512_shuffle_i32x4((__m512i)four[0], (__m512i)four[1], 0xee);
  const __m512i c = _mm512_shuffle_i32x4((__m512i)four[2], (__m512i)four[3], 0x44), d = _mm512_shuffle_i32x4((__m512i)four[2], (__m512i)four[3], 0xee);
  out[0][0] = (vi)_mm512_shuffle_i32x4(a, c, 0x88), out[0][1] = (vi)_mm512_shuffle_i32x4(a, c, 0xdd);
  out[0][2] = (vi)_mm512_shuffle_i32x4(b, d, 0x88), out[0][3] = (vi)_mm512_shuffle_i32x4(b, d, 0xdd);
#else
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) {
    out[i][0] = (vi)_mm256_permute2x128_si256((__m256i)four[2 * i], (__m256i)four[2 * i + 1], 0x20);
    out[i][1] = (vi)_mm256_permute2x128_si256((__m256i)four[2 * i], (__m256i)four[2 * i + 1], 0x31);
  }
#endif
}
#endif

/*
 * out[j][lane] = dword j of the 16 bytes at row `lane` of those at `at`, for LANES rows. Rows lie `stride` bytes apart (a tile of a
 * matrix), or where `pointers` says (rows of a cache).
 */
static inline __attribute__((always_inline)) void transpose_16_bytes(const u8* at, i64 stride, const u8* const* pointers, i64 offset, vi out[4]) {
  /* in fours, so that an address is a base, an index and a small factor, and sixteen rows need few registers */
#define QUAD(row) (*(const quad_at*)(pointers ? pointers[row] + offset : at + offset + (row) / 4 * 4 * stride + (row) % 4 * stride))
#if LANES == 4
  transpose_quads(QUAD(0), QUAD(1), QUAD(2), QUAD(3), out);
#elif LANES == 8
  /* 128-bit lane i of the first holds row 4i, of the second row 4i + 1 ...: the transposition within lanes puts the rows in order */
#define PAIR(first) __builtin_shufflevector(QUAD(first), QUAD(first + 4), 0, 1, 2, 3, 4, 5, 6, 7)
  transpose_quads(PAIR(0), PAIR(1), PAIR(2), PAIR(3), out);
#undef PAIR
#else
#define FOUR(first)                                                                                                     \
  (vi) _mm512_inserti32x4(                                                                                              \
      _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512((__m128i)QUAD(first)), (__m128i)QUAD(first + 4), 1), \
                         (__m128i)QUAD(first + 8), 2),                                                                  \
      (__m128i)QUAD(first + 12), 3)
  transpose_quads(FOUR(0), FOUR(1), FOUR(2), FOUR(3), out);
#undef FOUR
#endif
#undef QUAD
}

/* into[r] = the half precision number at rows[r] + offset. */
static inline void f16_scales(Rows rows, i64 offset, float* into) {
  i32 codes[TILE];
  for (int r = 0; r < TILE; r++) codes[r] = *(const u16_at*)(rows.at + r * rows.stride + offset);
  FOR_VECTORS store_vf(into + v, f16_to_vf(load_vi(codes + v)));
}

/* What turns four signed bytes into biased ones, or leaves them. */
static inline i32 flip_of(i32 bias_8) { return bias_8 ? (i32)0x80808080 : 0; }

/*
 * The scales and minima of the eight groups of a block of Q4_K, from its first 16 bytes: two numbers in half precision, which they are
 * multiplied with, and 6 bits for each, packed over 12 bytes. Byte k of each dword is that of group k, or 4 + k.
 */
static inline void q4_k_bytes(const vi t[4], vi scales[2], vi minima[2]) {
  scales[0] = t[1] & 0x3f3f3f3f;
  minima[0] = t[2] & 0x3f3f3f3f;
  scales[1] = (t[3] & 0x0f0f0f0f) | ((t[1] >> 2) & 0x30303030);
  minima[1] = ((t[3] >> 4) & 0x0f0f0f0f) | ((t[2] >> 2) & 0x30303030);
}

static inline void q4_k_scales(const vi t[4], float* scales, float* minima) {
  vf d[2];
  vi scale[2], minimum[2];
  two_f16_to_vf(t[0], t[0], d);
  q4_k_bytes(t, scale, minimum);
  for (int half = 0; half < 2; half++)
    for (int k = 0; k < 4; k++, scales += TILE, minima += TILE) {
      store_vf(scales, d[0] * vf_of_vi((vi)((vu)scale[half] >> 8 * k) & 63));
      store_vf(minima, d[1] * vf_of_vi((vi)((vu)minimum[half] >> 8 * k) & 63));
    }
}

/*
 * Two blocks of Q4_0 are 36 bytes: nine dwords, of which the first begins with the scale of one block and the fifth ends with that of
 * the other. Transposed together, the scales need no loads of their own (which cost as much as all else here). Two of Q8_0 are 68
 * bytes, 17 dwords, in the same way.
 */
enum { MOST_PAIR_DWORDS = 17, GROUP_PAIRS = 4 /* a whole number of 16 bytes */ };
static inline int pair_dwords(i64 format) { return format == Q4_0 ? 9 : 17; }

/* d[dword] of the pair of blocks that begins at `from` in LANES rows; no byte behind it is read. */
static inline __attribute__((always_inline)) void load_pair(const i64 format, const u8* at, i64 stride, i64 from, vi d[MOST_PAIR_DWORDS]) {
  const int half = pair_dwords(format) / 2;
  UNROLL for (int k = 0; k <= half; k += 4) transpose_16_bytes(at, stride, 0, from + 4 * k, d + k);
  UNROLL for (int k = half + 1; k <= 2 * half; k += 4) transpose_16_bytes(at, stride, 0, from + 4 * k, d + k);
}

/*
 * Four activations for dword j of the first block of a pair. That block lies two bytes off the dwords: as the halves of its first and
 * its last dword are put together, its weights come in the order n - 2, n - 1, 0, 1, 2, 3 ... of the n that they are, and x with them.
 */
static inline i32 four_across(const i8* x, const int n, const int j) {
  return j > 0 ? *(const u32_at*)(x + 4 * j - 2) : (i32)(*(const u16_at*)(x + n - 2) | (u32)*(const u16_at*)x << 16);
}

/* The weights of both blocks without their scales: four dwords a block of Q4_0, two weights a byte; eight of Q8_0. */
static inline __attribute__((always_inline)) void two_blocks_of(const i64 format, const vi* d, i32 flip, vi w[16], vf scale[2]) {
  const int half = pair_dwords(format) / 2;
  two_f16_to_vf(d[0], d[half], scale);
  UNROLL for (int j = 0; j < half; j++) {
    w[j] = (vi)((vu)d[j] >> 16) | d[j + 1] << 16;
    w[half + j] = d[half + 1 + j];
  }
  if (format == Q8_0)
    UNROLL for (int j = 0; j < 16; j++) w[j] = w[j] ^ flip;
}

static inline __attribute__((always_inline)) void store_two_blocks(const i64 format, i32 flip, Rows rows, i64 from, Panel* panel, i64 b) {
  FOR_EACH_VECTOR {
    vi d[MOST_PAIR_DWORDS], w[16];
    vf scale[2];
    load_pair(format, rows.at + v * rows.stride, rows.stride, from, d);
    two_blocks_of(format, d, flip, w, scale);
    UNROLL for (int k = 0; k < 2; k++) store_vf(&panel->scales[b + k][v], scale[k]);
    if (format == Q8_0)
      UNROLL for (int j = 0; j < 16; j++) store_vi(&panel->bytes[8 * b + j][v], w[j]);
    else
      UNROLL for (int j = 0; j < 8; j++) {
        store_vi(&panel->bytes[8 * b + j / 4 * 8 + j % 4][v], w[j] & 0x0f0f0f0f);
        store_vi(&panel->bytes[8 * b + j / 4 * 8 + 4 + j % 4][v], (w[j] >> 4) & 0x0f0f0f0f);
      }
  }
}

/* Scales of FP4 lie apart: of one block, half of each, for codes stand for twice the number. */
static inline void fp4_scales(const Matrix* m, Rows rows, i64 block, float* into) {
  union {
    i32 code[TILE];
    float scale[TILE];
  } of_row;
  for (int r = 0; r < TILE; r++) {
    const i64 element = (rows.first_row + (rows.stride ? r : 0)) * m->scale_row_elements + block;
    if (m->scale_is_f32) of_row.scale[r] = ((const f32_at*)m->scales)[element];
    else of_row.code[r] = m->scales[element];
  }
  if (m->scale_is_f32) FOR_VECTORS store_vf(into + v, load_vf(of_row.scale + v) * vf_of(0.5f));
  else FOR_VECTORS store_vf(into + v, e8m0_half_to_vf(load_vi(of_row.code + v), 1));
}

/* Four blocks of MXFP4 are 68 bytes, as two of Q8_0 are; block k begins in the middle of dword 4 * k, with its scale. */
static inline __attribute__((always_inline)) vf mxfp4_scale(const vi* d, const int k) { return e8m0_half_to_vf((vi)((vu)d[4 * k] >> 8 * k) & 0xff, 0); }
static inline __attribute__((always_inline)) void mxfp4_codes(const vi* d, const int k, vi q[4]) {
  UNROLL for (int j = 0; j < 4; j++) q[j] = k == 3 ? d[13 + j] : (vi)((vu)d[4 * k + j] >> (8 * k + 8)) | d[4 * k + j + 1] << (24 - 8 * k);
}

/* The weights of a block whose codes are in dwords: those in low halves, then those in high halves. */
static inline __attribute__((always_inline)) void store_fp4_codes(const vi q[4], i32* into) {
  UNROLL for (int j = 0; j < 4; j++) {
    store_vi(into + TILE * j, lookup_16(fp4_table, q[j] & 0x0f0f0f0f));
    store_vi(into + TILE * (4 + j), lookup_16(fp4_table, (q[j] >> 4) & 0x0f0f0f0f));
  }
}

/* Columns first .. first + count of a block format into panel->bytes, ->scales and ->minima. */
static void unpack_blocks(const Matrix* m, Rows rows, i64 first, i64 count, Panel* panel) {
  vi t[4];
  switch (m->format) {
    case Q4_0: {
      i64 b = 0;
      for (; b + 2 <= count / BLOCK; b += 2) {
        fetch_ahead(m, (first / BLOCK + b) / 2, TILE * 36);
        store_two_blocks(Q4_0, 0, rows, (first / BLOCK + b) * 18, panel, b);
      }
      if (b < count / BLOCK) {
        const i64 from = (first / BLOCK + b) * 18;
        f16_scales(rows, from, panel->scales[b]);
        IN_TURN {
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 2, t);
          UNROLL for (int j = 0; j < 4; j++) {
            store_vi(&panel->bytes[8 * b + j][v], t[j] & 0x0f0f0f0f);
            store_vi(&panel->bytes[8 * b + 4 + j][v], (t[j] >> 4) & 0x0f0f0f0f);
          }
        }
      }
      return;
    }
    case Q8_0: {
      i64 b = 0;
      for (; b + 2 <= count / BLOCK; b += 2) {
        fetch_ahead(m, (first / BLOCK + b) / 2, TILE * 68);
        store_two_blocks(Q8_0, flip_of(m->bias_8), rows, (first / BLOCK + b) * 34, panel, b);
      }
      if (b < count / BLOCK) {
        const i64 from = (first / BLOCK + b) * 34;
        f16_scales(rows, from, panel->scales[b]);
        IN_TURN
          for (int half = 0; half < 2; half++) {
            transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 2 + 16 * half, t);
            UNROLL for (int j = 0; j < 4; j++) store_vi(&panel->bytes[8 * b + 4 * half + j][v], t[j] ^ flip_of(m->bias_8));
          }
      }
      return;
    }
    case MXFP4: {
      i64 b = 0;
      for (; b + 4 <= count / BLOCK; b += 4) {
        const i64 from = (first / BLOCK + b) * 17;
        fetch_ahead(m, (first / BLOCK + b) / 4, TILE * 68);
        IN_TURN {
          vi d[MOST_PAIR_DWORDS];
          load_pair(Q8_0, rows.at + v * rows.stride, rows.stride, from, d);
          UNROLL_WIDE for (int k = 0; k < 4; k++) {
            store_vf(&panel->scales[b + k][v], mxfp4_scale(d, k));
            mxfp4_codes(d, k, t);
            store_fp4_codes(t, panel->bytes[8 * (b + k)] + v);
          }
        }
      }
      for (; b < count / BLOCK; b++) {
        const i64 from = (first / BLOCK + b) * 17;
        for (int r = 0; r < TILE; r++) panel->scales[b][r] = e8m0_half_to_f32(rows.at[r * rows.stride + from]);
        IN_TURN {
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 1, t);
          store_fp4_codes(t, panel->bytes[8 * b] + v);
        }
      }
      return;
    }
    case FP4: /* element 2k in the low nibble of byte k, 2k + 1 in the high one */
      for (i64 b = 0; b < count / BLOCK; b++) {
        const i64 block = first / BLOCK + b;
        fetch_ahead(m, block, TILE * 16);
        fp4_scales(m, rows, block, panel->scales[b]);
        FOR_EACH_VECTOR {
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, block * 16, t);
          UNROLL for (int j = 0; j < 4; j++) {
            const vi even = (t[j] & 0x000f000f) | (t[j] & 0x00f000f0) << 4; /* elements 0, 1, 4, 5 */
            const vi odd = (t[j] >> 8 & 0x000f000f) | (t[j] >> 4 & 0x0f000f00); /* elements 2, 3, 6, 7 */
            store_vi(&panel->bytes[8 * b + 2 * j][v], lookup_16(fp4_table, (even & 0xffff) | odd << 16));
            store_vi(&panel->bytes[8 * b + 2 * j + 1][v], lookup_16(fp4_table, (vi)((vu)even >> 16) | (odd & (i32)0xffff0000)));
          }
        }
      }
      return;
    case Q4_K:
      for (i64 super = 0; super < count / 256; super++) {
        const i64 from = (first / 256 + super) * 144;
        fetch_ahead(m, first / 256 + super, TILE * 144);
        IN_TURN {
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from, t);
          q4_k_scales(t, &panel->scales[8 * super][v], &panel->minima[8 * super][v]);
          UNROLL_WIDEST for (int part = 0; part < 8; part++) { /* 16 bytes: half of the low nibbles of one group, of the high ones of the next */
            transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 16 + 16 * part, t);
            i32(*into)[TILE] = &panel->bytes[64 * super + 16 * (part / 2) + 4 * (part & 1)];
            UNROLL for (int j = 0; j < 4; j++) {
              store_vi(&into[j][v], t[j] & 0x0f0f0f0f);
              store_vi(&into[8 + j][v], (t[j] >> 4) & 0x0f0f0f0f);
            }
          }
        }
      }
      return;
    default: /* Q6_K */
      for (i64 super = 0; super < count / 256; super++) {
        const i64 from = (first / 256 + super) * 210;
        fetch_ahead(m, first / 256 + super, TILE * 210);
        float of_block[TILE] __attribute__((aligned(64)));
        f16_scales(rows, from + 208, of_block);
        IN_TURN {
          transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 192, t);
          for (int g = 0; g < 16; g++)
            store_vf(&panel->scales[16 * super + g][v], load_vf(of_block + v) * vf_of_vi(t[g / 4] << (24 - g % 4 * 8) >> 24));
          for (int half = 0; half < 2; half++)
            for (int part = 0; part < 2; part++) { /* 16 of the 32 columns of each of the four groups of this half */
              vi high[4], low[4];
              transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 128 + 32 * half + 16 * part, high);
              for (int pair = 0; pair < 2; pair++) {
                transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, from + 64 * half + 32 * pair + 16 * part, low);
                i32(*into)[TILE] = &panel->bytes[64 * super + 32 * half + 8 * pair + 4 * part];
                UNROLL for (int j = 0; j < 4; j++) {
                  const vi h = high[j] >> 2 * pair;
                  store_vi(&into[j][v], (low[j] & 0x0f0f0f0f) | (h & 0x03030303) << 4);
                  store_vi(&into[16 + j][v], ((low[j] >> 4) & 0x0f0f0f0f) | (h & 0x30303030));
                }
              }
            }
        }
      }
  }
}

/* Byte k of each lane's dword, as a signed or unsigned number. */
static inline vi byte_of(vi dword, int k, int is_signed) {
  return is_signed ? (dword << (24 - 8 * k)) >> 24 : (vi)((vu)dword >> 8 * k) & 0xff;
}

/* In how many sums, by column, products are added up over a stretch (see product.h). */
enum { SUMS_OF_FP8 = 16 };
static inline int sums_of_format(i64 format) { return format == FP8 ? SUMS_OF_FP8 : 4; }

static inline int bytes_of_number(i64 format) { return format == F32 ? 4 : format == FP8 ? 1 : 2; }

/* The columns in 16 bytes of each row: four of F32, eight of F16 and BF16, sixteen of FP8, whose scale is not in them. */
static inline __attribute__((always_inline)) void columns_of(const i64 format, const vi t[4], vf* out) {
  UNROLL for (int j = 0; j < 4; j++) switch (format) {
      case F32: out[j] = (vf)t[j]; break;
      case BF16:
        out[2 * j] = (vf)(t[j] << 16);
        out[2 * j + 1] = (vf)(t[j] & (i32)0xffff0000);
        break;
      case F16:
        out[2 * j] = f16_to_vf(t[j] & 0xffff);
        out[2 * j + 1] = f16_to_vf((vi)((vu)t[j] >> 16));
        break;
      default:
        UNROLL for (int k = 0; k < 4; k++) out[4 * j + k] = e4m3_to_vf(byte_of(t[j], k, 0));
    }
}

/* The rows' values in float32, bit by bit as the format defines them: one rounding for each operation written there. */
static void unpack_floats(const Matrix* m, Rows rows, i64 first, i64 count, Panel* panel) {
  vi t[4];
  if (is_block_format(m->format)) {
    unpack_blocks(m, rows, first, count, panel);
    const int group = scale_group(m->format), is_signed = m->format == Q8_0 && m->bias_8 == 0;
    const vi zero = vi_of(zero_point(m->format, m->bias_8));
    for (i64 c = 0; c < count; c += 4)
      IN_TURN {
        const vi dword = load_vi(&panel->bytes[c / 4][v]);
        const vf scale = load_vf(&panel->scales[c / group][v]);
        const vf minimum = has_minima(m->format) ? load_vf(&panel->minima[c / BLOCK][v]) : vf_of(0);
        UNROLL for (int k = 0; k < 4; k++) {
#pragma clang fp contract(off)
          const vf value = scale * vf_of_vi(byte_of(dword, k, is_signed) - zero);
          store_vf(&panel->floats[c + k][v], has_minima(m->format) ? value - minimum : value);
        }
      }
    return;
  }
  const int bytes = bytes_of_number(m->format), each = 16 / bytes;
  i64 c = 0;
  for (; c + each <= count; c += each) {
    fetch_ahead(m, (first + c) / each, TILE * 16);
    IN_TURN {
      vf column[16];
      transpose_16_bytes(rows.at + v * rows.stride, rows.stride, 0, (first + c) * bytes, t);
      switch (m->format) {
        case F32: columns_of(F32, t, column); break;
        case BF16: columns_of(BF16, t, column); break;
        case F16: columns_of(F16, t, column); break;
        default: columns_of(FP8, t, column);
      }
      for (int k = 0; k < each; k++) store_vf(&panel->floats[c + k][v], column[k]);
    }
  }
  for (; c < count; c++) /* the columns behind the last 16 bytes */
    for (int r = 0; r < TILE; r++) {
      const u8* from = rows.at + r * rows.stride + (first + c) * bytes;
      float value;
      switch (m->format) {
        case F32: value = *(const f32_at*)from; break;
        case BF16: value = bits_to_f32((u32) * (const u16_at*)from << 16); break;
        case F16: value = f16_to_vf(vi_of(*(const u16_at*)from))[0]; break;
        default: value = e4m3_to_vf(vi_of(*from))[0];
      }
      panel->floats[c][r] = value;
    }
  if (m->format != FP8) return;
  for (i64 k = 0; k < count;) { /* stretches of one scale; rows of a tile may lie in different blocks */
    const i64 block = (first + k) / m->block_columns, end = min_i64(count, (block + 1) * m->block_columns - first);
    float scale[TILE];
    for (int r = 0; r < TILE; r++) {
      const i64 element = (rows.first_row + (rows.stride ? r : 0)) / m->block_rows * m->scale_row_elements + block;
      scale[r] = m->scale_is_f32 ? ((const f32_at*)m->scales)[element] : e8m0_to_f32(m->scales[element]);
    }
    for (; k < end; k++) FOR_VECTORS store_vf(&panel->floats[k][v], load_vf(&panel->floats[k][v]) * load_vf(scale + v));
  }
}

/* As above for float32 rows anywhere: those of a paged cache. */
static void unpack_cache_rows(const u8* const rows[TILE], i64 first, i64 count, Panel* panel) {
  vi t[4];
  i64 c = 0;
  for (; c + 4 <= count; c += 4)
    FOR_EACH_VECTOR {
      transpose_16_bytes(0, 0, rows + v, (first + c) * 4, t);
      UNROLL for (int j = 0; j < 4; j++) store_vf(&panel->floats[c + j][v], (vf)t[j]);
    }
  for (; c < count; c++)
    for (int r = 0; r < TILE; r++) panel->floats[c][r] = *(const f32_at*)(rows[r] + (first + c) * 4);
}
