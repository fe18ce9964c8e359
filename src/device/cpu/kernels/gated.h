/* The gate of a feed-forward layer: y = silu(min(gate, limit)) * clamp(up, -limit, limit), of `count` numbers; limit 0: no bound. NaN stays NaN. */
#pragma once
#include "elementary.h"

static void gate(const float* gate, const float* up, i64 count, float limit, float* y) {
  for (i64 i = 0; i < count; i += LANES) {
    vf a = load_n(gate + i, count - i), b = load_n(up + i, count - i);
    if (limit > 0) {
      a = min_vf(vf_of(limit), a); /* NaN is the second operand's */
      b = max_vf(vf_of(-limit), min_vf(vf_of(limit), b));
    }
    store_n(y + i, a / (vf_of(1) + exp_vf(-a)) * b, count - i);
  }
}
