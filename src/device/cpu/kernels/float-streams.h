/*
 * One token times floats (F32, F16, BF16, FP8), without a panel in between. No lane is needed for each row: a vector is the same four
 * columns of QUAD_ROWS rows, four sums for each, which the order of the sums asks for anyway.
 */
#pragma once
#include "activations.h"

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
  const u8* ahead = (m->ahead ? m->ahead : rows.at) + TILE / STREAMS * first * bytes; /* something in any case: no branch between products */
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
          __builtin_prefetch(ahead + i % STREAMS * apart + TILE / STREAMS * c * bytes + v * LINE / STREAMS + i / STREAMS * LINE, 0, 3);
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
