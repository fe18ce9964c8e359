/* Weighted sums of the residual streams of a token. */
#pragma once
#include "base.h"

enum { MOST_STREAMS = 16 }; /* mostStreams of hyper-connection-coefficients.ts, which refuses more */

/*
 * next[k] = post[k] * added + the sum over j of mix[j][k] * streams[j], for `count` sums; without `added` the streams alone.
 *   streams [n][width], added [width] or 0, post [count], mix [n][count] -> next [count][width], which may be the memory of the streams
 */
static void mix_streams(const float* streams, i64 n, i64 width, const float* added, const float* post, const float* mix, i64 count, float* next) {
  for (i64 i = 0; i < width; i += LANES) {
    vf old[MOST_STREAMS];
    for (i64 j = 0; j < n; j++) old[j] = load_n(streams + j * width + i, width - i);
    const vf y = added ? load_n(added + i, width - i) : vf_of(0);
    for (i64 k = 0; k < count; k++) {
      vf sum = added ? vf_of(post[k]) * y : vf_of(0);
      for (i64 j = 0; j < n; j++) sum = fma_vf(vf_of(mix[j * count + k]), old[j], sum);
      store_n(next + k * width + i, sum, width - i);
    }
  }
}
