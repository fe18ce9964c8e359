/* The compiler turns copies of structures into calls of these. */
#pragma once
#include "base.h"

typedef u64 word_at __attribute__((aligned(1), may_alias));

/* In words, in loops that the compiler leaves as they are: what is set and copied here is small. */
#define PLAIN _Pragma("clang loop vectorize(disable)")

void* memset(void* to, int byte, __SIZE_TYPE__ count) {
  u8* at = to;
  PLAIN for (; count >= 8; count -= 8, at += 8) *(word_at*)at = 0x0101010101010101ull * (u8)byte;
  PLAIN while (count--) *at++ = (u8)byte;
  return to;
}

#if defined(__APPLE__) /* has a name of its own for clearing */
#if defined(__x86_64__)
#define bzero __bzero
#endif
void bzero(void* to, __SIZE_TYPE__ count) { memset(to, 0, count); }
#endif

void* memcpy(void* restrict to, const void* restrict from, __SIZE_TYPE__ count) {
  u8* at = to;
  const u8* source = from;
  PLAIN for (; count >= 8; count -= 8, at += 8, source += 8) *(word_at*)at = *(const word_at*)source;
  PLAIN while (count--) *at++ = *source++;
  return to;
}
