/* Which instruction sets the kernels were compiled for, and whether this machine has them: the last one that it has is the best. */
#pragma once
#include "activations.h"
#include "system.h"

/* A body with most functions of another one has better products of int8 blocks and nothing else. */
#define PRODUCTS(body) extern const Products products_##body;
#define MULTIPLY(body) void multiply_bytes_##body(i64, Panel*, i64, i64, const Activations*, i64, i64, float (*)[TILE]);
#define MULTIPLY_PARTS(body) void multiply_parts_##body(const Matrix*, i64, i64, const float*, i64, float*, i64, Panel*, void*);
#define ATTEND_IN_PARTS(body) void attend_in_parts_##body(const float*, i64, const float*, const float*, i64, i64, i64, float*, i64, void*);
#define STREAM(body) int stream_blocks_##body(const Matrix*, Rows, const Activations*, float*);
#define FEW(body) int stream_few_##body(const Matrix*, Rows, const Activations*, i64, float (*)[TILE], Panel*);

#if defined(__x86_64__)
PRODUCTS(sse2) MULTIPLY(sse2) STREAM(sse2)
PRODUCTS(avx2) MULTIPLY(avx2) STREAM(avx2) FEW(avx2)
MULTIPLY(avxvnni)
PRODUCTS(avx512) MULTIPLY(avx512) STREAM(avx512) FEW(avx512)
MULTIPLY(amx) MULTIPLY_PARTS(amx) ATTEND_IN_PARTS(amx)
/* Which of them a system does without is in scripts/build-kernels.ts. */
static const Body bodies[] = {
    {&products_sse2, multiply_bytes_sse2, stream_blocks_sse2, 0, 0, 0, 0},
    {&products_avx2, multiply_bytes_avx2, stream_blocks_avx2, stream_few_avx2, 0, 0, 0},
#if !defined(__APPLE__)
    {&products_avx2, multiply_bytes_avxvnni, stream_blocks_avx2, stream_few_avx2, 0, 0, 128},
    {&products_avx512, multiply_bytes_avx512, stream_blocks_avx512, stream_few_avx512, 0, 0, 128},
#endif
#if defined(__linux__)
    {&products_avx512, multiply_bytes_amx, stream_blocks_avx512, stream_few_avx512, multiply_parts_amx, attend_in_parts_amx, 128},
#endif
};

static inline void cpuid(u32 leaf, u32 subleaf, u32 out[4]) {
  __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

/* The processor has the instructions, and the operating system keeps their registers (XCR0). */
static inline i32 is_available(i32 body) {
  u32 r[4], most;
  if (body == 0) return 1;
  cpuid(0, 0, r);
  most = r[0];
  if (most < 7) return 0;
  cpuid(1, 0, r);
  if (!(r[2] >> 27 & 1)) return 0; /* no XGETBV */
  u32 low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const i32 fma = (r[2] >> 12 & 1) && (r[2] >> 29 & 1); /* and F16C */
  cpuid(7, 0, r);
  const i32 avx2 = fma && (r[1] >> 5 & 1) && (low & 6) == 6;
  if (body == 1) return avx2;
#if !defined(__APPLE__)
  const u32 leaves = r[0], b = r[1], c = r[2];
  if (body == 2) {
    if (!avx2 || leaves < 1) return 0;
    cpuid(7, 1, r);
    return r[0] >> 4 & 1;
  }
  /* F, DQ, BW, VL, VNNI */
  const i32 avx512 = avx2 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1) && (c >> 11 & 1) && (low & 0xe6) == 0xe6;
  if (body == 3) return avx512;
#if defined(__linux__)
  /* AMX-BF16, AMX-TILE, AMX-INT8 */
  cpuid(7, 0, r);
  const u32 d = r[3];
  return avx512 && (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1) && (low & 0x60000) == 0x60000 && ask_for_tiles();
#endif
#endif
  return 0;
}

#elif defined(__aarch64__)
PRODUCTS(neon) MULTIPLY(neon) STREAM(neon)
#if defined(__APPLE__) /* every Apple processor since the M1 has the dot product, and the compiler takes it for granted */
#define multiply_bytes_dotprod multiply_bytes_neon
#define stream_blocks_dotprod stream_blocks_neon
#else
MULTIPLY(dotprod) STREAM(dotprod)
#endif
static const Body bodies[] = {
    {&products_neon, multiply_bytes_neon, stream_blocks_neon, 0, 0, 0, 0},
    {&products_neon, multiply_bytes_dotprod, stream_blocks_dotprod, 0, 0, 0, 0},
};

static inline i32 is_available(i32 body) {
  if (body == 0) return 1;
#if defined(__APPLE__)
  return 1;
#elif defined(__linux__)
  u64 features; /* Linux answers for the register */
  __asm__("mrs %0, ID_AA64ISAR0_EL1" : "=r"(features));
  return (features >> 44 & 15) != 0;
#else
  enum { DOT_PRODUCTS = 43 }; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
  return IsProcessorFeaturePresent(DOT_PRODUCTS) != 0;
#endif
}
#endif

enum { BODIES = sizeof bodies / sizeof *bodies };
