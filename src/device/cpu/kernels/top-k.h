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

enum { MOST_KEPT = 4096, FILTERED = 4 * LANES };

/* Candidates of a row in its order, in the scratch memory of a worker. */
typedef struct {
  float value[MOST_KEPT];
  i32 index[MOST_KEPT];
} Kept;

/* Leaves the k greatest (of equal ones the first); *least is the least of them. Returns how many are left. */
static i64 keep_greatest(Kept* kept, i64 count, i64 k, float* least) {
  i64 ties, left = 0;
  if (count <= k) return count;
  const u32 limit = select_rank(kept->value, count, k, &ties);
  for (i64 i = 0; i < count; i++) {
    const u32 rank = rank_of(kept->value[i]);
    if (rank < limit || (rank == limit && ties-- <= 0)) continue;
    kept->value[left] = kept->value[i];
    kept->index[left++] = kept->index[i];
  }
  *least = bits_to_f32(limit & 0x80000000u ? limit & 0x7fffffffu : ~limit);
  return left;
}

/* Whether one of FILTERED values is greater. */
static inline i32 any_greater(const float* values, float least) {
  vi greater = (vi)(load_vf(values) > vf_of(least));
  for (i64 i = LANES; i < FILTERED; i += LANES) greater |= (vi)(load_vf(values + i) > vf_of(least));
  return __builtin_reduce_or(greater) != 0;
}

/*
 * The indices of the k greatest, of which `kept` has room for many more; returns how many there are. A value that is not greater
 * than the k-th of those before it is passed over, many at a time: of a long row few are kept.
 */
static i64 greatest_of_row(const float* row, i64 n, i64 k, Kept* kept, i32* indices) {
  float least = -__builtin_inff();
  i64 count = 0;
  for (i64 first = 0; first < n; first += FILTERED) {
    const i64 end = min_i64(first + FILTERED, n);
    if (end == first + FILTERED && !any_greater(row + first, least)) continue;
    for (i64 i = first; i < end; i++) {
      if (!(row[i] > least)) continue;
      kept->value[count] = row[i];
      kept->index[count++] = (i32)i;
    }
    if (count > MOST_KEPT - FILTERED) count = keep_greatest(kept, count, k, &least);
  }
  count = keep_greatest(kept, count, k, &least);
  for (i64 i = 0; i < count; i++) indices[i] = kept->index[i];
  return count;
}

/* The same for any k, with a few passes over the whole row. */
static i64 greatest_of_whole_row(const float* row, i64 n, i64 k, i32* indices) {
  i64 candidates = 0, count = 0, ties = 0;
  for (i64 i = 0; i < n; i++) candidates += row[i] > -__builtin_inff();
  const u32 least = candidates > k ? select_rank(row, n, k, &ties) : 0;
  for (i64 i = 0; i < n && count < k; i++) {
    const u32 rank = rank_of(row[i]);
    if (rank > least || (least && rank == least && ties-- > 0)) indices[count++] = (i32)i;
  }
  return count;
}

/* 3 scores, 4 indices, 5 rows, 6 n, 7 k */
static void op_top_k(const Command* c, Worker* w) {
  const i64 n = whole(c, 6), k = whole(c, 7);
  for (i64 r; (r = next_unit(w, whole(c, 5))) >= 0;) {
    const float* row = (const float*)at(c, 3) + r * n;
    i32* indices = (i32*)at(c, 4) + r * k;
    i64 count = k <= MOST_KEPT / 2 ? greatest_of_row(row, n, k, (Kept*)w->scratch, indices) : greatest_of_whole_row(row, n, k, indices);
    for (; count < k; count++) indices[count] = -1;
  }
}
