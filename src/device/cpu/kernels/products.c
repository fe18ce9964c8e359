/* The products of one instruction set: compiled once for each, with BODY as its name and the compiler's flags for it. */
#include "block-products.h"
#include "block-streams.h"
#if LANES == TILE
#include "few-block-streams.h"
#elif SUMS_IN_16_BITS
#include "few-row-streams.h"
#endif
#include "gated.h"
#include "product.h"
#include "quantize.h"
#include "residual-streams.h"
#include "softmax.h"

const Products OF_BODY(products) = {
    product_of_rows, product_of_cache_rows, add_keys, unpack_floats, product_of_four_rows, magnitudes_of, quantize_row, gate, mix_streams,
};
