// SPDX-License-Identifier: Apache-2.0
// DPO and LN-DPO of pairs from the log-probabilities of their tokens, as src/train/loss.c computes them: the answers' sums, the loss, and one
// coefficient a token for logprob_gradient. Arithmetic on a few numbers a pair: double.
#ifndef IMF_CUDA_DPO_CUH
#define IMF_CUDA_DPO_CUH

#include "kernels/cuda/ptx.cuh"

namespace dpo {

enum { CHOSEN = 0, REJECTED = 1, ANSWERS = 2, THREADS = 32 * ANSWERS };

// Tokens of the two answers; tokens of a row whose target belongs to another pair do not lie between them.
struct Pair {
    int32_t from[ANSWERS], to[ANSWERS];
};

// Sums of log-probabilities, and tokens.
struct Answers {
    double logp[ANSWERS];
    int32_t n[ANSWERS];
};

struct Loss {
    float loss;              // of this pair; exactly ln 2 while policy and reference agree bit for bit
    double reward[ANSWERS];  // beta (LP - LPref)
    double logp[ANSWERS];    // LP, divided by the answer's tokens with length_norm
};

struct Dpo {
    const Pair *pair;
    const int32_t *target;     // [T]; < 0: no target
    const float *logp;         // [T]
    const Answers *reference;  // [pairs], or NULL: `sums` alone are wanted
    Answers *sums;             // [pairs]
    Loss *loss;                // [pairs]
    float *coef;               // [T]: written for the tokens of answers
    double beta, smoothing, weight;  // weight: 1 / pairs of the step
    bool length_norm;
};

// Of one answer, by one warp: each lane every 32nd token, then halves are added.
DEVICE void sum_answer(Answers *out, const Dpo &a, int k)
{
    const int lane = (int)threadIdx.x % 32, to = a.pair[blockIdx.x].to[k];
    double sum = 0;
    int n = 0;
    for (int t = a.pair[blockIdx.x].from[k] + lane; t < to; t += 32) {
        sum += a.target[t] >= 0 ? (double)a.logp[t] : 0;
        n += a.target[t] >= 0;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        sum += shuffle_double(sum, lane ^ step);
        n += __shfl_xor_sync(~0u, n, step);
    }
    if (lane > 0) return;
    out->logp[k] = sum;
    out->n[k] = n;
}

// What the lanes of both answers tell each other.
struct Shared {
    Answers sums;
    double logp[ANSWERS], ref[ANSWERS], coef[ANSWERS], per[ANSWERS];  // per: 1, or 1 / tokens
};

// LP and LPref of an answer.
DEVICE void weigh_answer(Shared *s, const Dpo &a, int k)
{
    const double per = a.length_norm ? 1.0 / (double)s->sums.n[k] : 1.0;
    Loss *out = &a.loss[blockIdx.x];
    s->logp[k] = s->sums.logp[k] * per;
    s->ref[k] = a.reference[blockIdx.x].logp[k] * per;
    out->logp[k] = s->logp[k];
    s->per[k] = per;
    out->reward[k] = a.beta * (s->logp[k] - s->ref[k]);
}

// The loss, and d loss / d log-probability of one token of an answer.
DEVICE void weigh_pair(Shared *s, const Dpo &a)
{
    const double e = a.smoothing, u = a.beta * ((s->logp[CHOSEN] - s->logp[REJECTED]) - (s->ref[CHOSEN] - s->ref[REJECTED]));
    const double x = exp(-fabs(u)), log_x = log1p(x), high = 1.0 / (1.0 + x), low = x * high;  // sigmoid of |u| and of -|u|
    const double d = -a.beta * ((1.0 - e) * (u >= 0 ? low : high) - e * (u >= 0 ? high : low));
    a.loss[blockIdx.x].loss = (float)(-(1.0 - e) * (fmin(u, 0.0) - log_x) - e * (fmin(-u, 0.0) - log_x));
    s->coef[CHOSEN] = d, s->coef[REJECTED] = -d;
}

}  // namespace dpo

// A block a pair, a warp an answer.
inline __global__ void __launch_bounds__(dpo::THREADS) dpo_pairs(const dpo::Dpo a)
{
    using namespace dpo;
    SHARED_MEMORY(shared);
    Shared *s = (Shared *)shared;
    const int k = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    sum_answer(&s->sums, a, k);
    __syncthreads();
    if (threadIdx.x == 0) a.sums[blockIdx.x] = s->sums;
    if (!a.reference) return;
    if (lane == 0) weigh_answer(s, a, k);
    __syncthreads();
    if (threadIdx.x == 0) weigh_pair(s, a);
    __syncthreads();
    const float mine = (float)(s->coef[k] * s->per[k] * a.weight);
    const int to = a.pair[blockIdx.x].to[k];
    for (int t = a.pair[blockIdx.x].from[k] + lane; t < to; t += 32) a.coef[t] = a.target[t] >= 0 ? mine : 0;
}

#endif
