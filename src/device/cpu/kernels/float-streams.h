/*
 * One to eight tokens times floats, without a panel in between. No lane is needed for each row. F32, F16, BF16: a vector is the same four columns
 * of QUAD_ROWS rows, four sums for each, which the order of the sums asks for anyway. FP8: a vector is columns of one row, whose order
 * has sixteen sums for that: loading and sorting quads of four rows takes as many instructions as multiplying them.
 */
#pragma once
#include "activations.h"

enum { QUAD_ROWS = LANES / 4, MOST_FLOAT_STREAMS = LANES >= 8 ? 8 : 1 };

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

/* out[j] = columns 4 * j ... of QUAD_ROWS rows that are `stride` bytes apart, of 16 bytes each; as many as are in them. */
static inline __attribute__((always_inline)) void quads_of(const i64 format, const u8* at, i64 stride, vf out[2]) {
  const vi raw = load_quad_rows(at, stride);
  vi words[2];
  switch (format) {
    case F32: out[0] = (vf)raw; return;
    case BF16:
      words_to_dwords(raw, words);
      UNROLL for (int j = 0; j < 2; j++) out[j] = (vf)words[j];
      return;
    default: { /* F16 */
#if LANES == 16
      const __m512i halves = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), (__m512i)raw);
      out[0] = (vf)_mm512_cvtph_ps(_mm512_castsi512_si256(halves));
      out[1] = (vf)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
#elif LANES == 8
      /* row by row from memory, where a conversion is no shuffle besides: with one token a third more a second */
      const __m256 one = _mm256_cvtph_ps(_mm_loadu_si128((const void*)at)), other = _mm256_cvtph_ps(_mm_loadu_si128((const void*)(at + stride)));
      out[0] = (vf)_mm256_permute2f128_ps(one, other, 0x20);
      out[1] = (vf)_mm256_permute2f128_ps(one, other, 0x31);
#else
      words_to_dwords(raw, words);
      UNROLL for (int j = 0; j < 2; j++) out[j] = f16_to_vf((vi)((vu)words[j] >> 16));
#endif
    }
  }
}

/* sum[T * i + t] += a line of QUAD_ROWS rows that are `stride` bytes apart times x[t], for `groups` of them, the next one `next` bytes on. */
static inline __attribute__((always_inline)) void add_line(const i64 format, const int T, const int groups, const u8* at, i64 next, i64 stride,
                                                           const float* const* x, i64 column, vf* sum) {
  const int each = 16 / bytes_of_number(format);
  _Pragma("clang loop unroll(disable)") for (int part = 0; part < LINE / 16; part++)
    UNROLL for (int i = 0; i < groups; i++) {
      vf w[2];
      quads_of(format, at + i * next + 16 * part, stride, w);
      UNROLL for (int j = 0; j < each / 4; j++)
        UNROLL for (int t = 0; t < T; t++) sum[T * i + t] = fma_vf(w[j], broadcast_quad(x[t] + column + each * part + 4 * j), sum[T * i + t]);
    }
}

/* Rows of a vector that are multiplied in turn: eight rows, so that lines fit the cache where rows are a power of two apart. */
enum { GROUPS = LANES == 16 ? 2 : 4, MOST_TOGETHER = LANES == 16 ? 8 : 4 };

/*
 * acc[t] += columns first .. first + count times T tokens: the sums of floats_of_tokens, without a panel in between. A line of these rows
 * is used up before that of others; with several tokens, whose sums take the registers, all of a stretch.
 */
static inline __attribute__((always_inline)) void stream_of_format(const i64 format, const int T, const Matrix* m, Rows rows, i64 first, i64 count,
                                                                  const float* const* tokens, float (*acc)[TILE]) {
  const int bytes = bytes_of_number(format), columns = LINE / bytes, groups = T == 1 ? GROUPS : 2, together = T == 1 ? 4 : groups;
  const u8* ahead = m->ahead ? m->ahead : rows.at; /* something in any case: no branch between products */
  const i64 apart = m->ahead_rows * m->row_bytes;
  const float* x[T];
  UNROLL for (int t = 0; t < T; t++) x[t] = tokens[t];
  i64 line = first / columns * TILE;
  IN_TURN {
    const u8* at = rows.at + v * rows.stride + first * bytes;
    vf sums[T][4];
    vi s[4];
    for (int part = 0; part < 4; part += together) {
      vf sum[4][T];
      UNROLL for (int row = 0; row < together; row++)
        UNROLL for (int t = 0; t < T; t++) sum[row][t] = vf_of(0);
      for (i64 c = 0; c < count; c += columns)
        UNROLL for (int row = 0; row < together; row += groups) {
          UNROLL for (int i = 0; i < groups * QUAD_ROWS; i += 4, line += 4) fetch_four_lines(ahead, apart, line);
          add_line(format, T, groups, at + (part + row) * rows.stride + c * bytes, rows.stride, 4 * rows.stride, x, c, sum[row]);
          __asm__ volatile("" ::: "memory"); /* else the compiler loads the lines of other rows first, and spills */
        }
      UNROLL for (int row = 0; row < together; row++)
        UNROLL for (int t = 0; t < T; t++) sums[t][part + row] = sum[row][t];
    }
    for (int t = 0; t < T; t++) {
      transpose_quads((vi)sums[t][0], (vi)sums[t][1], (vi)sums[t][2], (vi)sums[t][3], s);
      store_vf(acc[t] + v, load_vf(acc[t] + v) + (((vf)s[0] + (vf)s[1]) + ((vf)s[2] + (vf)s[3])));
    }
  }
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
      UNROLL for (int i = 0; i < vectors; i++) add_line(format, 1, 1, at + i * QUAD_ROWS * m->row_bytes + c * bytes, 0, m->row_bytes, &x, c, sum + i);
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
enum { FP8_COLUMNS = LINE, FP8_VECTORS = SUMS_OF_FP8 / LANES };

/* What is loaded behind this is loaded anew, as an operand that costs nothing, instead of once in an instruction of its own. */
#define LOAD_AGAIN() __asm__ volatile("" ::: "memory")

/* The greater of each unsigned byte. */
static inline vi greatest_bytes(vi a, vi b) {
  typedef u8 Bytes __attribute__((vector_size(4 * LANES)));
  return (vi)__builtin_elementwise_max((Bytes)a, (Bytes)b);
}
/* The greatest of each byte of a line without its sign. */
static inline __attribute__((always_inline)) vi greatest_codes(vi greatest, const u8* at) {
  UNROLL for (int i = 0; i < FP8_COLUMNS; i += 4 * LANES) {
    greatest = greatest_bytes(greatest, load_vi(at + i) & 0x7f7f7f7f);
    OPAQUE_VECTOR(greatest); /* else what it is made of is kept for later, and spilled */
  }
  return greatest;
}
/* Whether any byte has this value. */
static inline int has_byte(vi x, u8 value) {
  typedef i8 Bytes __attribute__((vector_size(4 * LANES)));
  return __builtin_reduce_or((vi)((Bytes)x == (i8)value)) != 0;
}

/*
 * A line of E4M3 codes in half precision, divided by 2^8, NaN as if it were one: a code with its sign a bit further up. AVX2 widens
 * bytes by multiplying those of a word by 128 and by 0, an instruction less: of 32 columns the even ones come first, then the others.
 */
static inline __attribute__((always_inline)) void halves_of_fp8(const u8* at, u16* halves) {
  UNROLL for (int i = 0; i < FP8_COLUMNS; i += 32) {
#if LANES == 16
    const __m512i words = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void*)(at + i)));
    store_vi(halves + i, (vi)_mm512_slli_epi16(words, 7) & (i32)0xbfffbfff);
#else
    UNROLL for (int odd = 0; odd < 2; odd++) {
      const __m256i factors = _mm256_set1_epi16(odd ? (short)0x8000 : 0x0080);
      store_vi(halves + i + 16 * odd, (vi)_mm256_maddubs_epi16(factors, _mm256_loadu_si256((const void*)(at + i))) & (i32)0xbfffbfff);
      LOAD_AGAIN();
    }
#endif
  }
}
/* Vector i of a line; with AVX2, of each sixteen columns the even ones, then the others. */
static inline vf load_halves(const u16* halves, int i) {
#if LANES == 16
  return (vf)_mm512_cvtph_ps(_mm256_load_si256((const void*)(halves + 16 * i)));
#else
  return (vf)_mm256_cvtph_ps(_mm_load_si128((const void*)(halves + i / 4 * 32 + i % 2 * 16 + i / 2 % 2 * 8)));
#endif
}
/* Sums of a row in those vectors, into the order of columns; with AVX2, vector i has the quads i and i + 2. */
static inline __attribute__((always_inline)) void in_order_of_columns(vf sum[FP8_VECTORS]) {
#if LANES == 8
  const vf even = sum[0], odd = sum[1];
  sum[0] = (vf)_mm256_unpacklo_ps((__m256)even, (__m256)odd);
  sum[1] = (vf)_mm256_unpackhi_ps((__m256)even, (__m256)odd);
#else
  (void)sum;
#endif
}

/*
 * scaled = columns first ... of a token times the scale that rows share there, and 2^8, as vectors of halves lie. 0 where that is no
 * power of two, or bits of a column are lost with it.
 */
static NEVER_INLINE int scale_for_fp8(const Matrix* m, i64 block_row, i64 first, i64 count, Magnitudes range, const float* x, float* scaled) {
  const i64 block = first / m->block_columns, blocks = (first + count - 1) / m->block_columns + 1 - block;
  const i64 element = block_row * m->scale_row_elements + block;
  /* as exponents: weights and products are to be finite, and products no less than the least that has all bits */
  const i32 most = (i32)(f32_to_bits(range.most) >> 23), least = (i32)(f32_to_bits(range.least) >> 23);
  const i32 lowest = least == 0 ? 255 : least < 119 ? 128 - least : 9, highest = most > 136 ? 381 - most : 245;
  u32 scale[STRETCH / SUMS_OF_FP8], is_wrong = 0;
  for (i64 b = 0; b < blocks; b++) {
    const u32 bits = (m->scale_is_f32 ? f32_to_bits(((const f32_at*)m->scales)[element + b]) : (u32)m->scales[element + b] << 23) + (8 << 23);
    is_wrong |= (bits & 0x7fffff) | (u32)((i32)(bits >> 23) < lowest) | (u32)((i32)(bits >> 23) > highest);
    scale[b] = bits;
  }
  if (is_wrong) return 0;
  for (i64 k = 0, b = 0; k < count; b++) {
    const i64 end = min_i64(count, (block + b + 1) * m->block_columns - first);
    for (; k < end; k += SUMS_OF_FP8) {
      const vf factor = vf_of(bits_to_f32(scale[b])), low = load_vf(x + k) * factor;
#if LANES == 16
      store_vf(scaled + k, low);
#else
      const vf high = load_vf(x + k + LANES) * factor;
      store_vf(scaled + k, __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14));
      store_vf(scaled + k + LANES, __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
#endif
    }
  }
  return 1;
}

/* Tokens that are multiplied together with codes of FP8: their sums, of four rows or (AVX2) of two, take the registers. */
enum { MOST_OF_FP8 = LANES == 16 ? 4 : 2 };

/*
 * FP8: codes are multiplied as they are, and x with the scale that the tile's rows share and with 2^8 that codes are short of. Both are
 * powers of two, so that no product changes. Of four rows (several tokens with AVX2: two) a line each is used up in turn.
 * 0 for NaN. T tokens, of which n exist: of three the last is multiplied twice.
 */
static inline __attribute__((always_inline)) int fp8_of_tokens(const int T, const Matrix* m, Rows rows, i64 first, i64 count, const float (*scaled)[STRETCH],
                                                               i64 n, float (*acc)[TILE]) {
  const int together = LANES == 8 && T > 1 ? 2 : 4, parts = 4 / together;
  u16 halves[4][FP8_COLUMNS] __attribute__((aligned(64)));
  /* Each part fetches from twice `together` streams, from the first half and the second in turn: a step there, and one back to the next line. */
  const u8* ahead[2];
  i64 apart = m->ahead_rows * m->row_bytes, three_apart = 3 * apart, step[2];
  UNROLL for (int part = 0; part < parts; part++) {
    ahead[part] = (m->ahead ? m->ahead : rows.at) + 4 * part * apart + first * TILE / STREAMS;
    step[part] = together * apart;
  }
  const i64 both_steps = step[0] ^ (LINE - step[0]);
  OPAQUE(apart);
  OPAQUE(three_apart);
  vi greatest = vi_of(0), four[MOST_OF_FP8][FP8_VECTORS][4];
  for (int g = 0; g < 4; g++) {
    vf sums[MOST_OF_FP8][4][FP8_VECTORS];
    for (int part = 0; part < parts; part++) {
      vf sum[MOST_OF_FP8][4][FP8_VECTORS];
      const u8* at[4];
      UNROLL for (int r = 0; r < together; r++) {
        at[r] = rows.at + (4 * g + together * part + r) * rows.stride + first;
        UNROLL for (int t = 0; t < T; t++)
          UNROLL for (int i = 0; i < FP8_VECTORS; i++) sum[t][r][i] = vf_of(0);
      }
      const float* x = scaled[0];
      for (const float* const end = x + count; x < end;) {
        UNROLL for (int i = 0; i < together; i++) FETCH(ahead[part] + (i == 3 ? three_apart : i * apart));
        ahead[part] += step[part];
        step[part] ^= both_steps;
        UNROLL for (int r = 0; r < together; r++) {
          halves_of_fp8(at[r], halves[r]);
          if (LANES == 8) greatest = greatest_codes(greatest, at[r]);
          at[r] += FP8_COLUMNS;
          OPAQUE(at[r]);
        }
        __asm__("" : "+m"(halves)); /* else the compiler leaves memory out, and converting halves in a register is a shuffle more */
        UNROLL for (int i = 0; i < FP8_COLUMNS / LANES; i++) {
          vf value[MOST_OF_FP8];
          UNROLL for (int t = 0; t < T; t++) value[t] = load_vf(x + STRETCH * (t < 2 ? t : min_i64(t, n - 1)) + LANES * i);
          UNROLL for (int r = 0; r < together; r++) {
            const vf w = load_halves(halves[r], i);
            if (LANES == 16 && i == r) greatest = greatest_codes(greatest, at[r] - FP8_COLUMNS); /* between conversions, to share out its two ports */
            UNROLL for (int t = 0; t < T; t++) sum[t][r][i % FP8_VECTORS] = fma_vf(w, value[t], sum[t][r][i % FP8_VECTORS]);
          }
        }
        x += FP8_COLUMNS;
        OPAQUE(x);
      }
      UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < together; r++) {
          in_order_of_columns(sum[t][r]);
          UNROLL for (int i = 0; i < FP8_VECTORS; i++) sums[t][together * part + r][i] = sum[t][r][i];
        }
    }
    UNROLL for (int t = 0; t < T; t++)
      UNROLL for (int i = 0; i < FP8_VECTORS; i++) {
        vi s[4];
        transpose_quads((vi)sums[t][0][i], (vi)sums[t][1][i], (vi)sums[t][2][i], (vi)sums[t][3][i], s);
        four[t][i][g] = (vi)(((vf)s[0] + (vf)s[1]) + ((vf)s[2] + (vf)s[3]));
      }
  }
  if (has_byte(greatest, 0x7f)) return 0;
  for (i64 t = 0; t < n; t++) {
    vi part[TILE_VECTORS][4]; /* of each four of the sums, rows side by side */
    UNROLL for (int i = 0; i < FP8_VECTORS; i++) {
      vi of_rows[TILE_VECTORS][QUAD_LANES];
      rows_of_quads(four[t][i], of_rows);
      UNROLL for (int v = 0; v < TILE_VECTORS; v++)
        UNROLL for (int k = 0; k < QUAD_LANES; k++) part[v][FP8_VECTORS * k + i] = of_rows[v][k];
    }
    FOR_VECTORS {
      const vi* p = part[v / LANES];
      store_vf(acc[t] + v, load_vf(acc[t] + v) + (((vf)p[0] + (vf)p[1]) + ((vf)p[2] + (vf)p[3])));
    }
  }
  return 1;
}

/* acc[t] += columns first .. first + count of FP8 times n tokens; 0 where a panel is needed, which then has to do the same for all. */
static NEVER_INLINE int stream_fp8(const Matrix* m, Rows rows, i64 first, i64 count, const Activations* x, const float* const* tokens, i64 n,
                                   float (*acc)[TILE], Panel* room) {
  const i64 last_row = rows.first_row + (rows.stride ? TILE - 1 : 0), block_row = rows.first_row / m->block_rows;
  if (m->block_columns % SUMS_OF_FP8 || block_row != last_row / m->block_rows) return 0;
  /* as many stretches as there is room for stay in the panel; the last place is for all others */
  const i64 stretches = (m->columns + STRETCH - 1) / STRETCH, last = MOST_SCALED / n - 1, place = min_i64(first / STRETCH, last);
  Scaled* kept = x->scaled && (place < last || stretches == last + 1) ? x->scaled + place : 0;
  const int is_there = kept && kept->x == tokens[0] && kept->block_row == block_row;
  float sums[MOST_FLOAT_STREAMS][TILE] __attribute__((aligned(64)));
  for (i64 t = 0; t < n; t++) FOR_VECTORS store_vf(sums[t] + v, load_vf(acc[t] + v));
  for (i64 t = 0, some; t < n; t += some) {
    float(*scaled)[STRETCH] = (float(*)[STRETCH])room->floats + place * n + (kept ? t : 0);
    some = min_i64(MOST_OF_FP8, n - t);
    for (i64 i = 0; i < some && !is_there; i++)
      if (!scale_for_fp8(m, block_row, first, count, x->ranges ? x->ranges[t + i] : (Magnitudes){0, 0}, tokens[t + i], scaled[i]) &&
          !scale_for_fp8(m, block_row, first, count, magnitudes_of(tokens[t + i], count), tokens[t + i], scaled[i]))
        return 0;
    int done;
    if (some == 1) done = fp8_of_tokens(1, m, rows, first, count, scaled, 1, sums + t);
    else if (MOST_OF_FP8 == 2 || some == 2) done = fp8_of_tokens(2, m, rows, first, count, scaled, 2, sums + t);
    else done = fp8_of_tokens(MOST_OF_FP8, m, rows, first, count, scaled, some, sums + t);
    if (!done) return 0;
  }
  if (kept) *kept = (Scaled){tokens[0], block_row};
  for (i64 t = 0; t < n; t++) FOR_VECTORS store_vf(acc[t] + v, load_vf(sums[t] + v));
  return 1;
}
#endif

/* The same for any number of tokens, four or two of them together: of three, one is multiplied twice. */
static inline __attribute__((always_inline)) void streams_of_format(const i64 format, const Matrix* m, Rows rows, i64 first, i64 count,
                                                                    const float* const* x, i64 tokens, float (*acc)[TILE]) {
  i64 t = 0;
  for (; tokens - t > 2; t += MOST_TOGETHER) {
    const i64 n = min_i64(MOST_TOGETHER, tokens - t);
    const float* some[MOST_TOGETHER];
    float sums[MOST_TOGETHER][TILE] __attribute__((aligned(64)));
    for (i64 i = 0; i < MOST_TOGETHER; i++) {
      const i64 token = t + min_i64(i, n - 1);
      some[i] = x[token];
      FOR_VECTORS store_vf(sums[i] + v, load_vf(acc[token] + v));
    }
    if (MOST_TOGETHER == 8 && n > 4) stream_of_format(format, MOST_TOGETHER, m, rows, first, count, some, sums);
    else stream_of_format(format, 4, m, rows, first, count, some, sums);
    for (i64 i = 0; i < n; i++) FOR_VECTORS store_vf(acc[t + i] + v, load_vf(sums[i] + v));
  }
  if (tokens - t == 2) stream_of_format(format, 2, m, rows, first, count, x + t, acc + t);
  else if (tokens - t == 1) stream_of_format(format, 1, m, rows, first, count, x + t, acc + t);
}

/* acc[t] += columns first .. first + count times up to eight tokens; 0 where a panel is needed. */
static NEVER_INLINE int stream_floats(const Matrix* m, Rows rows, i64 first, i64 count, const Activations* x, i64 tokens, float (*acc)[TILE],
                                      Panel* room) {
  const float* at[MOST_FLOAT_STREAMS];
  if (tokens > MOST_FLOAT_STREAMS || count * bytes_of_number(m->format) % LINE) return 0;
  for (i64 t = 0; t < tokens; t++) at[t] = floats_of(x, t) + first;
  switch (m->format) {
    case F32: streams_of_format(F32, m, rows, first, count, at, tokens, acc); return 1;
    case F16: streams_of_format(F16, m, rows, first, count, at, tokens, acc); return 1;
    case BF16: streams_of_format(BF16, m, rows, first, count, at, tokens, acc); return 1;
#if LANES >= 8
    case FP8: return stream_fp8(m, rows, first, count, x, at, tokens, acc, room);
#endif
    default: (void)room; return 0;
  }
}
