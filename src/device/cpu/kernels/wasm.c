/* The WebAssembly module: what a worker calls. Its memory is shared and given by who instantiates it. */
#include "program.h"
#include "memory.h"

extern const Products OF_BODY(products);
void OF_BODY(multiply_bytes)(i64, Panel*, i64, i64, const Activations*, i64, i64, float (*)[TILE]);
int OF_BODY(stream_blocks)(const Matrix*, Rows, const Activations*, float*);

/* Each worker has an instance, and all instances one memory: each must have a stack of its own in it. */
__attribute__((export_name("set_stack"))) void set_stack(void* end) {
  __asm__ volatile("local.get %0\nglobal.set __stack_pointer" ::"r"(end));
}

__attribute__((export_name("work"))) double work_step(u32 control, u32 worker, i32 sequence, i32 spins);
double work_step(u32 control, u32 worker, i32 sequence, i32 spins) {
  static const Body body = {&OF_BODY(products), OF_BODY(multiply_bytes), OF_BODY(stream_blocks), 0, 0, 0, 0};
  return work((Control*)(uptr)control, &body, worker, sequence, spins);
}
