/*
 * linear, groupedLinear, gatherRows of a stored matrix, and the routed experts.
 *
 * slots of a matrix, from its first: format, rows, columns, data, row_bytes, scales, scale_row_elements, scale_is_f32, block_rows,
 * block_columns; of the matrices of experts also: table of [experts][2] addresses (data, scales).
 * slots of activations, from their first: floats, bytes, scales, sums, stride, together.
 */
#pragma once
#include "command.h"
#include "elementary.h"
#include "product.h"

enum { MATRIX_SLOTS = 10, MOST_RANGES = 8 /* tokens of FP8 that any body streams */ };

static inline Matrix matrix_at(const Command* c, int slot) {
  return (Matrix){whole(c, slot), whole(c, slot + 2), at(c, slot + 3), whole(c, slot + 4), at(c, slot + 5),
                  whole(c, slot + 6), whole(c, slot + 7), whole(c, slot + 8), whole(c, slot + 9), 0, 0, TILE / STREAMS};
}

static inline Matrix expert_matrix(const Command* c, int slot, i64 expert) {
  Matrix m = matrix_at(c, slot);
  const double* table = at(c, slot + MATRIX_SLOTS);
  m.data = (const u8*)(uptr)table[2 * expert];
  m.scales = (const u8*)(uptr)table[2 * expert + 1];
  return m;
}

static inline Activations activations_at(const Command* c, int slot) {
  return (Activations){at(c, slot), at(c, slot + 1), at(c, slot + 2), at(c, slot + 3), whole(c, slot + 4), whole(c, slot + 5), 0, 0, 0, 0, 0};
}

/* 3 activations, 9 tokens */
static void op_quantize(const Command* c, Worker* w) {
  const Activations x = activations_at(c, 3);
  for (i64 t; (t = next_unit(w, whole(c, 9))) >= 0;) w->body->products->quantize_row(x.floats + t * x.stride, x.stride, &x, t, 0);
}

/* Rows lane ... of tokens' sums to y, whose rows are `stride` apart. */
static NEVER_INLINE void store_tile(float (*acc)[TILE], i64 tokens, i64 lane, i64 width, float* y, i64 stride) {
  if (width == TILE)
    for (i64 t = 0; t < tokens; t++) FOR_VECTORS store_vf(y + t * stride + v, load_vf(&acc[t][v]));
  else
    for (i64 t = 0; t < tokens; t++)
      for (i64 r = 0; r < width; r++) y[t * stride + r] = acc[t][lane + r];
}

enum { LONG_STREAMS = STREAMS * 8192, MOST_TILES_AHEAD = 8 };

/*
 * What to fetch while the tile at `row` is multiplied, of the rows begin .. end that a worker takes one after another: its next rows,
 * and `then` with the last (0: nothing). Streams shall be longer than a page, which those of one tile rarely are: so many tiles make
 * a group that they are, and with each tile of a group a part of each stream of the next group is fetched.
 */
static inline const u8* tile_ahead(Matrix* m, i64 row, i64 begin, i64 end, const u8* then) {
  const i64 tiles = (end - begin + TILE - 1) / TILE, most = min_i64(MOST_TILES_AHEAD, (LONG_STREAMS - 1) / (TILE * m->row_bytes) + 1);
  const i64 groups = (tiles + most - 1) / most, group = (tiles + groups - 1) / groups;
  const i64 part = (row - begin) / TILE % group, first = row - part * TILE, next = first + group * TILE;
  m->ahead_rows = min_i64(group, (end - first + TILE - 1) / TILE) * TILE / STREAMS;
  const u8* from = next < end ? m->data + next * m->row_bytes : then;
  return from ? from + part * TILE / STREAMS * m->row_bytes : 0;
}

/* Rows of x that are split into parts together, as in src/device/cpu/scratch.ts; rows of weights, of which each unit splits x anew. */
enum { PART_TOKENS = 256, MOST_PART_ROWS = 2048, FEWEST_PART_ROWS = 32 };

/* The first `rows` rows of weights are multiplied in parts, in `count` units of `each` rows. */
typedef struct {
  i64 rows, each, chunks, count;
} PartsUnits;

static inline PartsUnits units_in_parts(const Matrix* m, i64 rows, i64 tokens, const Worker* w) {
  PartsUnits u = {};
  if (!w->body->multiply_parts || m->format != BF16 || tokens < TILE) return u;
  const i64 groups = (tokens + PART_TOKENS - 1) / PART_TOKENS;
  u.rows = rows / FEWEST_PART_ROWS * FEWEST_PART_ROWS;
  for (u.each = MOST_PART_ROWS;; u.each /= 2) {
    u.chunks = (u.rows + u.each - 1) / u.each;
    u.count = u.chunks * groups;
    if (u.each == FEWEST_PART_ROWS || u.count >= 4 * (i64)w->count) break; /* work for all */
  }
  return u;
}

static inline void multiply_unit(const Matrix* m, const Activations* x, i64 tokens, const PartsUnits* u, i64 unit, float* y, i64 stride,
                                 const Worker* w) {
  const i64 t0 = unit / u->chunks * PART_TOKENS, row = unit % u->chunks * u->each;
  TileScratch* scratch = (TileScratch*)w->scratch;
  w->body->multiply_parts(m, row, min_i64(u->rows, row + u->each), x->floats + t0 * x->stride, min_i64(PART_TOKENS, tokens - t0),
                          y + t0 * stride, stride, &scratch->panel, scratch->acc);
}

/* Where the rows begin that this worker takes of the product that is `on` commands behind this one; 0 where `on` is: there is none. */
static NEVER_INLINE const u8* share_of_later(const Command* c, i64 on, const Worker* w) {
  return on ? (const u8*)at(c + on, 6) + whole(c + on, 4) * w->index / w->count / 4 * 4 * whole(c + on, 7) : 0;
}

/*
 * 3 matrix, 13 activations, 19 tokens, 20 y, 21 stride of y, 22 groups, 23 tokens of a unit, 24 whether sums may have any order,
 * 25 commands to the next such product or 0
 */
static void op_linear(const Command* c, Worker* w) {
  Matrix m = matrix_at(c, 3);
  Activations x = activations_at(c, 13);
  const i64 rows = whole(c, 4), tokens = whole(c, 19), stride = whole(c, 21), groups = whole(c, 22), part = whole(c, 23);
  float* y = at(c, 20);
  TileScratch* scratch = (TileScratch*)w->scratch;
  const PartsUnits parts_units = whole(c, 24) ? units_in_parts(&m, rows, tokens, w) : (PartsUnits){};
  const i64 group_rows = rows / groups, tiles = (group_rows - parts_units.rows + TILE - 1) / TILE, parts = (tokens + part - 1) / part;
  if (tokens == 1 && groups * tiles <= 2 * (i64)w->count && group_rows % 4 == 0 && fits_four_rows(&m)) {
    for (i64 unit; (unit = next_unit(w, rows / 4)) >= 0;)
      w->body->products->product_of_four_rows(&m, 4 * unit, x.floats + 4 * unit / group_rows * m.columns, y + 4 * unit);
    return;
  }
  Magnitudes ranges[MOST_RANGES];
  Scaled scaled[MOST_SCALED];
  if (tokens <= MOST_RANGES && m.format == FP8) {
    for (i64 t = 0; t < tokens; t++) ranges[t] = w->body->products->magnitudes_of(x.floats + t * x.stride, x.stride);
    x.ranges = ranges;
    x.scaled = parts == 1 ? scaled : 0; /* all tiles have the same tokens */
    forget_scaled(&x);
  }
#define ROW_OF(tile) ((tile) / tiles * group_rows + parts_units.rows + (tile) % tiles * TILE)
  const u8* then = share_of_later(c, whole(c, 25), w);
  for (i64 i; (i = next_unit(w, parts_units.count + groups * tiles * parts)) >= 0;) {
    if (i < parts_units.count) {
      multiply_unit(&m, &x, tokens, &parts_units, i, y, stride, w);
      continue;
    }
    const i64 unit = i - parts_units.count, begin = max_i64(0, w->begin - parts_units.count), behind = w->end - parts_units.count;
    const i64 tile = unit / parts, group = tile / tiles, row = ROW_OF(tile), end = (group + 1) * group_rows;
    const i64 t0 = unit % parts * part, count = min_i64(part, tokens - t0);
    x.first_row = t0;
    x.first_column = group * m.columns;
    const u8* ahead = 0;
    if (t0 + count == tokens) ahead = tile_ahead(&m, row, ROW_OF(begin / parts), ROW_OF((behind + parts - 1) / parts), then);
    const i64 lane = product_of_tile(&m, row, end, ahead, &x, count, scratch->acc, w);
    store_tile(scratch->acc, count, lane, min_i64(TILE, end - row), y + t0 * stride + row, stride);
  }
#undef ROW_OF
}

/*
 * Tiles of the down matrices that are multiplied one after another before those of the next expert: few are short streams, and many
 * tokens need much room for their sums. MOST_DOWN_TILES is mostDownTiles in src/device/cpu/scratch.ts.
 */
enum { MOST_DOWN_TILES = 4, FEW_TOKENS = 8 };
static inline i64 tiles_of_down(const Command* c, const Worker* w) {
  const i64 tiles = (whole(c, 4) + TILE - 1) / TILE, most = min_i64(MOST_DOWN_TILES, LONG_STREAMS / 2 / (TILE * whole(c, 7)) + 1);
  return whole(c, 25) > FEW_TOKENS ? 1 : max_i64(1, min_i64(most, tiles / (4 * (i64)w->count)));
}

/* Where this worker's share of the down matrix of an expert begins. */
static inline const u8* share_of_experts(const Command* c, i64 expert, const Worker* w) {
  const i64 together = tiles_of_down(c, w), tiles = (whole(c, 4) + TILE - 1) / TILE, units = (tiles + together - 1) / together;
  return expert_matrix(c, 3, expert).data + units * w->index / w->count * together * TILE * whole(c, 7);
}

/*
 * hidden[pair] = gated(gate x, up x), quantised on the way where the down matrix is multiplied in int8. A unit is 32 rows of both
 * matrices of one expert, that is one block of the hidden vector. x is gathered for the experts where its rows lie together.
 * 3 gate, 14 up, 25 activations, 31 active experts, 32 first, 33 token, 34 place, 35 limit, 36 hidden activations,
 * 42 commands to the down matrices
 */
static void op_experts_gate_up(const Command* c, Worker* w) {
  Activations x = activations_at(c, 25);
  const Activations hidden = activations_at(c, 36);
  const i64 rows = whole(c, 4), blocks = (rows + BLOCK - 1) / BLOCK;
  const i32 *active = at(c, 31), *first = at(c, 32), *token = at(c, 33), *place = at(c, 34);
  const float limit = number(c, 35);
  TileScratch* scratch = (TileScratch*)w->scratch;
  for (i64 unit; (unit = next_unit(w, active[0] * blocks)) >= 0;) {
    const i64 e = active[1 + unit / blocks], block = unit % blocks, pairs = first[e + 1] - first[e];
    Matrix gate = expert_matrix(c, 3, e), up = expert_matrix(c, 14, e);
    const i64 next_e = active[1 + (unit + 1) / blocks], next_row = (unit + 1) % blocks * BLOCK;
    gate.ahead_rows = up.ahead_rows = BLOCK / STREAMS;
    if (x.bytes && x.together > 1) x.first_row = place[e];
    else x.index = token + first[e];
    float(*gates)[TILE] = scratch->acc, (*ups)[TILE] = gates + pairs, (*values)[BLOCK] = (float(*)[BLOCK])(ups + pairs);
    for (i64 half = 0; half < 2 && block * BLOCK + half * TILE < rows; half++) {
      const i64 row = block * BLOCK + half * TILE;
      /* first the gate rows of the next unit are fetched, then its up rows: half of each stream with each tile */
      const u8* ahead = 0;
      if (unit + 1 < w->end) ahead = expert_matrix(c, half ? 14 : 3, next_e).data + next_row * gate.row_bytes;
      else if (half < active[0]) ahead = share_of_experts(c + whole(c, 42), active[1 + half], w);
      const i64 lane = product_of_tile(&gate, row, rows, ahead, &x, pairs, gates, w);
      product_of_tile(&up, row, rows, ahead ? ahead + TILE / STREAMS * up.row_bytes : 0, &x, pairs, ups, w);
      w->body->products->gate(gates[0], ups[0], pairs * TILE, limit, gates[0]);
      store_tile(gates, pairs, lane, TILE - lane, values[0] + half * TILE, BLOCK);
    }
    for (i64 p = 0; p < pairs; p++) {
      if (hidden.bytes) w->body->products->quantize_row(values[p], BLOCK, &hidden, place[e] + p, block * BLOCK);
      else
        for (i64 r = 0; r < min_i64(BLOCK, rows - block * BLOCK); r++) ((float*)hidden.floats)[(place[e] + p) * rows + block * BLOCK + r] = values[p][r];
    }
  }
}

/*
 * y[token] = sum over its experts, in the order of their numbers, of weight * down hidden. A unit is some tiles of the down matrices
 * of all experts, so that no two workers add to the same sum, one expert after another.
 * 3 down, 14 activations (hidden), 20 active experts, 21 first, 22 token, 23 place, 24 weight, 25 tokens, 26 y,
 * 27 commands to the next product or 0
 */
static void op_experts_down(const Command* c, Worker* w) {
  Activations x = activations_at(c, 14);
  const i64 rows = whole(c, 4), tokens = whole(c, 25), tiles = (rows + TILE - 1) / TILE, together = tiles_of_down(c, w);
  const i32 *active = at(c, 20), *first = at(c, 21), *token = at(c, 22), *place = at(c, 23);
  const float* weight = at(c, 24);
  float* y = at(c, 26);
  TileScratch* scratch = (TileScratch*)w->scratch;
  const u8* then = share_of_later(c, whole(c, 27), w);
  for (i64 unit; (unit = next_unit(w, (tiles + together - 1) / together)) >= 0;) {
    const i64 n = min_i64(together, tiles - unit * together), begin = unit * together * TILE;
    float(*total)[TILE] = scratch->acc, (*acc)[TILE] = total + n * tokens;
    i64 lane = 0; /* of the last tile of the matrix; it is 0 in all others */
    clear(total, n * tokens);
    for (i64 a = 1; a <= active[0]; a++) {
      const i64 e = active[a], pairs = first[e + 1] - first[e];
      Matrix down = expert_matrix(c, 3, e);
      down.ahead_rows = n * TILE / STREAMS;
      const u8* ahead = then;
      if (a < active[0]) ahead = expert_matrix(c, 3, active[a + 1]).data + begin * down.row_bytes;
      else if (unit + 1 < w->end) ahead = expert_matrix(c, 3, active[1]).data + (begin + n * TILE) * down.row_bytes;
      x.first_row = place[e];
      for (i64 i = 0; i < n; i++) {
        lane = product_of_tile(&down, begin + i * TILE, rows, ahead ? ahead + i * TILE / STREAMS * down.row_bytes : 0, &x, pairs, acc, w);
        for (i64 p = 0; p < pairs; p++) {
          float* sum = total[i * tokens + token[first[e] + p]];
          const vf factor = vf_of(weight[first[e] + p]);
          FOR_VECTORS store_vf(sum + v, fma_vf(factor, load_vf(&acc[p][v]), load_vf(sum + v)));
        }
      }
    }
    for (i64 i = 0; i < n; i++) {
      const i64 row = begin + i * TILE;
      store_tile(total + i * tokens, tokens, i + 1 < n ? 0 : lane, min_i64(TILE, rows - row), y + row, rows);
    }
  }
}
