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
