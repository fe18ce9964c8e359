/*
 * One token times Q4_0 or Q8_0 where a vector is eight rows, without a panel in between. Instructions are what limits it, so what a token
 * has to give is laid out beforehand, for sixteen rows, and rows have a pointer each, with which an operand in memory is part of the
 * instruction that uses it. Q4_0 is transposed as it is stored; Q8_0 not at all: what is turned are the sums of a
 * row's products, of which there are fewer.
 */
#pragma once
#include "activations.h"
#include "dot.h"

enum { TOKEN_BLOCKS = 32 };

/* Blocks of a token. Of the first of two blocks of Q4_0, bytes are in the order of four_across. */
typedef struct {
  i8 bytes[TOKEN_BLOCKS][BLOCK] __attribute__((aligned(32)));
  i32 starts[TOKEN_BLOCKS]; /* the zero point times the sum of the bytes */
  float scales[TOKEN_BLOCKS];
} TokenBlocks;

static inline __attribute__((always_inline)) void load_token(const i64 format, const Activations* x, i64 first, i64 blocks, TokenBlocks* to) {
  const i64 together = x->together, block = block_of(x, activation_row(x, 0), first * BLOCK);
  const i8* from = x->bytes + BLOCK * block;
  const i32* sums = x->sums + sums_of(x, block);
  const float* scales = x->scales + block;
  for (i64 b = 0; b < blocks; b++, from += BLOCK * together, sums += 2 * together, scales += together) {
    const __m256i bytes = _mm256_loadu_si256((const void*)from);
    _mm256_store_si256((void*)to->bytes[b], format == Q4_0 && b % 2 == 0 ? _mm256_alignr_epi8(bytes, bytes, 14) : bytes);
    to->starts[b] = -zero_point(format, BIAS_8) * (sums[0] + sums[together]);
    to->scales[b] = *scales;
  }
}

/* total += two blocks of eight rows of Q4_0, whose dwords are d, times blocks b and b + 1 of a token */
static inline __attribute__((always_inline)) vf add_nibble_pair(const vi* d, const TokenBlocks* x, i64 b, vf total) {
  vf scale[2];
  two_f16_to_vf(d[0], d[4], scale);
  UNROLL for (int k = 0; k < 2; k++) {
    vi pairs = vi_of(0); /* a whole block in 16 bits: 8 * 2 * 15 * 127 < 2^15 */
    UNROLL for (int j = 0; j < 4; j++) {
      const vi both = k ? d[5 + j] : j ? d[j] : (vi)_mm256_blend_epi16((__m256i)d[0], (__m256i)d[4], 0x55);
      const i32* four = (const i32*)x->bytes[b + k] + j;
      pairs = add_pairs(add_pairs(pairs, both & 0x0f0f0f0f, four[0]), (both >> 4) & 0x0f0f0f0f, four[4]);
    }
    total = fma_vf(vf_of_vi(add_sums(vi_of(x->starts[b + k]), pairs)), scale[k] * vf_of(x->scales[b + k]), total);
  }
  return total;
}

/* The half precision numbers `at` bytes from the pointers of eight rows. */
static inline __attribute__((always_inline)) vf scales_of_rows(const u8* const row[LANES], i64 at) {
  __m128i scale = _mm_setzero_si128();
#define SCALE(r) scale = _mm_insert_epi16(scale, *(const u16_at*)(row[r] + at), r)
  SCALE(0), SCALE(1), SCALE(2), SCALE(3), SCALE(4), SCALE(5), SCALE(6), SCALE(7);
#undef SCALE
  return (vf)_mm256_cvtph_ps(scale);
}

/* total += the block of eight rows of Q8_0 that is `at` bytes from their pointers times block b of a token */
static inline __attribute__((always_inline)) vf add_byte_block(const u8* row[LANES], i64 at, const TokenBlocks* x, i64 b, vf total) {
  const __m256i bytes = _mm256_load_si256((const void*)x->bytes[b]);
  __m256i sum[LANES];
  UNROLL for (int r = 0; r < LANES; r++) {
    const __m256i magnitudes = _mm256_abs_epi8(_mm256_loadu_si256((const void*)(row[r] + at + 2)));
    OPAQUE(row[r]); /* else weights are loaded once, and that is an instruction more */
    const __m256i signed_bytes = _mm256_sign_epi8(bytes, _mm256_loadu_si256((const void*)(row[r] + at + 2)));
    sum[r] = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, signed_bytes), _mm256_set1_epi16(1)); /* as in dot_8bit */
  }
#define FOUR_ROWS(r) _mm256_hadd_epi32(_mm256_hadd_epi32(sum[r], sum[r + 1]), _mm256_hadd_epi32(sum[r + 2], sum[r + 3]))
  const __m256i low = FOUR_ROWS(0), high = FOUR_ROWS(4);
#undef FOUR_ROWS
  const vi of_rows = (vi)_mm256_permute2x128_si256(low, high, 0x20) + (vi)_mm256_permute2x128_si256(low, high, 0x31);
  return fma_vf(vf_of_vi(of_rows), scales_of_rows(row, at) * vf_of(x->scales[b]), total);
}

/*
 * acc = all columns times one token, eight blocks or a multiple: the sums of bytes_of_tokens. As much is fetched meanwhile: sixteen lines
 * with each eight blocks of Q4_0 or four of Q8_0, and with 32 blocks eight more are due.
 */
static inline __attribute__((always_inline)) void stream_of_blocks(const i64 format, const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 blocks = m->columns / BLOCK, block_bytes = format == Q4_0 ? 18 : 34, step = format == Q4_0 ? 8 : 4;
  const i64 apart = m->ahead_rows * m->row_bytes;
  const u8* ahead = m->ahead ? m->ahead : rows.at;
  TokenBlocks of_x;
  FOR_VECTORS store_vf(acc + v, vf_of(0));
  for (i64 first = 0; first < blocks; first += TOKEN_BLOCKS) {
    const i64 count = min_i64(TOKEN_BLOCKS, blocks - first);
    load_token(format, x, first, count, &of_x);
    _Pragma("clang loop unroll(disable)") for (int v = 0; v < TILE; v += LANES) {
      const u8* row[LANES];
      UNROLL for (int r = 0; r < LANES; r++) row[r] = rows.at + (v + r) * rows.stride + first * block_bytes;
      vf total = load_vf(acc + v);
      for (i64 b = 0; b < count; b += step) {
        vi d[4 * 9];
        UNROLL for (int part = 0; part < 4; part++) {
          fetch_four_lines(ahead, apart, part % 2 * 4);
          if (part % 2) ahead += LINE;
          if (format == Q4_0) {
            UNROLL for (int k = (9 * part + 3) / 4 * 4; k < 9 * (part + 1); k += 4) transpose_16_bytes(0, 0, row, 4 * k, d + k);
            total = add_nibble_pair(d + 9 * part, &of_x, b + 2 * part, total);
          } else total = add_byte_block(row, part * block_bytes, &of_x, b + part, total);
        }
        UNROLL for (int r = 0; r < LANES; r++) {
          row[r] += step * block_bytes;
          OPAQUE(row[r]);
        }
      }
      fetch_lines(ahead, apart);
      ahead += LINE;
      store_vf(acc + v, total);
    }
  }
}
