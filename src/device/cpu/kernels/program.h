/*
 * How workers run a program: each walks through the whole list of commands, and where a command needs what others computed, all
 * meet at a barrier first. A worker that waits spins for about 50 us, then sleeps: an idle core is what lets the scheduler bring
 * a worker back that another process has pushed off its core.
 */
#pragma once
#include "activations.h"
#include "system.h"

/* Shared by JavaScript and all workers; the first words are also used by Atomics (see src/device/cpu/control-block.ts). */
typedef struct {
  i32 sequence; /* a new value starts a step: its number times PARTS, plus how many workers take part, the first ones */
  i32 finished; /* workers that are through with it */
  i32 workers, body;
  double commands, count;            /* address and number of the commands */
  double scratch, scratch_bytes;     /* of worker 0, and bytes of each */
  double cursors;                    /* [CURSOR_SETS][workers] */
  i32 done, quit;                    /* done is JavaScript's; quit: a worker is gone, or all shall go */
  i32 arrived __attribute__((aligned(64)));
  i32 generation __attribute__((aligned(64)));
  i32 stopped; /* whether the step ended early: set by the last to arrive, so that all workers read the same */
  i32 sleepers __attribute__((aligned(64)));
  i32 naps; /* how often a worker waited so long for the others that it slept */
  i32 stop; /* JavaScript's, at any time: the step shall end at the next barrier */
} Control;

extern const Op ops[]; /* ops.c */

enum { PARTS = 256 };

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

/* All workers are through with commands from .. to when this returns, or the control block says quit. They all find the same `stopped`. */
static inline void meet(Control* c, i32 workers, const Command* commands, i64 from, i64 to) {
  const i32 generation = __atomic_load_n(&c->generation, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&c->arrived, 1, __ATOMIC_ACQ_REL) == workers) {
    reset_cursors(c, commands, from, to);
    __atomic_store_n(&c->arrived, 0, __ATOMIC_RELAXED);
    if (__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) c->stopped = 1;
    __atomic_store_n(&c->generation, generation + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->sleepers, __ATOMIC_SEQ_CST)) wake_all(&c->generation);
    return;
  }
  for (i32 i = 0; i < SPINS; i++) {
    if (__atomic_load_n(&c->generation, __ATOMIC_ACQUIRE) != generation) return;
    pause_core();
  }
  __atomic_add_fetch(&c->naps, 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&c->sleepers, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&c->generation, __ATOMIC_SEQ_CST) == generation && !is_quitting(c)) sleep_while(&c->generation, generation);
  __atomic_sub_fetch(&c->sleepers, 1, __ATOMIC_SEQ_CST);
}

/* Runs the step as one of the `workers` that take part, to its end or to where it was stopped; 1 if this worker was the last to finish. */
static inline i32 run_step(Control* c, const Body* body, u32 index, i32 workers) {
  const Command* commands = (const Command*)(uptr)c->commands;
  Worker worker = {index, (u32)workers, (u8*)(uptr)(c->scratch + index * c->scratch_bytes), (u64)c->scratch_bytes, 0, 0, 0, body};
  i64 begin = 0, end = (i64)c->count;
  for (i64 i = 0; i < end; i++) {
    if (commands[i].slot[1]) {
      meet(c, workers, commands, begin, i);
      if (is_quitting(c)) return 0;
      begin = i;
      if (c->stopped) {
        end = i;
        break;
      }
    }
    worker.cursors = (Cursor*)(uptr)c->cursors + (i64)commands[i].slot[2] * c->workers;
    ops[(i64)commands[i].slot[0]](&commands[i], &worker);
  }
  if (__atomic_add_fetch(&c->finished, 1, __ATOMIC_ACQ_REL) < workers) return 0;
  reset_cursors(c, commands, begin, end);
  return 1;
}

/*
 * Spins until a step other than `sequence` starts that this worker takes part in, then runs it. 0: none came; else the step's
 * sequence word as a positive number, times 2, plus 1 if this worker was the last to finish.
 */
static inline double work(Control* c, const Body* body, u32 index, i32 sequence, i32 spins) {
  i32 now;
  for (i64 i = 0; (now = __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE)) == sequence || index >= (u32)now % PARTS; i++) {
    if (i >= (i64)spins * SPINS / 1000 || now != sequence) return 0;
    pause_core();
  }
  return is_quitting(c) ? 0 : (double)(u32)now * 2 + run_step(c, body, index, (i32)((u32)now % PARTS));
}
