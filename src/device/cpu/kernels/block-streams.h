/*
 * One token times int8 blocks, without a panel in between: weights go from where they are stored into the sums.
 */
#pragma once
#include "activations.h"
#include "dot.h"
#include "super-block-streams.h"

/* The same in a loop: where straight code for four short vectors would be too much. */
#define EACH_VECTOR _Pragma("clang loop unroll(disable)") for (int v = 0; v < TILE; v += LANES)

#if LANES == 8
#include "row-streams.h"
#else
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

/*
 * acc = all columns times one token: the sums of bytes_of_tokens, without a panel in between. Eight blocks are a whole number of 16
 * bytes; with vectors of four, which gain little, each pair is loaded alone, and those of all rows are multiplied before the next.
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
#if LANES == 4
  for (i64 pair = 0; pair < pairs; pair++)
    EACH_VECTOR {
      const i64 b = 2 * pair * together;
      vi d[MOST_PAIR_DWORDS];
      fetch_ahead(m, pair * TILE_VECTORS + v / LANES, LANES * pair_bytes);
      load_pair(format, rows.at + v * rows.stride, rows.stride, pair * pair_bytes, d);
      total[v / LANES] = add_two_blocks(format, d, bytes + BLOCK * b, scales + b, sums + 2 * b, together, total[v / LANES]);
    }
#else
  for (i64 pair = 0; pair < pairs; pair += GROUP_PAIRS) {
    vi d[GROUP_PAIRS * MOST_PAIR_DWORDS];
    UNROLL for (int p = 0; p < GROUP_PAIRS; p++) {
      fetch_portion(m, pair / GROUP_PAIRS, GROUP_PAIRS * LANES * pair_bytes, p, GROUP_PAIRS);
      UNROLL for (int k = (dwords * p + 3) / 4 * 4; k < dwords * (p + 1); k += 4)
        transpose_16_bytes(rows.at, rows.stride, 0, pair * pair_bytes + 4 * k, d + k);
      *total = add_two_blocks(format, d + dwords * p, bytes, scales, sums, together, *total);
      bytes += 2 * BLOCK * together, scales += 2 * together, sums += 4 * together;
      MOVING(bytes);
      MOVING(scales);
      MOVING(sums);
    }
  }
#endif
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#endif

/* Blocks that it works on together: there are to be no others. */
enum { STREAM_BLOCKS = LANES == 4 ? 2 : 2 * GROUP_PAIRS };

/* total + a block of FP4 codes times one token. */
static inline __attribute__((always_inline)) vf add_fp4_block(const vi q[4], vf scale, const i8* bytes, float x_scale, i32 x_sum, vf total) {
  return fma_vf(vf_of_vi(dot_fp4(vi_of(-zero_point(FP4, BIAS_8) * x_sum), q, bytes)), scale * vf_of(x_scale), total);
}

#if LANES >= 8
/* Vectors of four blocks of MXFP4, which are 68 bytes of a row: a block's codes are a 128-bit lane. */
enum { MXFP4_VECTORS = 4 / QUAD_LANES };

static inline __attribute__((always_inline)) vi mxfp4_codes_of_row(const u8* row) {
#define CODES(k) _mm_loadu_si128((const void*)(row + 17 * (k) + 1))
  const __m256i two = _mm256_inserti128_si256(_mm256_castsi128_si256(CODES(0)), CODES(1), 1);
#if LANES == 16
  return (vi)_mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi256_si512(two), CODES(2), 2), CODES(3), 3);
#else
  return (vi)two;
#endif
#undef CODES
}

/*
 * To scales, as dword r of each 128-bit lane, what stands at the beginning of the lane in row r: byte k of lane k is the scale of its block.
 * Row 0 comes first.
 */
static inline __attribute__((always_inline)) vi with_scales_of_row(vi scales, const u8* row, const int r) {
  if (r == 0) return load_vi(row);
#if LANES == 16
  return (vi)_mm512_mask_loadu_epi32((__m512i)scales, 0x1111 << r, row - 4 * r);
#else
  const vi is_of_row = (vi){0, 1, 2, 3, 0, 1, 2, 3} == r;
  return (load_vi(row - 4 * r) & is_of_row) | (scales & ~is_of_row);
#endif
}

/* The first and the last sixteen bytes of QUAD_LANES blocks that are `apart` bytes from each other, each a 128-bit lane. */
static inline __attribute__((always_inline)) void halves_of_x(const i8* bytes, i64 apart, vi* first, vi* last) {
#define BYTES(k) _mm256_loadu_si256((const void*)(bytes + (k) * apart))
#if LANES == 16
  const __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(BYTES(0)), BYTES(1), 1), b = _mm512_inserti64x4(_mm512_castsi256_si512(BYTES(2)), BYTES(3), 1);
  *first = (vi)_mm512_shuffle_i32x4(a, b, 0x88);
  *last = (vi)_mm512_shuffle_i32x4(a, b, 0xdd);
#else
  *first = (vi)_mm256_permute2x128_si256(BYTES(0), BYTES(1), 0x20);
  *last = (vi)_mm256_permute2x128_si256(BYTES(0), BYTES(1), 0x31);
#endif
#undef BYTES
}

/* Weights times x, for add_quads: low are those in low halves of bytes, the first sixteen of a block. */
static inline __attribute__((always_inline)) vi mxfp4_quads(vi start, vi low, vi high, vi x_low, vi x_high) {
#if LANES == 16
  return (vi)_mm512_dpbusd_epi32(_mm512_dpbusd_epi32((__m512i)start, (__m512i)low, (__m512i)x_low), (__m512i)high, (__m512i)x_high);
#else
  (void)start;
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)low, (__m256i)x_low), _mm256_maddubs_epi16((__m256i)high, (__m256i)x_high));
  return (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

/* The zero point times x, as add_quads subtracts it; with VNNI what quads start with. */
static inline __attribute__((always_inline)) vi mxfp4_zero(vi x_low, vi x_high) {
  const vi twelve = vi_of(0x0c0c0c0c), quads = mxfp4_quads(vi_of(0), twelve, twelve, x_low, x_high);
#if LANES == 16
  return -quads;
#else
  return (vi)_mm256_packs_epi32((__m256i)quads, (__m256i)quads);
#endif
}

/*
 * A vector holds blocks of one row, and what they add up to is turned so that a lane is a row. Rows lie apart: some bytes before those
 * behind the first are read.
 */
static inline __attribute__((always_inline)) void stream_of_mxfp4(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 together = x->together, apart = m->ahead_rows * m->row_bytes;
  i64 block = block_of(x, activation_row(x, 0), 0), owed = 0;
  const u8 *ahead = m->ahead ? m->ahead : rows.at, *at = rows.at;
  vf total[TILE_VECTORS];
  UNROLL for (int v = 0; v < TILE_VECTORS; v++) total[v] = vf_of(0);
  for (i64 four = 0; four < m->columns / BLOCK / 4; four++, at += 68) {
    vi low[MXFP4_VECTORS], high[MXFP4_VECTORS], zero[MXFP4_VECTORS];
    UNROLL for (int i = 0; i < MXFP4_VECTORS; i++) {
      const i8* bytes = x->bytes + BLOCK * (block + i * QUAD_LANES * together);
      halves_of_x(bytes, BLOCK * together, low + i, high + i);
      zero[i] = mxfp4_zero(low[i], high[i]);
    }
    vi sums[MXFP4_VECTORS][4], scales[MXFP4_VECTORS][4]; /* [rows 4g ...] 128-bit lane: block */
    const u8* row = at;
    i64 step = 4 * apart;
    _Pragma("clang loop unroll(disable)") for (int g = 0; g < 4; g++) {
      vi quads[MXFP4_VECTORS][4], scale[MXFP4_VECTORS] = {};
      fetch_four_lines(ahead, apart, 0);
      ahead += step, step = LINE - step;
      UNROLL for (int r = 0; r < 4; r++, row += rows.stride) {
        OPAQUE(row);
        UNROLL for (int i = 0; i < MXFP4_VECTORS; i++) {
          const u8* from = row + 17 * QUAD_LANES * i;
          const vi q = mxfp4_codes_of_row(from);
          scale[i] = with_scales_of_row(scale[i], from, r);
          quads[i][r] = mxfp4_quads(zero[i], lookup_16(fp4_table, q & 0x0f0f0f0f), lookup_16(fp4_table, (q >> 4) & 0x0f0f0f0f), low[i], high[i]);
        }
      }
      UNROLL for (int i = 0; i < MXFP4_VECTORS; i++) sums[i][g] = add_quads(quads[i], zero[i]), scales[i][g] = scale[i];
    }
    UNROLL for (int i = 0; i < MXFP4_VECTORS; i++) {
      vi sum[TILE_VECTORS][QUAD_LANES], scale[TILE_VECTORS][QUAD_LANES];
      rows_of_quads(sums[i], sum);
      rows_of_quads(scales[i], scale);
      UNROLL for (int k = 0; k < QUAD_LANES; k++, block += together)
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
          const vf of_weights = e8m0_half_to_vf(move_byte(scale[v][k], k, 0), 0);
          total[v] = fma_vf(vf_of_vi(sum[v][k]), of_weights * vf_of(x->scales[block]), total[v]);
        }
    }
    ahead = fetch_rest(ahead, apart, TILE * 68 / STREAMS % LINE, &owed);
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#else
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
        mxfp4_codes(d, k, q);
        total[v / LANES] = add_fp4_block(q, mxfp4_scale(d, k), x->bytes + BLOCK * b, x->scales[b], sums[0] + sums[together], total[v / LANES]);
      }
    }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#endif

#if LANES >= 8
enum { QUAD_BLOCKS = QUAD_LANES };

/* The even and the odd bytes of QUAD_BLOCKS blocks that are `apart` bytes from each other: sixteen in each 128-bit lane. */
static inline __attribute__((always_inline)) void even_and_odd(const i8* bytes, i64 apart, vi* even, vi* odd) {
#define BYTES(k) _mm256_loadu_si256((const void*)(bytes + (k) * apart))
#if LANES == 16
  const __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(BYTES(0)), BYTES(1), 1), b = _mm512_inserti64x4(_mm512_castsi256_si512(BYTES(2)), BYTES(3), 1);
  const __m512i low = _mm512_set1_epi16(0xff), order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  *even = (vi)_mm512_permutexvar_epi64(order, _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low)));
  *odd = (vi)_mm512_permutexvar_epi64(order, _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8)));
#else
  const __m256i a = BYTES(0), b = BYTES(1), low = _mm256_set1_epi16(0xff);
  *even = (vi)_mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)), 0xd8);
  *odd = (vi)_mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)), 0xd8);
#endif
#undef BYTES
}

/* 4-bit codes times bytes of x, in whatever dwords of the same 128-bit lane: even elements are in low halves, odd ones in high. */
static inline __attribute__((always_inline)) vi dot_fp4_rows(vi start, vi q, vi even, vi odd) {
  const vi low = lookup_16(fp4_table, q & 0x0f0f0f0f), high = lookup_16(fp4_table, (q >> 4) & 0x0f0f0f0f);
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32(_mm512_dpbusd_epi32((__m512i)start, (__m512i)low, (__m512i)even), (__m512i)high, (__m512i)odd);
#elif defined(__AVXVNNI__)
  return (vi)_mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32((__m256i)start, (__m256i)low, (__m256i)even), (__m256i)high, (__m256i)odd);
#else /* 2 * 2 * 24 * 127 < 2^15 */
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)low, (__m256i)even), _mm256_maddubs_epi16((__m256i)high, (__m256i)odd));
  return start + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

/*
 * FP4, whose scales lie apart: 16 bytes are a block, QUAD_BLOCKS of them a vector of one row, and what they add up to is turned so that a
 * lane is a row. Scales of sixteen blocks are 16 bytes of each row; behind the last sixteen, some come twice.
 */
static inline __attribute__((always_inline)) void stream_of_fp4(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  typedef u8 Codes __attribute__((vector_size(4 * LANES)));
  const i64 block = block_of(x, activation_row(x, 0), 0), together = x->together, blocks = m->columns / BLOCK;
  const i64 scale_stride = rows.stride ? m->scale_row_elements : 0;
  const u8* ahead = m->ahead ? m->ahead : rows.at;
  const i64 apart = m->ahead_rows * m->row_bytes;
  vf total[TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_VECTORS; i++) total[i] = vf_of(0);
  for (i64 sixteen = 0, b = 0; b < blocks; sixteen += 16) {
    sixteen = min_i64(sixteen, blocks - 16);
    u8 codes[4][TILE_VECTORS][4 * LANES] __attribute__((aligned(64))); /* four blocks, rows, a byte of each block */
    vi extreme = vi_of(0);
    FOR_VECTORS {
      const i64 row = rows.first_row + (rows.stride ? v : 0);
      vi t[4];
      transpose_16_bytes(m->scales + row * m->scale_row_elements, scale_stride, 0, sixteen, t);
      UNROLL for (int j = 0; j < 4; j++) {
        store_vi(codes[j][v / LANES], t[j]);
        extreme |= (vi)((Codes)t[j] - 2 > 252);
      }
    }
    const int is_usual = __builtin_reduce_or(extreme) == 0; /* scales that are normal numbers, as nearly all are */
    for (; b < sixteen + 16; b += QUAD_BLOCKS) {
      vi even, odd;
      even_and_odd(x->bytes + BLOCK * (block + b * together), BLOCK * together, &even, &odd);
      const vi start = -dot_fp4_rows(vi_of(0), vi_of(0), even, odd); /* code 0 is the zero point */
      vi four[4]; /* [rows 4g ...] lane: block */
      _Pragma("clang loop unroll(disable)") for (int g = 0; g < 4; g++) {
        vi sums[4];
        if (g * QUAD_BLOCKS % 4 == 0) fetch_four_lines(ahead, apart, b * TILE * 16 / LINE + g * QUAD_BLOCKS);
        UNROLL for (int r = 0; r < 4; r++) sums[r] = dot_fp4_rows(start, load_vi(rows.at + (4 * g + r) * rows.stride + 16 * b), even, odd);
        four[g] = add_quads(sums, vi_of(0));
      }
      vi of_block[TILE_VECTORS][QUAD_BLOCKS];
      rows_of_quads(four, of_block);
      UNROLL for (int k = 0; k < QUAD_BLOCKS; k++) {
        const i64 of_x = block + (b + k) * together, place = b + k - sixteen;
        FOR_VECTORS {
          const vi code = (vi)((vu)load_vi(codes[place / 4][v / LANES]) >> 8 * (place % 4)) & 0xff;
          vf scale = (vf)((code - 1) << 23);
          if (!is_usual) {
            __asm__ volatile(""); /* else the compiler computes both */
            scale = e8m0_half_to_vf(code, 1);
          }
          total[v / LANES] = fma_vf(vf_of_vi(of_block[v / LANES][k]), scale * vf_of(x->scales[of_x]), total[v / LANES]);
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
  if (m->format == Q8_0 && blocks % STREAM_BLOCKS == 0) stream_of_blocks(Q8_0, m, rows, x, acc);
  else if (m->format == Q4_0 && blocks % STREAM_BLOCKS == 0) stream_of_blocks(Q4_0, m, rows, x, acc);
  else if (m->format == MXFP4 && blocks % 4 == 0 && (LANES == 4 || rows.stride)) stream_of_mxfp4(m, rows, x, acc);
#if LANES >= 8
  else if (m->format == Q4_K) stream_of_q4_k(m, rows, x, acc);
  else if (m->format == Q6_K) stream_of_q6_k(m, rows, x, acc);
#endif
  else if (m->format == FP4 && blocks % (LANES >= 8 ? 4 : 16) == 0 && blocks >= 16 && !m->scale_is_f32) stream_of_fp4(m, rows, x, acc);
  else return 0;
  return 1;
}
