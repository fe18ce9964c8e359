/*
 * The little that is asked of the operating system, without a C library: memory maps, advice about pages, and sleeping on a word of
 * memory until it changes. Linux is called directly (numbers and conventions of its system call interface), macOS and Windows
 * through libraries that every process has loaded.
 */
#pragma once
#include "base.h"

#if defined(__linux__)

static inline i64 system_call(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
#if defined(__x86_64__)
  i64 result;
  register i64 r10 __asm__("r10") = d;
  register i64 r8 __asm__("r8") = e;
  register i64 r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#else
  register i64 x8 __asm__("x8") = number;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  register i64 x3 __asm__("x3") = d;
  register i64 x4 __asm__("x4") = e;
  register i64 x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#endif
}

#if defined(__x86_64__)
enum { SYS_MMAP = 9, SYS_MUNMAP = 11, SYS_MADVISE = 28, SYS_ARCH_PRCTL = 158, SYS_FUTEX = 202 };
#else
enum { SYS_MUNMAP = 215, SYS_MMAP = 222, SYS_MADVISE = 233, SYS_FUTEX = 98 };
#endif
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129, HUGE_PAGES = 14 };

static inline void* map_file(i64 descriptor, u64 bytes) {
  const i64 address = system_call(SYS_MMAP, 0, (i64)bytes, 1 /* read */, 1 /* shared */, descriptor, 0);
  return address < 0 && address > -4096 ? 0 : (void*)(uptr)address;
}
static inline void unmap_file(void* address, u64 bytes) { system_call(SYS_MUNMAP, (i64)(uptr)address, (i64)bytes, 0, 0, 0, 0); }
static inline void ask_for_huge_pages(void* address, u64 bytes) {
  const uptr begin = ((uptr)address + 0x1fffff) & ~(uptr)0x1fffff, end = ((uptr)address + bytes) & ~(uptr)0x1fffff;
  if (begin < end) system_call(SYS_MADVISE, (i64)begin, (i64)(end - begin), HUGE_PAGES, 0, 0, 0);
}
/* Returns when the word has another value, or after 50 ms, or for no reason: the caller looks again. */
static inline void sleep_while(const i32* word, i32 value) {
  const struct {
    i64 seconds, nanoseconds;
  } most = {0, 50000000};
  system_call(SYS_FUTEX, (i64)(uptr)word, FUTEX_WAIT_PRIVATE, value, (i64)(uptr)&most, 0, 0);
}
#if defined(__x86_64__)
/* The tile registers of AMX, 8 KB a thread, must be asked for: once for the process and all its threads; twice does no harm. */
static inline i32 ask_for_tiles(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return system_call(SYS_ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA, 0, 0, 0, 0) == 0;
}
#endif
static inline void wake_all(const i32* word) { system_call(SYS_FUTEX, (i64)(uptr)word, FUTEX_WAKE_PRIVATE, 0x7fffffff, 0, 0, 0); }

#elif defined(__wasm__)

static inline void sleep_while(const i32* word, i32 value) { __builtin_wasm_memory_atomic_wait32((i32*)word, value, 50000000); }
static inline void wake_all(const i32* word) { __builtin_wasm_memory_atomic_notify((i32*)word, 0xffffffffu); }

#elif defined(__APPLE__)

void* mmap(void*, unsigned long, int, int, int, long long);
int munmap(void*, unsigned long);
int sched_yield(void);
static inline void* map_file(i64 descriptor, u64 bytes) {
  void* address = mmap(0, bytes, 1, 1, (int)descriptor, 0);
  return address == (void*)-1 ? 0 : address;
}
static inline void unmap_file(void* address, u64 bytes) { munmap(address, bytes); }
/* There is no public call to sleep on a word that all versions have: the core is given to others instead. */
static inline void sleep_while(const i32* word, i32 value) {
  if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) sched_yield();
}
static inline void wake_all(const i32* word) { (void)word; }

#else /* Windows 10 or newer */

#define SYSTEM __declspec(dllimport)
SYSTEM int GetModuleHandleExA(u32 flags, const char* name, void** module);
SYSTEM void* GetProcAddress(void* module, const char* name);
SYSTEM void* CreateFileMappingA(void* file, void* security, u32 protection, u32 size_high, u32 size_low, const char* name);
SYSTEM void* MapViewOfFile(void* mapping, u32 access, u32 offset_high, u32 offset_low, __SIZE_TYPE__ bytes);
SYSTEM int UnmapViewOfFile(const void* address);
SYSTEM int CloseHandle(void* handle);
SYSTEM int GetProcessAffinityMask(void* process, u64* ours, u64* all);
SYSTEM int GetLogicalProcessorInformationEx(u32 relation, void* buffer, u32* bytes);
SYSTEM int IsProcessorFeaturePresent(u32 feature);
SYSTEM int WaitOnAddress(const volatile void* word, const void* value, __SIZE_TYPE__ bytes, u32 most_milliseconds);
SYSTEM void WakeByAddressAll(const void* word);

/* The module that loaded this one, which has Node-API and libuv: node.exe, or an application that holds Node, of any name. */
static void* host;
static inline void* host_function(const char* name) { return GetProcAddress(host, name); }
static inline void find_host(const void* caller) {
  enum { OF_ADDRESS = 4, WITHOUT_HOLDING_IT = 2 };
  GetModuleHandleExA(OF_ADDRESS | WITHOUT_HOLDING_IT, caller, &host);
}

/* A descriptor is a number of the host's C library, which libuv turns into a handle of the system. */
static inline void* map_file(i64 descriptor, u64 bytes) {
  enum { READ_PAGES = 2, READ_VIEW = 4 };
  void* (*const handle_of)(int) = host_function("uv_get_osfhandle");
  if (!handle_of) return 0;
  void* const mapping = CreateFileMappingA(handle_of((int)descriptor), 0, READ_PAGES, 0, 0, 0);
  if (!mapping) return 0;
  void* const address = MapViewOfFile(mapping, READ_VIEW, 0, 0, bytes);
  CloseHandle(mapping); /* the view holds it */
  return address;
}
static inline void unmap_file(void* address, u64 bytes) {
  (void)bytes;
  UnmapViewOfFile(address);
}
static inline void sleep_while(const i32* word, i32 value) { WaitOnAddress(word, &value, sizeof value, 50); }
static inline void wake_all(const i32* word) { WakeByAddressAll(word); }

/* How many cores this process may use, whatever number of logical processors each of them is; the buffer is for the system's answer. */
static inline i64 count_cores(void* buffer, u64 bytes) {
  enum { CORES = 0 };
  typedef struct {
    u32 relation, bytes;
    u8 kind[24];
    u64 processors; /* of the group that it belongs to */
  } __attribute__((may_alias)) Core;
  u32 length = (u32)bytes;
  u64 ours = 0, all;
  if (!GetLogicalProcessorInformationEx(CORES, buffer, &length)) return 0;
  GetProcessAffinityMask((void*)(uptr)-1, &ours, &all); /* 0 where the process may use several groups of 64 processors */
  i64 count = 0;
  for (const u8 *at = buffer, *end = at + length; at < end; at += ((const Core*)at)->bytes)
    count += !ours || (((const Core*)at)->processors & ours);
  return count;
}

#endif

#if !defined(_WIN32) && !defined(__wasm__)
/* What Linux tells of cores JavaScript reads by itself. */
static inline i64 count_cores(void* buffer, u64 bytes) { return (void)buffer, (void)bytes, 0; }
#endif
#if !defined(__linux__) && !defined(__wasm__)
static inline void ask_for_huge_pages(void* address, u64 bytes) { (void)address, (void)bytes; }
#endif

static inline void pause_core(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}
