/* The choice of the k greatest. */
#pragma once
#include "command.h"

/* Numbers in the order of their values; NaN and -Infinity are 0, below all others. */
static inline u32 rank_of(float value) {
  if (!(value > -__builtin_inff())) return 0;
  const u32 bits = f32_to_bits(value == 0 ? 0.0f : value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/*
 * The least rank among the k greatest, digit by digit (radix selection); *ties = how many of those with just that rank belong to
 * them. k is at most the number of ranks above 0.
 */
static u32 select_rank(const float* row, i64 n, i64 k, i64* ties) {
  u32 prefix = 0, mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    u32 counts[256] = {0};
    for (i64 i = 0; i < n; i++) {
      const u32 rank = rank_of(row[i]);
      if ((rank & mask) == prefix && rank) counts[rank >> shift & 255]++;
    }
    u32 digit = 255;
    for (; counts[digit] < k; digit--) k -= counts[digit];
    prefix |= digit << shift;
    mask |= 255u << shift;
  }
  *ties = k;
  return prefix;
}

/* 3 scores, 4 indices, 5 rows, 6 n, 7 k */
void op_top_k(const Command* c, Worker* w) {
  const i64 n = whole(c, 6), k = whole(c, 7);
  for (i64 r; (r = next_unit(w, whole(c, 5))) >= 0;) {
    const float* row = (const float*)at(c, 3) + r * n;
    i32* indices = (i32*)at(c, 4) + r * k;
    i64 candidates = 0, count = 0, ties = 0;
    for (i64 i = 0; i < n; i++) candidates += row[i] > -__builtin_inff();
    const u32 least = candidates > k ? select_rank(row, n, k, &ties) : 0;
    for (i64 i = 0; i < n && count < k; i++) {
      const u32 rank = rank_of(row[i]);
      if (rank > least || (least && rank == least && ties-- > 0)) indices[count++] = (i32)i;
    }
    for (; count < k; count++) indices[count] = -1;
  }
}
