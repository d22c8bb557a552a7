// SPDX-License-Identifier: Apache-2.0
// The losses over log-probabilities and their derivatives. Host arithmetic on a few numbers per example; the heavy part
// (log-probabilities of tokens) is op_logprob_*.
//
//   SFT     loss = - sum over target tokens of log p / target tokens of the step
//   DPO     u = beta * ((LP(w) - LP(l)) - (LPref(w) - LPref(l))), loss = -log sigmoid(u), mean over the pairs of the step
//           (Rafailov et al. 2023, eq. 7); with label smoothing e: -(1 - e) log sigmoid(u) - e log sigmoid(-u)
//   LN-DPO  every LP divided by its own answer's tokens, the stop token included (TRL: sigmoid_norm)
#ifndef IMF_TRAIN_LOSS_H
#define IMF_TRAIN_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct DpoSpec {
    double beta, smoothing;
    bool length_norm;
} DpoSpec;

// loss_type: sigmoid | sigmoid_norm; ERR_RECIPE otherwise and for impossible numbers.
Err dpo_spec(DpoSpec *out, const char *loss_type, double beta, double smoothing) ERR_MUST_CHECK;

typedef struct PairLogp {      // sums over the tokens of each answer
    double logp[2];            // chosen, rejected
    int32_t n[2];              // tokens
    int32_t best;              // SFT: targets that no other token is more likely than
} PairLogp;

typedef struct PairLoss {
    float loss;        // of this pair; exactly ln 2 (0x3F317218) while policy and reference agree bit for bit
    double coef[2];    // d loss / d logp of one token of chosen, rejected
    double reward[2];  // beta * (LP - LPref), normalised with length_norm
    double logp[2];    // LP as logged: normalised with length_norm
} PairLoss;

PairLoss dpo_pair(const DpoSpec *spec, const PairLogp *policy, const PairLogp *reference);

#endif
