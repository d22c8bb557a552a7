// SPDX-License-Identifier: Apache-2.0
// The plain forms: the definition of correct.
#ifndef IMF_KERNELS_CPU_PLAIN_H
#define IMF_KERNELS_CPU_PLAIN_H

#include "kernels/cpu/cpu.h"

Piece plain_rmsnorm_fwd, plain_rmsnorm_bwd_x, plain_rmsnorm_bwd_w, plain_rope, plain_swiglu_fwd, plain_swiglu_bwd, plain_add;
Piece plain_geglu_fwd, plain_geglu_bwd;
Piece plain_attn_fwd, plain_attn_bwd, plain_attn_decode, plain_logprob_fwd, plain_logprob_bwd, plain_adamw, plain_sqnorm;
Piece plain_pack16, plain_pack16_t, plain_round16, plain_widen16, plain_gemm_packed;

#endif
