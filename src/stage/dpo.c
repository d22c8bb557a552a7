// SPDX-License-Identifier: Apache-2.0
// imf dpo: DPO or LN-DPO on preference pairs (or on a user's file: dpo.data), from the run's SFT model when there is one.
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "stage/stage.h"
#include "train/finetune.h"

// The model to start from: dpo.base, else run_dir/sft/model, else target.path. A random target has no weights to prefer with.
static Err base_model(const Job *job, char sft[IO_PATH], const char **out)
{
    *out = deck_str(job->deck, "dpo.base");
    if (**out) return OK;
    TRY(io_join(sft, job->run_dir, "sft/model"));
    *out = sft;
    if (io_is_dir(sft)) return OK;
    CHECK(strcmp(deck_str(job->deck, "target.init"), "random"), ERR_RECIPE,
          "target.init is random and %s does not exist: run imf sft first or set dpo.base", sft);
    return deck_need(job->deck, "target.path", out);
}

Err stage_dpo(const Job *job)
{
    char sft[IO_PATH];
    FineTune f = {.ctx = job->ctx, .deck = job->deck, .run_dir = job->run_dir, .stage = "dpo", .pairs = true,
                  .set = SET_PAIRS};
    TRY(base_model(job, sft, &f.base));
    log_info("dpo", "from %s", f.base);
    return finetune(&f);
}
