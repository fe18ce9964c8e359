/* The products alone for which an instruction set has better instructions than the body whose ops it shares (see bodies.h). */
#include "block-products.h"
#if defined(__AMX_BF16__)
#include "float-tiles.h"
#else
#include "block-streams.h"
#endif
