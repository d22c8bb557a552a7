// SPDX-License-Identifier: Apache-2.0
// Logits on Hopper (ops_logprob_sm90.cu, compiled for sm_90a alone) for cuda_x of log-probabilities (ops_logprob.cu).
#ifndef IMF_CUDA_OPS_LOGPROB_HPP
#define IMF_CUDA_OPS_LOGPROB_HPP

#include "kernels/cuda/device.hpp"
#include "kernels/cuda/logits.cuh"

// What logprob_slices and logprob_gradient compute. R >= 1: tokens that have a target; the list and their hidden states are there by then.
Err sm90_logprob_slices(Ctx *ctx, const logprob::Logprob &l, int64_t R) ERR_MUST_CHECK;
Err sm90_logprob_gradient(Ctx *ctx, const logprob::Gradient &g, int64_t R) ERR_MUST_CHECK;

#endif
