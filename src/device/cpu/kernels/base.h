/*
 * What every kernel file builds on: integer types, the vector type of this body, and the few functions that a C library would
 * give. Kernels are freestanding: no libc, no allocation, no global but constant tables.
 *
 * What takes time is compiled once for each instruction set (products.c), all else once for a kind of processor (ops.c):
 * LANES is the number of float32 in a vector register, and vectors are clang's vector extension, so one text serves them all. Only
 * where an instruction set has something that the extension cannot say (the int8 dot products, a byte shuffle) is there a choice by macro, in dot.h.
 */
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef __UINTPTR_TYPE__ uptr;

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__wasm__)
#include <wasm_simd128.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

/* Rows of a weight that are worked on together: lane = row. Four, two or one vectors, by LANES. */
#define TILE 16
#define TILE_VECTORS (TILE / LANES)
/* Values that share a scale in quantised weights and activations. */
#define BLOCK 32

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef i32 vi __attribute__((vector_size(4 * LANES)));
typedef u32 vu __attribute__((vector_size(4 * LANES)));
typedef float vf_at __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef i32 vi_at __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef u32 vu_at __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef i32 quad_at __attribute__((vector_size(16), aligned(1), may_alias));
typedef u32 u32_at __attribute__((aligned(1), may_alias));
typedef i64 i64_at __attribute__((aligned(1), may_alias));
typedef u16 u16_at __attribute__((aligned(1), may_alias));
typedef float f32_at __attribute__((aligned(1), may_alias));

/* Before a loop with a constant number of turns that must become straight code. */
#define UNROLL _Pragma("clang loop unroll(full)")
/* The compiler shall not see where this comes from: it counts on from there, and computes nothing of it beforehand. */
#define OPAQUE(x) __asm__("" : "+r"(x))
/* The same for a vector (x64). Among many sums it keeps their order: else the compiler changes it, and spills. */
#define OPAQUE_VECTOR(x) __asm__("" : "+v"(x))
/*
 * For a pointer that moves in a loop, or a stride. Else it becomes a base and an index, with which an instruction that loads its operand
 * takes the place of two in the processor, or is added to sixteen pointers before the loop, which spill. With fewer registers operands
 * are loaded apart, and spilling is what this leads to.
 */
#if LANES == 16
#define MOVING(x) OPAQUE(x)
#else
#define MOVING(x) (void)0
#endif
/* Long functions that are called from several places. */
#define NEVER_INLINE __attribute__((noinline))

static inline vf load_vf(const void* at) { return *(const vf_at*)at; }
static inline void store_vf(void* at, vf x) { *(vf_at*)at = x; }
static inline vi load_vi(const void* at) { return *(const vi_at*)at; }
static inline void store_vi(void* at, vi x) { *(vi_at*)at = x; }
static inline vf vf_of(float x) { return x - (vf){}; }
static inline vi vi_of(i32 x) { return x - (vi){}; }
static inline vu vu_of(u32 x) { return x - (vu){}; }
static inline vf vf_of_vi(vi x) { return __builtin_convertvector(x, vf); }
/* a > b ? a : b, and a < b ? a : b: b where one of them is NaN */
static inline vf max_vf(vf a, vf b) {
#if LANES == 16
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__wasm__)
  return (vf)wasm_f32x4_pmax((v128_t)b, (v128_t)a);
#else
  return (vf)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}
static inline vf min_vf(vf a, vf b) {
#if LANES == 16
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_min_ps((__m128)a, (__m128)b);
#elif defined(__wasm__)
  return (vf)wasm_f32x4_pmin((v128_t)b, (v128_t)a);
#else
  return (vf)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}
/* a * b + c: one rounding where the instruction set has it (AVX2 up, NEON, relaxed WASM), else two. */
static inline vf fma_vf(vf a, vf b, vf c) {
#if defined(__wasm_relaxed_simd__)
  return __builtin_wasm_relaxed_madd_f32x4(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}

static inline float bits_to_f32(u32 bits) {
  union {
    u32 bits;
    float value;
  } both = {bits};
  return both.value;
}
static inline u32 f32_to_bits(float value) {
  union {
    float value;
    u32 bits;
  } both = {value};
  return both.bits;
}

static inline i64 min_i64(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 max_i64(i64 a, i64 b) { return a > b ? a : b; }

/* The sum over the lanes, halves first: the same tree for any number of lanes that is a power of two. */
static inline float sum_vf(vf x) {
  float lane[LANES];
  store_vf(lane, x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}

/* The ends of rows whose width is no multiple of LANES: rare, and therefore apart from the loops. */
static __attribute__((noinline, cold)) vf load_part(const float* at, i64 n) {
  float lane[LANES] = {0};
  for (i64 i = 0; i < n; i++) lane[i] = at[i];
  return load_vf(lane);
}
static inline __attribute__((always_inline)) vf load_n(const float* at, i64 n) {
  return n >= LANES ? load_vf(at) : load_part(at, n);
}
static __attribute__((noinline, cold)) void store_part(float* at, vf x, i64 n) {
  float lane[LANES];
  store_vf(lane, x);
  for (i64 i = 0; i < n; i++) at[i] = lane[i];
}

static inline __attribute__((always_inline)) void store_n(float* at, vf x, i64 n) {
  if (n >= LANES) store_vf(at, x);
  else store_part(at, x, n);
}

static inline void fill(float* to, i64 count, float value) {
  for (i64 i = 0; i < count; i += LANES) store_n(to + i, vf_of(value), count - i);
}
