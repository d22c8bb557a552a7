// SPDX-License-Identifier: Apache-2.0
// imf sft: supervised fine-tuning of the target model on SFT rows (or on a user's file: sft.data).
#include <string.h>

#include "stage/stage.h"
#include "train/finetune.h"

Err stage_sft(const Job *job)
{
    FineTune f = {.ctx = job->ctx, .deck = job->deck, .run_dir = job->run_dir, .stage = "sft", .set = SET_SFT};
    TRY(deck_need(job->deck, "target.path", &f.base));
    f.random = !strcmp(deck_str(job->deck, "target.init"), "random");
    return finetune(&f);
}
