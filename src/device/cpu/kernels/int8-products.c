/* The products alone for which an instruction set has better instructions than the body whose ops it shares (see bodies.h). */
#include "block-products.h"
#if defined(__AMX_BF16__)
#include "float-tiles.h"
#elif !defined(__x86_64__) /* one token waits for memory there, whichever of the instructions multiply it */
#include "block-streams.h"
#endif
