/* The int8 products alone, for an instruction set that has better ones than the body whose ops it shares (see bodies.h). */
#include "block-products.h"
#if !defined(__x86_64__) /* one token waits for memory there, whichever of the instructions multiply it */
#include "block-streams.h"
#endif
