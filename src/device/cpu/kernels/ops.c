/*
 * All ops. They are compiled once for a kind of processor, with the instructions that all of them have, and small rather than fast:
 * what takes time in them are functions of the body (products.c).
 */
#include "attention-ops.h"
#include "matrix-ops.h"
#include "plain-ops.h"
#include "rounding-ops.h"
#include "top-k.h"
#include "v41-ops.h"
#include "vector-ops.h"
#include "vision-ops.h"

/* The order is that of the op numbers in src/device/cpu/op-slots.ts. */
const Op ops[] = {
    op_quantize,         op_linear,           op_gather_matrix,    op_experts_route,
    op_experts_gather,   op_experts_gate_up,  op_experts_down,     op_gather_rows,
    op_rms_norm,         op_rope,             op_add,              op_scale,
    op_swiglu,           op_router_scores,    op_routing_weights,  op_top_k,
    op_write_rows,       op_repeat_streams,   op_collapse_streams, op_expand_streams,
    op_hyper_connection_coefficients,         op_hyper_connection_head,
    op_compress_entries, op_indexer_scores,   op_sparse_attention, op_read_memory,
    op_round_blocks,     op_round_expert_rows, op_combine_streams, op_candidate_blocks,
    op_engram_update,    op_add_bias_of_token, op_join_columns,
    op_axial_rope,       op_full_attention,   op_gated_halves,     op_gelu,
    op_gather_cells,     op_image_span,       op_place_rows,
};
