/* The WebAssembly module: what a worker calls. Its memory is shared and given by who instantiates it. */
#include "body.c"
#include "shared-ops.c"
#include "program.h"
#include "memory.h"


/* Each worker has an instance, and all instances one memory: each must have a stack of its own in it. */
__attribute__((export_name("set_stack"))) void set_stack(void* end) {
  __asm__ volatile("local.get %0\nglobal.set __stack_pointer" ::"r"(end));
}

__attribute__((export_name("work"))) double work_step(u32 control, u32 worker, i32 sequence, i32 spins);
double work_step(u32 control, u32 worker, i32 sequence, i32 spins) {
  static const Body body = {OF_BODY(ops), OF_BODY(multiply_bytes), OF_BODY(stream_blocks), 0, 0, 0, BIAS_8};
  return work((Control*)(uptr)control, &body, worker, sequence, spins);
}
