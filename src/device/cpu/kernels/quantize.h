/* Activations in float32 to int8 blocks. */
#pragma once
#include "activations.h"

/* Columns of row `row` to int8 blocks: scale = greatest magnitude / 127, rounding to nearest (ties to even). */
static void quantize_row(const float* x, i64 columns, const Activations* into, i64 row, i64 column) {
  typedef i8 Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
  for (i64 b = 0; b < columns / BLOCK; b++) {
    const i64 block = block_of(into, row, column + b * BLOCK), sums = sums_of(into, block);
    vi greatest = vi_of(0); /* as bits, which are in the order of the magnitudes; NaN is above all */
    for (int c = 0; c < BLOCK; c += LANES) greatest = __builtin_elementwise_max(greatest, load_vi(x + BLOCK * b + c) & 0x7fffffff);
    const float most = bits_to_f32((u32)__builtin_reduce_max(greatest));
    /* below 2^-120 the inverse would overflow: such a block counts as zero. NaN is the scale of a block that holds one, and all products' */
    const float scale = most <= 0x1p-120f ? 0.0f : most / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    UNROLL for (int half = 0; half < 2; half++) {
      vi sum = vi_of(0);
      UNROLL for (int c = 16 * half; c < 16 * half + 16; c += LANES) {
        /* 1.5 * 2^23 rounds; |x / scale| <= 127.00001 rounds to 127 at most */
        const vf rounded = load_vf(x + BLOCK * b + c) * vf_of(inverse) + vf_of(12582912.0f);
        const vi value = (vi)rounded - (i32)f32_to_bits(12582912.0f);
        *(Bytes*)(into->bytes + BLOCK * block + c) = __builtin_convertvector(value, Bytes);
        sum += value;
      }
      ((i32*)into->sums)[sums + half * into->together] = __builtin_reduce_add(sum);
    }
    ((float*)into->scales)[block] = scale;
  }
}
