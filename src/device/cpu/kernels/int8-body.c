/* The int8 products alone, for an instruction set that has better ones than the body whose ops it shares (see bodies.h). */
#include "block-products.h"
#if !defined(__AMX_INT8__)
#include "block-streams.h"
#endif
