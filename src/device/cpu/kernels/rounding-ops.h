/*
 * Values rounded to the codes of a block format and back (src/tensor/ops/round-blocks.ts): blocks of neighbouring channels share a
 * scale, a power of two or an E4M3 code. All in float32, so that every body gives the same codes.
 */
#pragma once
#include "command.h"

/* A code: mantissa bits, exponent of the least normal number, largest value; `size` channels share a scale. */
typedef struct {
  i64 size, mantissa_bits, least_exponent;
  float largest;
  i64 scale_is_e4m3;
} BlockCode;

static inline BlockCode block_code_at(const Command* c, int slot) {
  return (BlockCode){whole(c, slot), whole(c, slot + 1), whole(c, slot + 2), number(c, slot + 3), whole(c, slot + 4)};
}

/* To the nearest code, ties to the even one, saturating. */
static inline float round_to_code(float x, i64 mantissa_bits, i64 least_exponent, float largest) {
  const float bounded = x > largest ? largest : x < -largest ? -largest : x;
  const i64 own = (i64)(f32_to_bits(bounded) >> 23 & 255) - 127, exponent = max_i64(own, least_exponent);
  const float step = bits_to_f32((u32)(exponent - mantissa_bits + 127) << 23);
  /* the sum with 1.5 * 2^23 has no bits for a fraction */
  return (bounded / step + 12582912.0f - 12582912.0f) * step;
}

/* The least power of two that is not below a positive x. */
static inline float power_of_two_above(float x) { return bits_to_f32((f32_to_bits(x) + 0x7fffff) & 0xff800000u); }

static inline float block_scale(BlockCode code, float largest) {
  if (code.scale_is_e4m3) {
    const float least = 6 * 0x1p-9f;
    return round_to_code((largest > least ? largest : least) / 6, 3, -6, 448);
  }
  const float least = code.largest > 6 ? 1e-4f : 6 * 0x1p-126f;
  return power_of_two_above((largest > least ? largest : least) * (1.0f / code.largest));
}

static inline void round_row(const float* x, float* y, i64 width, BlockCode code) {
  for (i64 begin = 0; begin < width; begin += code.size) {
    const i64 end = min_i64(begin + code.size, width);
    float largest = 0;
    for (i64 i = begin; i < end; i++) {
      const float magnitude = x[i] < 0 ? -x[i] : x[i];
      largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = block_scale(code, largest);
    for (i64 i = begin; i < end; i++) y[i] = round_to_code(x[i] / scale, code.mantissa_bits, code.least_exponent, code.largest) * scale;
  }
}

/* 3 x, 4 y, 5 rows, 6 width, 7 code */
static void op_round_blocks(const Command* c, Worker* w) {
  const i64 width = whole(c, 6);
  const BlockCode code = block_code_at(c, 7);
  for (i64 row; (row = next_unit(w, whole(c, 5))) >= 0;)
    round_row((const float*)at(c, 3) + row * width, (float*)at(c, 4) + row * width, width, code);
}

/* The hidden values of experts take their weight in before they are rounded: 3 hidden,
 * 4 weight, 5 first, 6 experts, 7 place, 8 width, 9 code */
static void op_round_expert_rows(const Command* c, Worker* w) {
  float* weight = at(c, 4);
  const i32 *first = at(c, 5), *place = at(c, 7);
  const i64 experts = whole(c, 6), width = whole(c, 8);
  const BlockCode code = block_code_at(c, 9);
  for (i64 e; (e = next_unit(w, experts)) >= 0;) {
    for (i64 pair = first[e]; pair < first[e + 1]; pair++) {
      float* row = (float*)at(c, 3) + (place[e] + pair - first[e]) * width;
      for (i64 i = 0; i < width; i++) row[i] *= weight[pair];
      round_row(row, row, width, code);
      weight[pair] = 1;
    }
  }
}
