/*
 * One token times super-blocks of 256 weights (Q4_K, Q6_K), without a panel in between. A vector holds weights of one row or of two, and x
 * is the same for all rows: nothing but sums is turned until a lane is a row, which are far fewer. Sums are those of bytes_of_tokens.
 */
#pragma once
#include "activations.h"
#include "dot.h"

#if LANES >= 8
enum { SUPER_BLOCK = 256, SUPER_BLOCKS = SUPER_BLOCK / BLOCK };

/* A super-block of x: eight blocks that lie one after another. */
typedef struct {
  const i8* bytes;
  const float* scales;
  const i32* sums;
} SuperBlock;

/* Room for one whose blocks lie apart. */
typedef struct {
  i8 bytes[SUPER_BLOCK];
  float scales[SUPER_BLOCKS];
  i32 sums[2 * SUPER_BLOCKS];
} SuperBlockCopy;

static NEVER_INLINE void copy_super_block(const Activations* x, i64 block, SuperBlockCopy* to) {
  const i64 together = x->together, sums = sums_of(x, block);
  for (i64 b = 0; b < SUPER_BLOCKS; b++) {
    _mm256_storeu_si256((void*)(to->bytes + BLOCK * b), _mm256_loadu_si256((const void*)(x->bytes + BLOCK * (block + b * together))));
    to->scales[b] = x->scales[block + b * together];
    UNROLL for (int half = 0; half < 2; half++) to->sums[2 * b + half] = x->sums[sums + (2 * b + half) * together];
  }
}

static inline __attribute__((always_inline)) SuperBlock super_block_of(const Activations* x, i64 first, i64 super, SuperBlockCopy* copy) {
  const i64 block = first + super * SUPER_BLOCKS * x->together;
  if (x->together == 1) return (SuperBlock){x->bytes + BLOCK * block, x->scales + block, x->sums + 2 * block};
  copy_super_block(x, block, copy);
  return (SuperBlock){copy->bytes, copy->scales, copy->sums};
}

/*
 * Half a super-block of Q4_K times x. Low nibbles of 32 bytes are a block, high ones the next. A vector holds weights of two rows, and of each
 * block the first half or the second, that both may be added up:
 *   at [row][64], `stride` apart; bytes [4][32] -> sums [block][vector of rows]
 * Meanwhile two lines of each stream are fetched.
 */
static inline __attribute__((always_inline)) void nibble_blocks(const u8* at, i64 stride, const i8* bytes, const u8* ahead, i64 apart,
                                                                vi sums[4][TILE_VECTORS]) {
#define SIXTEEN(at) _mm_loadu_si128((const void*)(at))
#if LANES == 16
  vi of_eight[2][2];
  __m512i x[2][2]; /* [low, high][half] */
  UNROLL for (int h = 0; h < 2; h++)
    UNROLL for (int half = 0; half < 2; half++) {
      const i8* from = bytes + BLOCK * h + 16 * half;
      x[h][half] = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(SIXTEEN(from)), 0xf0f0, SIXTEEN(from + 2 * BLOCK));
    }
  _Pragma("clang loop unroll(disable)") for (int eight = 0; eight < 2; eight++, at += 8 * stride, ahead += LINE) {
    vi low[4], high[4];
    fetch_lines(ahead, apart);
    UNROLL for (int r = 0; r < 4; r++) {
      const __m512i a = _mm512_loadu_si512(at + r * stride), b = _mm512_loadu_si512(at + 4 * stride + r * stride);
      const vi first = (vi)_mm512_shuffle_i32x4(a, b, 0x88), second = (vi)_mm512_shuffle_i32x4(a, b, 0xdd);
#define DOT(mask, x) \
  (vi) _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), (__m512i)(first & (mask)), (x)[0]), (__m512i)(second & (mask)), (x)[1])
      low[r] = DOT(0x0f0f0f0f, x[0]);
      high[r] = DOT((i32)0xf0f0f0f0, x[1]) >> 4;
#undef DOT
    }
    of_eight[0][eight] = add_quads(low, vi_of(0));
    of_eight[1][eight] = add_quads(high, vi_of(0));
  }
  UNROLL for (int h = 0; h < 2; h++) {
    sums[h][0] = (vi)_mm512_shuffle_i32x4((__m512i)of_eight[h][0], (__m512i)of_eight[h][1], 0x88);
    sums[2 + h][0] = (vi)_mm512_shuffle_i32x4((__m512i)of_eight[h][0], (__m512i)of_eight[h][1], 0xdd);
  }
#else
  for (int two = 0; two < 4; two += 2, at += BLOCK, ahead += LINE) {
    __m256i x[2][2];
    UNROLL for (int h = 0; h < 2; h++)
      UNROLL for (int half = 0; half < 2; half++) x[h][half] = _mm256_broadcastsi128_si256(SIXTEEN(bytes + BLOCK * (two + h) + 16 * half));
    const u8* row = at + 4 * stride;
    fetch_lines(ahead, apart);
    _Pragma("clang loop unroll(disable)") for (int eight = 0; eight < 2; eight++, row += 4 * stride) {
      const __m256i mask = _mm256_set1_epi8(15);
      vi low[4], high[4];
      UNROLL for (int r = 0; r < 4; r++, row += stride) {
        OPAQUE(row);
        const __m256i a = _mm256_loadu_si256((const void*)(row - 4 * stride));
        const __m256i first = _mm256_inserti128_si256(a, SIXTEEN(row), 1), second = _mm256_permute2x128_si256(a, _mm256_loadu_si256((const void*)row), 0x31);
#define LOW(q) _mm256_and_si256(q, mask)
#define HIGH(q) LOW(_mm256_srli_epi16(q, 4))
#define DOT(part, x) \
  (vi) _mm256_madd_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(part(first), (x)[0]), _mm256_maddubs_epi16(part(second), (x)[1])), _mm256_set1_epi16(1))
        low[r] = DOT(LOW, x[0]);
        high[r] = DOT(HIGH, x[1]);
#undef LOW
#undef HIGH
#undef DOT
      }
      sums[two][eight] = add_quads(low, vi_of(0));
      sums[two + 1][eight] = add_quads(high, vi_of(0));
    }
  }
#endif
#undef SIXTEEN
}

static inline __attribute__((always_inline)) void stream_of_q4_k(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 block = block_of(x, activation_row(x, 0), 0), apart = m->ahead_rows * m->row_bytes;
  const u8 *ahead = m->ahead ? m->ahead : rows.at, *at = rows.at;
  i64 owed = 0;
  SuperBlockCopy copy;
  vf total[TILE_VECTORS];
  UNROLL for (int v = 0; v < TILE_VECTORS; v++) total[v] = vf_of(0);
  for (i64 super = 0; super < m->columns / SUPER_BLOCK; super++) {
    const SuperBlock of_x = super_block_of(x, block, super, &copy);
    vf factor[TILE_VECTORS][2];
    vi scale[TILE_VECTORS][2], minimum[TILE_VECTORS][2];
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
      vi t[4];
      transpose_16_bytes(at + v * LANES * rows.stride, rows.stride, 0, 0, t);
      two_f16_to_vf(t[0], t[0], factor[v]);
      q4_k_bytes(t, scale[v], minimum[v]);
    }
    float of_minima[SUPER_BLOCKS]; /* what they are multiplied with */
    const __m256i sums_of_x = _mm256_hadd_epi32(_mm256_loadu_si256((const void*)of_x.sums), _mm256_loadu_si256((const void*)(of_x.sums + 8)));
    const __m256 minus = _mm256_xor_ps(_mm256_loadu_ps(of_x.scales), _mm256_set1_ps(-0.0f));
    _mm256_storeu_ps(of_minima, _mm256_mul_ps(minus, _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(sums_of_x, 0xd8))));
    for (int half = 0; half < 2; half++, ahead += 2 * LINE) {
      vi sums[4][TILE_VECTORS];
      nibble_blocks(at + 16 + 64 * half, rows.stride, of_x.bytes + 4 * BLOCK * half, ahead, apart, sums);
      UNROLL for (int k = 0; k < 4; k++)
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
          const vf of_weights = factor[v][0] * vf_of_vi(move_byte(scale[v][half], k, 0));
          total[v] = fma_vf(vf_of_vi(sums[k][v]), of_weights * vf_of(of_x.scales[4 * half + k]), total[v]);
          total[v] = fma_vf(factor[v][1] * vf_of_vi(move_byte(minimum[v][half], k, 0)), vf_of(of_minima[4 * half + k]), total[v]);
        }
    }
    ahead = fetch_rest(ahead, apart, TILE * 144 / STREAMS % LINE, &owed);
    at += 144;
    OPAQUE(at);
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}

/*
 * Half a super-block of Q6_K times x. A vector holds weights of one row, four of its groups of sixteen columns or two:
 *   low [row][64], high [row][32], both `stride` apart; bytes [128] -> sums [vector of a row][four rows], in a 128-bit lane those of a group
 * Meanwhile two lines of each stream are fetched.
 */
enum { SIX_BIT_VECTORS = 8 / QUAD_LANES };

static inline __attribute__((always_inline)) void six_bit_groups(const u8* low, const u8* high, i64 stride, const i8* bytes, const u8* ahead,
                                                                 i64 apart, vi sums[SIX_BIT_VECTORS][4]) {
  vi zero[SIX_BIT_VECTORS]; /* the zero point times x */
  i64 step = 4 * apart;
#if LANES == 16
  const __m512i to_left = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), to_right = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
  vi x[SIX_BIT_VECTORS];
  UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) {
    x[i] = load_vi(bytes + 64 * i);
    zero[i] = -(vi)_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(32), (__m512i)x[i]);
  }
#else
  const __m256i ones = _mm256_set1_epi16(1);
#define X(i) _mm256_loadu_si256((const void*)(bytes + 32 * (i)))
  UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) {
    const __m256i quads = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(32), X(i)), ones);
    zero[i] = (vi)_mm256_packs_epi32(quads, quads);
  }
#endif
  _Pragma("clang loop unroll(disable)") for (int g = 0; g < 4; g++, low += 4 * stride, high += 4 * stride) {
    vi quads[SIX_BIT_VECTORS][4];
    OPAQUE(low);
    OPAQUE(high);
    fetch_four_lines(ahead, apart, 0);
    ahead += step, step = LINE - step;
    UNROLL for (int r = 0; r < 4; r++) {
#if LANES == 16
      const vi l = load_vi(low + r * stride);
      const __m512i h = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(high + r * stride)));
      const vi w[] = {(l & 0x0f0f0f0f) | ((vi)_mm512_sllv_epi64(h, to_left) & 0x30303030), ((l >> 4) & 0x0f0f0f0f) | ((vi)_mm512_srlv_epi64(h, to_right) & 0x30303030)};
      UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) quads[i][r] = (vi)_mm512_dpbusd_epi32((__m512i)zero[i], (__m512i)w[i], (__m512i)x[i]);
#else
      const vi a = load_vi(low + r * stride), b = load_vi(low + 32 + r * stride), h = load_vi(high + r * stride);
      const vi w[] = {(a & 0x0f0f0f0f) | ((h << 4) & 0x30303030), (b & 0x0f0f0f0f) | ((h << 2) & 0x30303030),
                      ((a >> 4) & 0x0f0f0f0f) | (h & 0x30303030), ((b >> 4) & 0x0f0f0f0f) | ((h >> 2) & 0x30303030)};
      UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) quads[i][r] = (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w[i], X(i)), ones);
#endif
    }
    UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) sums[i][g] = add_quads(quads[i], zero[i]);
  }
#undef X
}

static inline __attribute__((always_inline)) void stream_of_q6_k(const Matrix* m, Rows rows, const Activations* x, float* acc) {
  const i64 block = block_of(x, activation_row(x, 0), 0), apart = m->ahead_rows * m->row_bytes;
  const u8 *ahead = m->ahead ? m->ahead : rows.at, *at = rows.at;
  i64 owed = 0;
  SuperBlockCopy copy;
  vf total[TILE_VECTORS];
  UNROLL for (int v = 0; v < TILE_VECTORS; v++) total[v] = vf_of(0);
  for (i64 super = 0; super < m->columns / SUPER_BLOCK; super++) {
    const SuperBlock of_x = super_block_of(x, block, super, &copy);
    vf factor[TILE_VECTORS];
    vi scale[TILE_VECTORS][4];
    u16 codes[TILE] __attribute__((aligned(32)));
    UNROLL for (int r = 0; r < TILE; r++) codes[r] = *(const u16_at*)(at + 208 + r / 4 * 4 * rows.stride + r % 4 * rows.stride);
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
      transpose_16_bytes(at + v * LANES * rows.stride, rows.stride, 0, 192, scale[v]);
      /* by 2^-24, as scales are multiplied with it in the highest byte of a dword, where they have their sign */
#if LANES == 16
      factor[v] = (vf)_mm512_cvtph_ps(_mm256_load_si256((const void*)codes)) * 0x1p-24f;
#else
      factor[v] = (vf)_mm256_cvtph_ps(_mm_load_si128((const void*)(codes + v * LANES))) * 0x1p-24f;
#endif
    }
    for (int half = 0; half < 2; half++, ahead += 3 * LINE) {
      vi sums[SIX_BIT_VECTORS][4];
      six_bit_groups(at + 64 * half, at + 128 + 32 * half, rows.stride, of_x.bytes + 4 * BLOCK * half, ahead, apart, sums);
      fetch_lines(ahead + 2 * LINE, apart);
      UNROLL for (int i = 0; i < SIX_BIT_VECTORS; i++) {
        vi of_rows[TILE_VECTORS][QUAD_LANES];
        rows_of_quads(sums[i], of_rows);
        UNROLL for (int k = 0; k < QUAD_LANES; k++)
          UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
            const int group = QUAD_LANES * i + k;
            const vf of_weights = factor[v] * vf_of_vi(move_byte(scale[v][2 * half + group / 4], group % 4, 3));
            total[v] = fma_vf(vf_of_vi(of_rows[v][k]), of_weights * vf_of(of_x.scales[4 * half + group / 2]), total[v]);
          }
      }
    }
    ahead = fetch_rest(ahead, apart, TILE * 210 / STREAMS % LINE, &owed);
    at += 210;
    OPAQUE(at);
  }
  FOR_VECTORS store_vf(acc + v, total[v / LANES]);
}
#endif
