// SPDX-License-Identifier: Apache-2.0
// Which samples a rank takes next: the list of all samples is cut into chunks, which a shared counter (ParQueue) deals out.
//
// No MPI and no model in here: chunk borders are a function of the list and the number of ranks, so every rank cuts the same.
#ifndef IMF_DECODE_DEAL_H
#define IMF_DECODE_DEAL_H

#include <stdint.h>

#include "base/err.h"

// prompt[n]: which prompt each sample belongs to, samples of a prompt side by side, longest expected work first.
// border[0 .. *chunks] (room for n + 1): chunk i is the samples border[i] .. border[i + 1] - 1; the last border is n.
void deal_cut(const int32_t *prompt, int64_t n, int ranks, int64_t *border, int64_t *chunks);

#endif
