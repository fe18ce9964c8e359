/* The right-hand side of a product, and what computes for one instruction set. */
#pragma once
#include "panel.h"

/*
 * The least and the greatest magnitude of numbers, zeros apart: what they can be multiplied with so that none loses bits. Those of
 * {0, 0} are not known.
 */
typedef struct {
  float least, most;
} Magnitudes;

static NEVER_INLINE Magnitudes magnitudes_of(const float* x, i64 count) {
  vu least = vu_of(0xffffffff), most = vu_of(0); /* as bits, which are in the order of the magnitudes; NaN is above all */
  i64 k = 0;
  for (; k + LANES <= count; k += LANES) {
    const vu bits = (vu)load_vi(x + k) & 0x7fffffff;
    most = __builtin_elementwise_max(most, bits);
    least = __builtin_elementwise_min(least, bits - 1); /* zero is above all */
  }
  const u32 above = __builtin_reduce_min(least);
  return k < count ? (Magnitudes){0, 0} : (Magnitudes){above < 0x7f800000 ? bits_to_f32(above + 1) : 1, bits_to_f32(__builtin_reduce_max(most))};
}

/*
 * What the panel of a worker holds of a stretch for FP8: the tokens from x on times the scales of this row of blocks; x = 0: nothing.
 * Eight tiles have the same scales, and of one token scaling takes a sixteenth of the product.
 */
typedef struct {
  const float* x;
  i64 block_row;
} Scaled;

/*
 * The right-hand side: float32 rows, or rows quantised to int8 blocks (bytes != 0). The latter lie as they are multiplied: row by row,
 * or TOGETHER rows next to each other, block by block, where there are several. Row i is index[i], or first_row + i.
 */
typedef struct {
  const float* floats; /* [row][stride] */
  const i8* bytes;     /* [row / together][block][row % together][BLOCK], -127..127 */
  const float* scales; /* [row / together][block][row % together] */
  const i32* sums;     /* [row / together][block][half][row % together], of the bytes */
  i64 stride;          /* columns of a row */
  i64 together;        /* 1 or TOGETHER */
  i64 first_row, first_column;
  const i32* index; /* or 0; only for rows that lie alone */
  const Magnitudes* ranges; /* of the rows from the first on, or 0: not known */
  Scaled* scaled;           /* [MOST_SCALED] stretches, or 0: nothing stays in the panel from tile to tile */
} Activations;

enum { MOST_SCALED = TILE }; /* as many stretches of a token as the panel's floats have room for */

static inline void forget_scaled(const Activations* x) {
  if (x->scaled)
    for (int i = 0; i < MOST_SCALED; i++) x->scaled[i].x = 0;
}

enum { TOGETHER = 16 };

static inline i64 activation_row(const Activations* x, i64 t) { return x->index ? x->index[t] : x->first_row + t; }
static inline const float* floats_of(const Activations* x, i64 t) { return x->floats + activation_row(x, t) * x->stride + x->first_column; }

/* The number of a row's block among all blocks. */
static inline i64 block_of(const Activations* x, i64 row, i64 column) {
  const i64 blocks = x->stride / BLOCK, b = (x->first_column + column) / BLOCK;
  return x->together == 1 ? row * blocks + b : row / TOGETHER * TOGETHER * blocks + b * TOGETHER + row % TOGETHER;
}
/* And where its two sums begin; the second follows `together` further on. */
static inline i64 sums_of(const Activations* x, i64 block) { return x->together == 1 ? 2 * block : 2 * block - block % TOGETHER; }

typedef struct Softmax Softmax;         /* softmax.h */
typedef struct TileScratch TileScratch; /* product.h */

/* What ops call where their time goes, of one instruction set. */
typedef struct {
  /* acc[t][r] = row r . activation t, for 16 rows */
  void (*product_of_rows)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel, const Body* body);
  /* The same for 16 rows of a paged cache. */
  void (*product_of_cache_rows)(const u8* const rows[TILE], i64 columns, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* panel);
  /* n queries . some keys, by whose softmax values are added up */
  void (*add_keys)(const Softmax* s, i64 n, const float* const* rows, i64 before, i64 count, i64 width, const Activations* queries,
                   TileScratch* scratch);
  /* Columns first .. first + count of 16 rows in float32, to panel->floats. */
  void (*unpack_floats)(const Matrix* m, Rows rows, i64 first, i64 count, Panel* panel);
  /* y[r] = row r . x, for four rows of a matrix that fits_four_rows */
  void (*product_of_four_rows)(const Matrix* m, i64 row, const float* x, float* y);
  Magnitudes (*magnitudes_of)(const float* x, i64 count);
  /* Columns of row `row` to int8 blocks. */
  void (*quantize_row)(const float* x, i64 columns, const Activations* into, i64 row, i64 column);
  /* y = silu(min(gate, limit)) * clamp(up, -limit, limit), of `count` numbers; limit 0: no bound */
  void (*gate)(const float* gate, const float* up, i64 count, float limit, float* y);
  /* next = sums of a token's residual streams, as in residual-streams.h */
  void (*mix_streams)(const float* streams, i64 n, i64 width, const float* added, const float* post, const float* mix, i64 count, float* next);
} Products;

/*
 * What computes for one instruction set. The products that some sets have better instructions for stand apart because those sets have
 * none for all else: such a body has the others of another one (see bodies.h).
 */
struct Body {
  const Products* products;
  /* acc[t] += columns first .. first + count of the panel times activation t, for tokens t0 .. tokens */
  void (*multiply_bytes)(i64 format, Panel* p, i64 first, i64 count, const Activations* x, i64 t0, i64 tokens, float (*acc)[TILE]);
  /* acc[0] = all columns times one activation; 0 where a panel is needed */
  int (*stream_blocks)(const Matrix* m, Rows rows, const Activations* x, float* acc);
  /* or 0: acc[t] += all columns times a few activations, at least two; 0 where a panel is needed. The panel is room for stored weights. */
  int (*stream_few)(const Matrix* m, Rows rows, const Activations* x, i64 tokens, float (*acc)[TILE], Panel* room);
  /* y[t][row .. end] = rows of a BF16 matrix . n float32 rows, in an order of its own; 0 where no instructions make it worth while */
  void (*multiply_parts)(const Matrix* m, i64 row, i64 end, const float* x, i64 n, float* y, i64 stride, Panel* panel, void* scratch);
  /* output[q] = attention of n queries without a mask, likewise; as in float-tiles.h */
  void (*attend_in_parts)(const float* queries, i64 n, const float* keys, const float* values, i64 count, i64 stride, i64 width, float* output,
                          i64 output_stride, void* scratch);
  i32 bias_8; /* what is added to an 8-bit weight in a panel */
};

#define JOIN(a, b) a##_##b
#define NAME_OF(name, body) JOIN(name, body)
/* The name of a function of this body that others call. */
#define OF_BODY(name) NAME_OF(name, BODY)

