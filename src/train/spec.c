// SPDX-License-Identifier: Apache-2.0
#include "train/spec.h"

#include <stdio.h>
#include <string.h>

#include "par/par.h"

typedef struct Section {
    const Deck *deck;
    const char *name;
    char path[96];
} Section;

static const char *key(Section *s, const char *name)
{
    snprintf(s->path, sizeof s->path, "%s.%s", s->name, name);
    return s->path;
}
static double real(Section *s, const char *name) { return deck_f64(s->deck, key(s, name)); }
static int64_t whole(Section *s, const char *name) { return deck_i64(s->deck, key(s, name)); }
static const char *text(Section *s, const char *name) { return deck_str(s->deck, key(s, name)); }

Err train_spec(TrainSpec *o, const Deck *deck, const char *stage, const char *run_dir, bool pairs)
{
    Section s = {.deck = deck, .name = stage};
    *o = (TrainSpec){.stage = stage, .run_dir = run_dir, .pairs = pairs, .seed = (uint64_t)deck_i64(deck, "seed")};
    o->learning_rate = real(&s, "learning_rate"), o->epochs = real(&s, "num_train_epochs");
    o->warmup_ratio = real(&s, "warmup_ratio"), o->val_size = real(&s, "val_size");
    o->scheduler = text(&s, "lr_scheduler_type");
    o->max_steps = whole(&s, "max_steps"), o->global_batch = whole(&s, "global_batch");
    o->max_length = whole(&s, "max_length"), o->row_tokens = whole(&s, "row_tokens");
    o->micro_rows = whole(&s, "micro_rows"), o->grad_chains = whole(&s, "grad_chains");
    o->inexact = !deck_bool(deck, "exact");
    if (o->inexact) o->grad_chains = par_size();
    o->logging_steps = whole(&s, "logging_steps"), o->save_steps = whole(&s, "save_steps");
    o->save_seconds = whole(&s, "save_seconds"), o->save_keep_every = whole(&s, "save_keep_every");
    o->ranks_per_file = whole(&s, "ranks_per_file");
    o->save_total_limit = whole(&s, "save_total_limit"), o->eval_steps = whole(&s, "eval_steps");
    o->tensorboard = deck_bool(deck, "tensorboard");
    o->keep_start = !strcmp(text(&s, "truncation"), "keep_start");
    o->optim = (OptimSpec){.beta1 = real(&s, "adam_beta1"), .beta2 = real(&s, "adam_beta2"), .eps = real(&s, "adam_epsilon"),
                           .decay = real(&s, "weight_decay"), .max_norm = real(&s, "max_grad_norm")};
    if (!pairs) return OK;
    return dpo_spec(&o->dpo, text(&s, "loss_type"), real(&s, "beta"), real(&s, "label_smoothing"));
}

Err train_spec_hash(const TrainSpec *s, Id *out)
{
    Hash *h;
    const double real_keys[] = {s->learning_rate, s->epochs, s->warmup_ratio, s->val_size, s->optim.beta1, s->optim.beta2,
                                s->optim.eps, s->optim.decay, s->optim.max_norm, s->dpo.beta, s->dpo.smoothing};
    const int64_t whole_keys[] = {s->max_steps, s->global_batch, s->max_length, s->row_tokens,
                                  s->inexact ? 0 : s->grad_chains,  // which is the number of ranks then
                                  s->keep_start, (int64_t)s->seed, s->pairs, s->dpo.length_norm};
    TRY(hash_new(&h));
    hash_add_text(h, s->stage);
    hash_add_text(h, s->scheduler);
    for (size_t i = 0; i < sizeof real_keys / sizeof real_keys[0]; i++) hash_add_f64(h, real_keys[i]);
    for (size_t i = 0; i < sizeof whole_keys / sizeof whole_keys[0]; i++) hash_add_i64(h, whole_keys[i]);
    *out = hash_end(h);
    return OK;
}
