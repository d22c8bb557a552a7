// SPDX-License-Identifier: Apache-2.0
// Some rows of an op's results, computed anew in double on the CPU; what is returned is the number of elements that leave them.
//
// An element is wrong when it is farther off than 2^-6 of itself and of the root mean square of its row's elements: results and the factors of
// their sums (probabilities and their gradients) are rounded to bf16, 2^-9 each.
#ifndef IMF_TESTS_SAMPLED_H
#define IMF_TESTS_SAMPLED_H

#include "kernels/ops.h"

// Attention of one causal segment of T tokens, without soft-cap and window; 16 places from its first token to its last, other heads each time.
long sampled_attn_fwd(const AttnArgs *a);     // o and lse
long sampled_attn_bwd(const AttnBwdArgs *a);  // dq; dk and dv of keys; o and lse are taken as they are

// One row of tokens; dhead began as zeros. 32 elements each of some tokens' and some words' gradients.
long sampled_logprob_bwd(const LogprobBwdArgs *a);

#endif
