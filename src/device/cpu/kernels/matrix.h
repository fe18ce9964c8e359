/* Matrices as files store them, and bringing what is multiplied later into the cache meanwhile. */
#pragma once
#include "base.h"

/* The order is that of src/device/cpu/matrix-formats.ts. */
enum Format { F32, F16, BF16, FP8, Q8_0, Q4_0, Q4_K, Q6_K, MXFP4, FP4 };

/* Sixteen rows, `stride` bytes apart; `first_row` is the number of the first in its matrix (scales that lie apart need it). */
typedef struct {
  const u8* at;
  i64 stride, first_row;
} Rows;

/* A matrix in memory, rows * columns. FP8 and FP4 have their scales apart, E8M0 bytes or float32. */
typedef struct {
  i64 format, columns;
  const u8* data;
  i64 row_bytes;
  const u8* scales;
  i64 scale_row_elements, scale_is_f32, block_rows, block_columns;
  i32 bias_8; /* what is added to 8-bit weights in a panel: 128 or nothing, see dot.h */
  /* what will be wanted later, or 0: TILE * row_bytes bytes of it are fetched meanwhile, in streams that are so many rows apart */
  const u8* ahead;
  i64 ahead_rows;
} Matrix;

enum { STREAMS = 8, LINE = 64 };

/* On x64 into the second cache: what is multiplied meanwhile takes the first, which is as fast to fill from there. */
#if defined(__x86_64__)
#define FETCH(at) __builtin_prefetch(at, 0, 2)
#else
#define FETCH(at) __builtin_prefetch(at, 0, 3)
#endif

/*
 * While portion `portion` of piece `index` of a tile is worked on, as many bytes of what comes later are brought into the cache, in
 * eight streams. Left to the processor, sixteen rows are sixteen streams, of which its prefetcher follows few; fetched in one stream,
 * it waits for the latency of memory. Streams longer than a page are what it follows well (see tile_ahead): two Sapphire Rapids cores
 * that read 25 GB/s read Q8_0 weights at 25 so, at 21 in four streams of a tile. A large piece is fetched in portions: more than some
 * ten lines at once would make the processor wait.
 */
static inline __attribute__((always_inline)) void fetch_portion(const Matrix* m, i64 index, const i64 bytes, const int portion, const int portions) {
  if (!m->ahead) return;
  const i64 part = bytes / STREAMS, lines = (part + LINE - 1) / LINE * STREAMS;
  UNROLL for (i64 i = lines * portion / portions; i < lines * (portion + 1) / portions; i++)
    FETCH(m->ahead + i % STREAMS * m->ahead_rows * m->row_bytes + index * part + i / STREAMS * LINE);
}

/* The same line by line, for what multiplies whole lines: four of the tile's, whose streams are so many bytes apart, from a fourth on. */
static inline __attribute__((always_inline)) void fetch_four_lines(const u8* ahead, i64 apart, i64 line) {
  ahead += (line & 4) * apart + line / STREAMS * LINE;
#if LANES >= 8 /* else addresses are computed beforehand, and spill */
  OPAQUE(ahead);
  OPAQUE(apart);
#endif
  UNROLL for (int i = 0; i < 4; i++) FETCH(ahead + i * apart);
}

/* A line of each stream. */
static inline __attribute__((always_inline)) void fetch_lines(const u8* ahead, i64 apart) {
  fetch_four_lines(ahead, apart, 0);
  fetch_four_lines(ahead + 4 * apart, apart, 0);
}

/*
 * After whole lines of a piece of each stream, of which `rest` bytes are left over: these are fetched with those of later pieces, when they
 * have become a line. Returns where the next piece begins.
 */
static inline __attribute__((always_inline)) const u8* fetch_rest(const u8* ahead, i64 apart, i64 rest, i64* owed) {
  *owed += rest;
  if (*owed < LINE) return ahead;
  fetch_lines(ahead, apart);
  *owed -= LINE;
  return ahead + LINE;
}

/* The same for pieces that are fetched at once; of small ones every second or fourth fetches for all, a whole line of each stream. */
static inline __attribute__((always_inline)) void fetch_ahead(const Matrix* m, i64 index, const i64 bytes) {
  const i64 together = STREAMS * LINE % bytes ? 1 : STREAMS * LINE / bytes;
  if (index % together == 0) fetch_portion(m, index / together, bytes * together, 0, 1);
}
