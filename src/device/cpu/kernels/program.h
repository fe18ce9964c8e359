/*
 * How workers run a program: each walks through the whole list of commands, and where a command needs what others computed, all
 * meet at a barrier first. A worker that waits spins for about 50 us, then sleeps: an idle core is what lets the scheduler bring
 * a worker back that another process has pushed off its core.
 */
#pragma once
#include "product.h"
#include "system.h"

/* Shared by JavaScript and all workers; the first words are also used by Atomics (see src/device/cpu/control-block.ts). */
typedef struct {
  i32 sequence; /* number of the step; a new one starts it */
  i32 finished; /* workers that are through with it */
  i32 workers, body;
  double commands, count;            /* address and number of the commands */
  double scratch, scratch_bytes;     /* of worker 0, and bytes of each */
  double cursors;                    /* [CURSOR_SETS][workers] */
  i32 done, quit;                    /* done is JavaScript's; quit: a worker is gone, or all shall go */
  i32 arrived __attribute__((aligned(64)));
  i32 generation __attribute__((aligned(64)));
  i32 sleepers __attribute__((aligned(64)));
} Control;

/* Turns of waiting before a worker sleeps. WebAssembly has no pause instruction, so that its turns are short. */
#if defined(__wasm__)
enum { SPINS = 40000 };
#else
enum { SPINS = 1500 };
#endif

static inline void reset_cursors(Control* c, const Command* commands, i64 from, i64 to) {
  Cursor* cursors = (Cursor*)(uptr)c->cursors;
  for (i64 i = from; i < to; i++)
    for (i32 k = 0; k < c->workers; k++) __atomic_store_n(&cursors[(i64)commands[i].slot[2] * c->workers + k].next, 0, __ATOMIC_RELAXED);
}

static inline i32 is_quitting(const Control* c) { return __atomic_load_n(&c->quit, __ATOMIC_ACQUIRE); }

/* All workers are through with commands from .. to when this returns, or the control block says quit. */
static inline void meet(Control* c, const Command* commands, i64 from, i64 to) {
  const i32 generation = __atomic_load_n(&c->generation, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&c->arrived, 1, __ATOMIC_ACQ_REL) == c->workers) {
    reset_cursors(c, commands, from, to);
    __atomic_store_n(&c->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&c->generation, generation + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->sleepers, __ATOMIC_SEQ_CST)) wake_all(&c->generation);
    return;
  }
  for (i32 i = 0; i < SPINS; i++) {
    if (__atomic_load_n(&c->generation, __ATOMIC_ACQUIRE) != generation) return;
    pause_core();
  }
  __atomic_add_fetch(&c->sleepers, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&c->generation, __ATOMIC_SEQ_CST) == generation && !is_quitting(c)) sleep_while(&c->generation, generation);
  __atomic_sub_fetch(&c->sleepers, 1, __ATOMIC_SEQ_CST);
}

/* Runs the step as worker `index`; 1 if this worker was the last to finish. */
static inline i32 run_step(Control* c, const Body* body, u32 index) {
  const Command* commands = (const Command*)(uptr)c->commands;
  Worker worker = {index, (u32)c->workers, (u8*)(uptr)(c->scratch + index * c->scratch_bytes), (u64)c->scratch_bytes, 0, body};
  i64 begin = 0;
  for (i64 i = 0; i < (i64)c->count; i++) {
    if (commands[i].slot[1]) {
      meet(c, commands, begin, i);
      if (is_quitting(c)) return 0;
      begin = i;
    }
    worker.cursors = (Cursor*)(uptr)c->cursors + (i64)commands[i].slot[2] * c->workers;
    body->ops[(i64)commands[i].slot[0]](&commands[i], &worker);
  }
  if (__atomic_add_fetch(&c->finished, 1, __ATOMIC_ACQ_REL) < c->workers) return 0;
  reset_cursors(c, commands, begin, (i64)c->count);
  return 1;
}

/* Spins until a step other than `sequence` starts, then runs it. 0: none came; 1: done; 2: done, and as the last. */
static inline i32 work(Control* c, const Body* body, u32 index, i32 sequence, i32 spins) {
  for (i64 i = 0; __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE) == sequence; i++) {
    if (i >= (i64)spins * SPINS / 1000) return 0;
    pause_core();
  }
  return is_quitting(c) ? 0 : 1 + run_step(c, body, index);
}
