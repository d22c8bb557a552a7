// SPDX-License-Identifier: Apache-2.0
// All arithmetic is double; the loss is rounded to float once, so that log1p(1) gives the float nearest to ln 2.
#include "train/loss.h"

#include <math.h>
#include <string.h>

Err dpo_spec(DpoSpec *out, const char *loss_type, double beta, double smoothing)
{
    bool norm = !strcmp(loss_type, "sigmoid_norm");
    CHECK(norm || !strcmp(loss_type, "sigmoid"), ERR_RECIPE, "loss_type '%s' is unknown; choose sigmoid or sigmoid_norm",
          loss_type);
    CHECK(beta > 0 && isfinite(beta), ERR_RECIPE, "beta is %g; it must be a positive number", beta);
    CHECK(smoothing >= 0 && smoothing < 0.5, ERR_RECIPE, "label_smoothing is %g; it must lie in [0, 0.5)", smoothing);
    *out = (DpoSpec){beta, smoothing, norm};
    return OK;
}

static double log_sigmoid(double u) { return fmin(u, 0.0) - log1p(exp(-fabs(u))); }
static double sigmoid(double u) { return u >= 0 ? 1.0 / (1.0 + exp(-u)) : exp(u) / (1.0 + exp(u)); }

PairLoss dpo_pair(const DpoSpec *s, const PairLogp *policy, const PairLogp *reference)
{
    PairLoss out;
    double ref[2], e = s->smoothing;
    for (int k = 0; k < 2; k++) {
        double n = s->length_norm ? (double)policy->n[k] : 1.0;
        out.logp[k] = policy->logp[k] / n;
        ref[k] = reference->logp[k] / n;
        out.reward[k] = s->beta * (out.logp[k] - ref[k]);
    }
    double u = s->beta * ((out.logp[0] - out.logp[1]) - (ref[0] - ref[1]));
    out.loss = (float)(-(1.0 - e) * log_sigmoid(u) - e * log_sigmoid(-u));
    double d = -s->beta * ((1.0 - e) * sigmoid(-u) - e * sigmoid(u));  // d loss / d LP(chosen)
    out.coef[0] = d / (s->length_norm ? (double)policy->n[0] : 1.0);
    out.coef[1] = -d / (s->length_norm ? (double)policy->n[1] : 1.0);
    return out;
}
