/* Half precision, E4M3 and E8M0 to float32, bit by bit as src/quant/number-codes.ts has them. */
#pragma once
#include "base.h"

/*
 * Half precision in the low 16 bits of each lane to float32; denormals, infinities and NaN as IEEE has them. Without an instruction
 * for it: a normal number's exponent is moved; a denormal's mantissa is set into 2^-14 and 2^-14 taken away again, for a float32
 * denormal in between would cost a hundred cycles.
 */
static inline vf f16_to_vf(vi half) {
#if LANES == 16
  return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)half));
#elif LANES == 8
  const __m256i packed = _mm256_packus_epi32((__m256i)(half & 0xffff), _mm256_setzero_si256());
  return (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8)));
#else
  const vi bits = (half & 0x7fff) << 13;
  const vf normal = (vf)(bits + (112 << 23)), denormal = (vf)(bits + (113 << 23)) - vf_of(bits_to_f32(113 << 23));
  const vi is_denormal = bits < (1 << 23), special = (bits >= 0x0f800000) & 0x7f800000;
  return (vf)(((vi)normal & ~is_denormal) | ((vi)denormal & is_denormal) | special | ((half & 0x8000) << 16));
#endif
}

/* Two of them at once: in the low and in the high 16 bits of each lane. */
static inline void two_f16_to_vf(vi low, vi high, vf out[2]) {
#if LANES == 16
  static const u16 apart[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i both = _mm512_permutexvar_epi16(_mm512_loadu_si512(apart), (__m512i)((low & 0xffff) | (high & (i32)0xffff0000)));
  out[0] = (vf)_mm512_cvtph_ps(_mm512_castsi512_si256(both));
  out[1] = (vf)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(both, 1));
#elif LANES == 8
  const __m256i apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i both = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(_mm256_blend_epi16((__m256i)low, (__m256i)high, 0xaa), apart), 0xd8);
  out[0] = (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(both));
  out[1] = (vf)_mm256_cvtph_ps(_mm256_extracti128_si256(both, 1));
#else
  out[0] = f16_to_vf(low);
  out[1] = f16_to_vf((vi)((vu)high >> 16));
#endif
}

/* E4M3 in the low 8 bits of each lane, in the same way; 0x7f is NaN, there is no infinity. */
static inline vf e4m3_to_vf(vi code) {
  const vi magnitude = code & 0x7f, bits = magnitude << 20;
  const vf normal = (vf)(bits + (120 << 23)), denormal = (vf)(bits + (121 << 23)) - vf_of(bits_to_f32(121 << 23));
  const vi is_denormal = bits < (1 << 23), nan = (magnitude == 0x7f) & 0x7fc00000;
  return (vf)(((vi)normal & ~is_denormal) | ((vi)denormal & is_denormal) | nan | ((code & 0x80) << 24));
}

/* 2^(code - 127); 0 is the denormal 2^-127, 255 NaN. */
static inline float e8m0_to_f32(u32 code) {
  return bits_to_f32(code == 255 ? 0x7fc00000 : code == 0 ? 0x00400000 : code << 23);
}
/* 2^(code - 128), the scale of weights stored as twice their value (MXFP4 in GGUF; 255 is no NaN there). */
static inline float e8m0_half_to_f32(u32 code) {
  return bits_to_f32(code < 2 ? 0x00200000u << code : (code - 1) << 23);
}
/* The same for each lane; a code of 255 is NaN where files say so (FP4), and no NaN in GGUF. */
static inline vf e8m0_half_to_vf(vi code, const int has_nan) {
  const vi bits = __builtin_elementwise_max((code - 1) << 23, (code + 1) << 21); /* the second is the greater for the denormals 0 and 1 */
  return (vf)(has_nan ? bits | ((code == 255) & 0x7fc00000) : bits);
}
