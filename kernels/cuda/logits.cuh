// SPDX-License-Identifier: Apache-2.0
// What the kernels of log-probabilities share in both forms (logprob.cuh, logprob_sm90.cuh): their arguments, a logit, a slice of a row. No
// kernels, so that a file which is compiled for one architecture alone may include it.
#ifndef IMF_CUDA_LOGITS_CUH
#define IMF_CUDA_LOGITS_CUH

#include "kernels/cuda/math.cuh"
#include "kernels/cuda/product.cuh"

namespace logprob {

enum { SLICE = 64, LISTED = 8 };  // columns of a part; where the list of tokens begins, as a sector does

// Slices of the vocabulary that the forward writes.
BOTH int slices_of(int V) { return (V + product::SIDE - 1) / product::SIDE * (product::SIDE / SLICE); }

// The greatest logit of a slice, and the sum of 2^(log2 e (x - most)).
struct Part {
    float most, sum;
};

struct Logprob {
    const uint16_t *head;           // [V][H] bf16
    const int32_t *target;          // [T]; < 0: no target
    uint16_t *hidden;               // [R][H] scratch: bf16, of the tokens that have a target
    int64_t hidden_stride, head_stride;
    int32_t *list, *place;          // [LISTED + T] scratch: R, and from LISTED on those tokens; [T] scratch: a token's place among them, or -1
    int T, H, V;
    float softcap;                  // 0: none
    Part *part;                     // [slices][T] scratch
    float *picked;                  // [T] scratch: the target's logit
    float *logp, *lse;              // [T], 0 without a target; logp NULL: lse is known, nothing is written
    uint8_t *best;                  // [T] or NULL: 1 where no token is more likely than the target
};

struct Gradient {
    Logprob of;          // its inputs, list and lse
    const float *coef;   // [T]
    uint16_t *out;       // [R][stride] bf16: columns of the vocabulary from `first` on
    int64_t stride;      // a multiple of 8
    int first, width;    // width: columns that are written, a multiple of 8; zero from V on
};

// Column `column` of a tile whose first is token `first` of the vocabulary; -inf beyond it.
DEVICE float logit(const Logprob &a, float x, int token, float *slope)
{
    *slope = 1;
    if (a.softcap > 0) x = soft_cap(x, a.softcap, slope);
    return token < a.V ? x : -INFINITY;
}

DEVICE Part load_part(const Part *p)
{
    const float2 v = ld_v2(&p->most);
    return {v.x, v.y};
}
DEVICE void store_part(Part *p, const Part &v) { st_v2(&p->most, {v.most, v.sum}); }

// A row's share of four lanes: greatest and sum over the 64 columns of x[from] to x[from + 7].
template <int N> DEVICE Part slice_of(const float (&x)[N][4], int from, int e)
{
    Part p = {-INFINITY, 0};
#pragma unroll
    for (int j = from; j < from + SLICE / 8; j++) p.most = fmaxf(p.most, fmaxf(x[j][e], x[j][e + 1]));
    p.most = quad_max(p.most);
    const float base = p.most == -INFINITY ? 0 : p.most;
#pragma unroll
    for (int j = from; j < from + SLICE / 8; j++) p.sum += ex2((x[j][e] - base) * LOG2E) + ex2((x[j][e + 1] - base) * LOG2E);
    p.sum = quad_sum(p.sum);
    return p;
}

}  // namespace logprob

#endif
