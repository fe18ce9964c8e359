/*
 * The int8 dot product of four pairs a lane, in what each instruction set has for it:
 *   sum[lane] + w[lane].0 * x.0 + w[lane].1 * x.1 + w[lane].2 * x.2 + w[lane].3 * x.3        exact in int32
 * x is one int8 quadruple for all lanes, in -127..127. Weights come in two kinds: 7 bits unsigned (all formats of up to 6 bits,
 * with their zero point left in), and 8 bits, which the body stores as it multiplies best: biased by 128 where the instruction
 * wants unsigned bytes (VNNI), signed elsewhere.
 */
#pragma once
#include "command.h"

/* What is added to an 8-bit weight before it is stored: 128 or nothing. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define BIAS_8 128
#else
#define BIAS_8 0
#endif

static inline vi dot_7bit(vi sum, vi w, i32 x) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
#elif defined(__AVXVNNI__)
  return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, _mm256_set1_epi32(x));
#elif defined(__AVX2__)
  /* pairs stay below 2 * 127 * 127 < 2^15 */
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)w, _mm256_set1_epi32(x));
  return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
  return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)w, vreinterpretq_s8_s32(vdupq_n_s32(x)));
#elif defined(__aarch64__)
  const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(x));
  const int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8(xs));
  const int16x8_t high = vmull_high_s8((int8x16_t)w, xs);
  return (vi)vaddq_s32((int32x4_t)sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#elif defined(__wasm_relaxed_simd__)
  return (vi)wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_i32x4_splat(x), (v128_t)w, (v128_t)sum);
#elif defined(__wasm_simd128__)
  const v128_t xs = wasm_i32x4_splat(x);
  const v128_t low = wasm_i16x8_extmul_low_i8x16((v128_t)w, xs), high = wasm_i16x8_extmul_high_i8x16((v128_t)w, xs);
  const v128_t a = wasm_i32x4_extadd_pairwise_i16x8(low), b = wasm_i32x4_extadd_pairwise_i16x8(high);
  return sum + (vi)wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
#elif defined(__SSE2__)
  /* bytes to 16 bits by shifting: even bytes and odd bytes of each pair apart, each a pair of products for madd */
  const __m128i wv = (__m128i)w, xv = _mm_set1_epi32(x);
  const __m128i even = _mm_madd_epi16(_mm_srai_epi16(_mm_slli_epi16(wv, 8), 8), _mm_srai_epi16(_mm_slli_epi16(xv, 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srai_epi16(wv, 8), _mm_srai_epi16(xv, 8));
  return sum + (vi)even + (vi)odd;
#else
#error "no int8 dot product for this instruction set"
#endif
}

/* Whether products of small weights leave so much room that they are best added up in 16 bits. */
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
#define SUMS_IN_16_BITS 1
#else
#define SUMS_IN_16_BITS 0
#endif

#if SUMS_IN_16_BITS
/* Dwords of 7-bit weights whose products are added up in 16 bits: 2 * 2 * 63 * 127 (Q6_K, in groups of 16) and 4 * 2 * 24 * 127 < 2^15. */
#define DWORDS_OF_PAIRS(group) ((group) == 16 ? 2 : 4)
static inline vi add_pairs(vi pairs, vi w, i32 x) {
  return (vi)_mm256_add_epi16((__m256i)pairs, _mm256_maddubs_epi16((__m256i)w, _mm256_set1_epi32(x)));
}
static inline vi add_sums(vi sum, vi pairs) { return sum + (vi)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi16(1)); }
#endif

/* Whether the product of 8-bit weights is another instruction than that of 7-bit ones. */
#if SUMS_IN_16_BITS || defined(__wasm_relaxed_simd__)
#define DOT_8BIT_DIFFERS 1
#else
#define DOT_8BIT_DIFFERS 0
#endif

/* Before a loop of dot products: where one takes a dozen instructions, the turns of a loop are cheap. */
#if defined(__AVX2__) || defined(__aarch64__) || defined(__wasm_relaxed_simd__)
#define UNROLL_DOTS UNROLL
#else
#define UNROLL_DOTS
#endif

static inline vi dot_8bit(vi sum, vi w, i32 x) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__aarch64__) || defined(__SSE2__) && !defined(__AVX2__)
  return dot_7bit(sum, w, x); /* unsigned bytes up to 255 fit dpbusd; the others multiply signed bytes anyway */
#elif defined(__AVX2__)
  /* |w| <= 128 times x with the sign of w: pairs stay within 2 * 128 * 127 < 2^15 */
  const __m256i wv = (__m256i)w, xv = _mm256_set1_epi32(x);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(wv, wv), _mm256_sign_epi8(xv, wv));
  return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__wasm_relaxed_simd__)
  /* the second factor must be 0..127: x is split into its positive and its negative part, whose products are subtracted */
  const v128_t xs = wasm_i32x4_splat(x), zero = wasm_i32x4_splat(0);
  const v128_t positive = wasm_i8x16_max(xs, zero), negative = wasm_i8x16_max(wasm_i8x16_neg(xs), zero);
  const v128_t minus = wasm_i32x4_relaxed_dot_i8x16_i7x16_add((v128_t)w, negative, zero);
  return (vi)wasm_i32x4_relaxed_dot_i8x16_i7x16_add((v128_t)w, positive, wasm_i32x4_sub((v128_t)sum, minus));
#else
  return dot_7bit(sum, w, x);
#endif
}

/*
 * sum + a block of 4-bit weights times the block's activations: byte k of q[j] has a weight in its low half, whose activation is byte k
 * of low[j], and one in its high half, whose is in high[j]. Where unsigned bytes are multiplied the high half stays where it is, as
 * sixteen times the weight.
 */
static inline __attribute__((always_inline)) vi dot_nibbles(vi sum, const vi q[4], const i32 low[4], const i32 high[4]) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
  vi sixteenfold = vi_of(0);
  UNROLL for (int j = 0; j < 4; j++) {
    sum = dot_7bit(sum, q[j] & 0x0f0f0f0f, low[j]);
    sixteenfold = dot_7bit(sixteenfold, q[j] & (i32)0xf0f0f0f0, high[j]);
  }
  return sum + (sixteenfold >> 4);
#else
  UNROLL for (int j = 0; j < 4; j++) {
    sum = dot_7bit(sum, q[j] & 0x0f0f0f0f, low[j]);
    sum = dot_7bit(sum, (q[j] >> 4) & 0x0f0f0f0f, high[j]);
  }
  return sum;
#endif
}

/* A table of 16 bytes looked up by the low 4 bits of every byte (whose high bits are 0). */
static inline vi lookup_16(const u8 table[16], vi index) {
#if defined(__AVX512BW__)
  return (vi)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void*)table)), (__m512i)index);
#elif defined(__AVX2__)
  return (vi)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void*)table)), (__m256i)index);
#elif defined(__aarch64__)
  return (vi)vqtbl1q_u8(vld1q_u8(table), (uint8x16_t)index);
#elif defined(__wasm_simd128__)
  return (vi)wasm_i8x16_swizzle(wasm_v128_load(table), (v128_t)index);
#else
  u8 bytes[4 * LANES];
  store_vi(bytes, index);
  for (int i = 0; i < 4 * LANES; i++) bytes[i] = table[bytes[i]];
  return load_vi(bytes);
#endif
}

#if LANES >= 8
/*
 * Quads, the sums of four products or of several fours, are added up in each 128-bit lane of four vectors: dword r of a lane is the sum of
 * vector r's lane. Quads fit 16 bits, and so do sums of two. Without VNNI `less` is subtracted of them, 16 bits for each and twice the same;
 * with it they start with less.
 */
static inline __attribute__((always_inline)) vi add_quads(const vi a[4], vi less) {
#if LANES == 16
  (void)less;
#define PACK(x, y) _mm512_packs_epi32(x, y)
#define ADD_PAIRS(x) _mm512_madd_epi16(x, _mm512_set1_epi16(1))
#define A(i) (__m512i) a[i]
  return (vi)ADD_PAIRS(PACK(ADD_PAIRS(PACK(A(0), A(1))), ADD_PAIRS(PACK(A(2), A(3)))));
#else
#define PACK(x, y) _mm256_packs_epi32(x, y)
#define ADD_PAIRS(x) _mm256_madd_epi16(x, _mm256_set1_epi16(1))
#define A(i) (__m256i) a[i]
#define REST(x) _mm256_sub_epi16(x, (__m256i)less)
  return (vi)ADD_PAIRS(PACK(ADD_PAIRS(REST(PACK(A(0), A(1)))), ADD_PAIRS(REST(PACK(A(2), A(3))))));
#undef REST
#endif
#undef PACK
#undef ADD_PAIRS
#undef A
}

/* Byte k of each dword, as byte `place` of a dword that is zero else. */
static inline __attribute__((always_inline)) vi move_byte(vi dwords, const int k, const int place) {
  typedef u8 Bytes __attribute__((vector_size(4 * LANES)));
  Bytes index;
  UNROLL for (int i = 0; i < 4 * LANES; i++) index[i] = i % 4 == place ? i % 16 / 4 * 4 + k : 0x80;
#if LANES == 16
  return (vi)_mm512_shuffle_epi8((__m512i)dwords, (__m512i)index);
#else
  return (vi)_mm256_shuffle_epi8((__m256i)dwords, (__m256i)index);
#endif
}
#endif

/* Twice e2m1 plus 12: the codes of FP4 as unsigned bytes. */
static const u8 fp4_table[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/* The same for a block of FP4 codes: AVX2 adds up half a block in 16 bits (4 * 2 * 24 * 127 < 2^15). */
static inline vi dot_fp4(vi sum, const vi q[4], const i8* x) {
  UNROLL for (int half = 0; half < 2; half++) {
#if SUMS_IN_16_BITS
    vi pairs = vi_of(0);
#endif
    UNROLL for (int j = 0; j < 4; j++) {
      const vi w = lookup_16(fp4_table, (half ? q[j] >> 4 : q[j]) & 0x0f0f0f0f);
      const i32 four = *(const i32*)(x + 16 * half + 4 * j);
#if SUMS_IN_16_BITS
      pairs = add_pairs(pairs, w, four);
    }
    sum = add_sums(sum, pairs);
#else
      sum = dot_7bit(sum, w, four);
    }
#endif
  }
  return sum;
}
