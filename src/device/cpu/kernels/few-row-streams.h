/*
 * Two to four tokens times Q8_0, two or three times Q4_0, where a vector is eight rows, without a panel in between. A vector of weights
 * is eight bytes of four rows, which takes few instructions to put together, and is used for all tokens; what is left to add up of a row
 * are two numbers of each token, and no sum of eight rows is turned but once.
 */
#pragma once
#include "row-streams.h"

enum { MOST_ROW_TOKENS = 4, START_BLOCKS = 32 };

/* Eight bytes each of rows a, b, c and d, and the eight behind them. */
static inline __attribute__((always_inline)) void eight_of_four_rows(const u8* a, const u8* b, const u8* c, const u8* d, vi w[2]) {
#define TWO(first, second) _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void*)(first))), _mm_loadu_si128((const void*)(second)), 1)
  const __m256i even = TWO(a, c), odd = TWO(b, d);
#undef TWO
  w[0] = (vi)_mm256_unpacklo_epi64(even, odd);
  w[1] = (vi)_mm256_unpackhi_epi64(even, odd);
}

/*
 * total[t] += the block of eight rows where their pointers are times T tokens, whose bytes and scales lie next to each other; starts are
 * the zero point times the sum of a token's bytes.
 */
static inline __attribute__((always_inline)) void add_block_of_tokens(const i64 format, const int T, const u8* const row[LANES], const i8* bytes,
                                                                      const float* scales, const i32* starts, vf* total) {
  vi part[2][MOST_ROW_TOKENS]; /* rows 0, 1, 4 and 5, and the others: of Q8_0 two dwords each, of Q4_0 four words */
  UNROLL for (int g = 0; g < 2; g++) {
    if (T > 2) OPAQUE(bytes); /* else what is loaded for some rows is kept for the others, in memory */
    UNROLL for (int i = 0; i < (format == Q8_0 ? 4 : 2); i++) {
      const i64 at = 2 + i / 2 * 16;
      vi w[2];
      if (i % 2 == 0) eight_of_four_rows(row[2 * g] + at, row[2 * g + 1] + at, row[2 * g + 4] + at, row[2 * g + 5] + at, w);
      const __m256i codes = (__m256i)w[i % 2], nibble = _mm256_set1_epi8(15), low = _mm256_and_si256(codes, nibble);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble), magnitudes = _mm256_abs_epi8(codes);
      UNROLL for (int t = 0; t < T; t++) {
#define EIGHT(from) _mm256_set1_epi64x(*(const i64_at*)(bytes + BLOCK * t + (from)))
        vi* sum = &part[g][t];
        if (format == Q8_0) {
          const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(EIGHT(8 * i), codes)); /* as in dot_8bit */
          *sum = add_sums(i ? *sum : vi_of(0), (vi)pairs);
        } else { /* as in add_nibble_pair */
          const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, EIGHT(8 * i)), _mm256_maddubs_epi16(high, EIGHT(16 + 8 * i)));
          *sum = (vi)(i ? _mm256_add_epi16((__m256i)*sum, pairs) : pairs);
        }
        OPAQUE_VECTOR(*sum);
#undef EIGHT
      }
    }
  }
  const vf of_rows = scales_of_rows(row, 0);
  UNROLL for (int t = 0; t < T; t++) {
    const __m256i a = (__m256i)part[0][t], b = (__m256i)part[1][t];
    const vi sum = format == Q8_0 ? (vi)_mm256_hadd_epi32(a, b) : add_sums(vi_of(starts[t]), (vi)_mm256_hadd_epi16(a, b));
    total[t] = fma_vf(vf_of_vi(sum), of_rows * vf_of(scales[t]), total[t]);
  }
}

/* acc[t] = all columns times T tokens: the sums of bytes_of_tokens. As much is fetched meanwhile, as in stream_of_blocks. */
static inline __attribute__((always_inline)) void streams_of_tokens(const i64 format, const int T, const Matrix* m, Rows rows, const Activations* x,
                                                                    float (*acc)[TILE]) {
  const i64 blocks = m->columns / BLOCK, block_bytes = format == Q4_0 ? 18 : 34, lines = format == Q4_0 ? 2 : 4;
  const i64 block = block_of(x, activation_row(x, 0), 0), apart = m->ahead_rows * m->row_bytes;
  const u8* ahead = m->ahead ? m->ahead : rows.at;
  for (i64 first = 0; first < blocks; first += START_BLOCKS) {
    const i64 count = min_i64(START_BLOCKS, blocks - first), of_first = block + first * TOGETHER;
    i32 starts[START_BLOCKS][T];
    if (format == Q4_0) {
      const i32* sums = x->sums + sums_of(x, of_first);
      for (i64 b = 0; b < count; b++, sums += 2 * TOGETHER)
        UNROLL for (int t = 0; t < T; t++) starts[b][t] = -zero_point(format, BIAS_8) * (sums[t] + sums[TOGETHER + t]);
    }
    _Pragma("clang loop unroll(disable)") for (int v = 0; v < TILE; v += LANES) {
      const i8* bytes = x->bytes + BLOCK * of_first;
      const float* scales = x->scales + of_first;
      const u8* row[LANES];
      vf total[T];
      UNROLL for (int r = 0; r < LANES; r++) row[r] = rows.at + (v + r) * rows.stride + first * block_bytes;
      UNROLL for (int t = 0; t < T; t++) total[t] = first ? load_vf(acc[t] + v) : vf_of(0);
      for (i64 b = 0; b < count; b++) {
        if (lines * b % 4 == 0) fetch_four_lines(ahead, apart, lines * b);
        add_block_of_tokens(format, T, row, bytes, scales, starts[b], total);
        bytes += BLOCK * TOGETHER, scales += TOGETHER;
        OPAQUE(bytes);
        UNROLL for (int r = 0; r < LANES; r++) {
          row[r] += block_bytes;
          OPAQUE(row[r]);
        }
      }
      ahead += lines * count / STREAMS * LINE;
      fetch_lines(ahead, apart);
      ahead += LINE;
      UNROLL for (int t = 0; t < T; t++) store_vf(acc[t] + v, total[t]);
    }
  }
}

/* acc[t] = all columns times two to four activations; 0 where a panel is wanted. */
int OF_BODY(stream_few)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* room) {
  (void)room;
  if (tokens > 2 && m->bias_8) return 0; /* with VNNI, from a panel three and four are as fast or faster */
  if (m->format == Q8_0 && tokens == 2) streams_of_tokens(Q8_0, 2, m, rows, x, acc);
  else if (m->format == Q8_0 && tokens == 3) streams_of_tokens(Q8_0, 3, m, rows, x, acc);
  else if (m->format == Q8_0 && tokens == 4) streams_of_tokens(Q8_0, 4, m, rows, x, acc);
  else if (m->format == Q4_0 && tokens == 2) streams_of_tokens(Q4_0, 2, m, rows, x, acc);
  else if (m->format == Q4_0 && tokens == 3) streams_of_tokens(Q4_0, 3, m, rows, x, acc);
  else return 0;
  return 1;
}
