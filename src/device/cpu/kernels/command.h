/*
 * A program is a list of commands that JavaScript writes once and every worker walks through. A command is a row of doubles
 * (addresses of up to 2^53 are exact in a double), laid out by its op; see src/device/cpu/commands.ts, which writes them.
 */
#pragma once
#include "base.h"

enum { COMMAND_SLOTS = 56, MAX_WORKERS = 64, CURSOR_SETS = 32 };

typedef struct {
  /* slot 0: number of the op; 1: whether all workers must have finished what came before; 2: the cursor set; 3 ...: the op's own */
  double slot[COMMAND_SLOTS];
} Command;

/* Where the next unit of each worker's share stands; a cache line apart, so that workers do not disturb each other. */
typedef struct {
  u32 next;
  u32 unused[15];
} Cursor;

typedef struct Body Body; /* activations.h */

typedef struct {
  u32 index, count;
  u8* scratch; /* of this worker alone */
  u64 scratch_bytes;
  Cursor* cursors; /* [count], of the command at hand */
  i64 begin, end;  /* the share that the unit at hand is of */
  const Body* body;
} Worker;

typedef void (*Op)(const Command* command, Worker* worker);

static inline i64 whole(const Command* c, int slot) { return (i64)c->slot[slot]; }
static inline float number(const Command* c, int slot) { return (float)c->slot[slot]; }
static inline void* at(const Command* c, int slot) { return (void*)(uptr)c->slot[slot]; }

/*
 * The next unit of work for this worker, or -1. Each has a share of consecutive units and takes them one by one; whoever is
 * through helps the others, so that nobody waits for a worker whose core is busy with something else.
 */
static __attribute__((noinline)) i64 next_unit(Worker* w, i64 units) {
  for (u32 i = 0; i < w->count; i++) {
    const u32 owner = (w->index + i) % w->count;
    const i64 begin = units * owner / w->count, end = units * (owner + 1) / w->count;
    if (begin + (i64)__atomic_load_n(&w->cursors[owner].next, __ATOMIC_RELAXED) >= end) continue;
    const i64 unit = begin + (i64)__atomic_fetch_add(&w->cursors[owner].next, 1, __ATOMIC_RELAXED);
    if (unit >= end) continue;
    w->begin = begin, w->end = end;
    return unit;
  }
  return -1;
}
