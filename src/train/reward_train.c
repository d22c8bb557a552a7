// SPDX-License-Identifier: Apache-2.0
#include "train/reward_train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "model/fit.h"
#include "par/par.h"
#include "train/reward_backbone.h"
#include "train/reward_heads.h"

enum { FEATURE_BATCH = 16 };  // conversations of one forward

typedef struct Work {
    Ctx *ctx;
    const Deck *deck;
    const char *run_dir, *base;
    Tokenizer *tok;
    const ChatTemplate *chat;
    Model model;   // master
    Compute on;
    RewardHead head;
    RewardData data;
    Features features;
    HeadSpec spec;
    int64_t right, n;  // held-out accuracy
} Work;

// --- features: rank r computes every r-th conversation; a conversation is a row of its own, so its bits are its own -----------

static Err own_features(const Work *w, float *last, float *gating)
{
    const RewardData *d = &w->data;
    int64_t H = w->model.cfg.H, ranks = par_size(), n = 0, filled = 0, tokens = 0;
    RewardInput in[FEATURE_BATCH];
    Arena arena = {.source = w->on.source};
    Progress p;
    Err err = OK;
    progress_start(&p, "reward", d->answers, "answers");
    for (int64_t i = par_rank(); i < d->answers; i += ranks) {
        in[n++] = (RewardInput){d->answer[i].id, d->answer[i].n, d->answer[i].gating};
        tokens += d->answer[i].n;
        if (n < FEATURE_BATCH && i + ranks < d->answers) continue;
        arena_reset(&arena);
        TRY_DONE(reward_hidden(w->ctx, w->on.model, &arena, in, n, last + filled * H, gating + filled * H));
        filled += n, n = 0;
        progress_show(&p, i + 1, tokens);
    }
    progress_end(&p, d->answers, tokens);
done:
    arena_free(&arena);
    return err;
}

// Rank r's k-th vector belongs to answer r + k * ranks.
static Err gather(const float *own, int64_t mine, int64_t answers, int64_t H, float **out)
{
    float *all = NULL;
    int64_t bytes, at = 0;
    TRY(par_agree(MEM_ARRAY(out, answers * H)));
    TRY(par_allgather(own, mine * H * (int64_t)sizeof(float), &all, &bytes, NULL));
    for (int64_t r = 0; r < par_size(); r++)
        for (int64_t i = r; i < answers; i += par_size(), at += H) memcpy(*out + i * H, all + at, (size_t)H * sizeof(float));
    mem_free(all);
    return OK;
}

static Err features(Work *w)
{
    int64_t H = w->model.cfg.H, n = w->data.answers, mine = (n - par_rank() + par_size() - 1) / par_size();
    float *last = NULL, *gating = NULL;
    Err err = OK;
    if (mine < 0) mine = 0;
    err = MEM_ARRAY(&last, mine * H);
    if (err == OK) err = MEM_ARRAY(&gating, mine * H);
    TRY_DONE(par_agree(err));
    TRY_DONE(par_agree(own_features(w, last, gating)));
    TRY_DONE(gather(last, mine, n, H, &w->features.last));
    TRY_DONE(gather(gating, mine, n, H, &w->features.gating));
    for (int64_t i = 0; i < n * H; i++)
        CHECK_DONE(isfinite(w->features.last[i]) && isfinite(w->features.gating[i]), ERR_INTERNAL, "a hidden state is not finite");
done:
    mem_free(last);
    mem_free(gating);
    return err;
}

// --- heads and result (rank 0) -------------------------------------------------------------------------------------------------

// Wilson's 95 % interval of right / n.
static void interval(int64_t right, int64_t n, double out[2])
{
    double z = 1.959964, m = (double)n, p = (double)right / m, mid = (p + z * z / (2 * m)) / (1 + z * z / m);
    double half = z * sqrt(p * (1 - p) / m + z * z / (4 * m * m)) / (1 + z * z / m);
    out[0] = mid - half, out[1] = mid + half;
}

static Err report(Work *w, bool held, const char *what)
{
    double range[2];
    int64_t right, n;
    TRY(heads_accuracy(&w->data, &w->features, &w->head, held, &right, &n));
    if (held) w->right = right, w->n = n;
    if (!n) return OK;
    interval(right, n, range);
    log_info("reward", "%s: the better answer wins in %lld of %lld pairs: %.2f %% (%.2f .. %.2f)", what, (long long)right,
             (long long)n, 100.0 * (double)right / (double)n, 100 * range[0], 100 * range[1]);
    return OK;
}

static Err card(const Work *w, Str *out)
{
    double range[2] = {0, 0};
    char hash[ID_TEXT];
    id_print(w->data.hash, hash);
    if (w->n) interval(w->right, w->n, range);
    TRY(str_printf(out, "# Reward model written by imf reward %s\n\n- base model: %s\n- data: %lld answers, %lld pairs, hash %s\n"
                   "- held-out pairs: %lld of %lld right (95 %% interval %.4f .. %.4f)\n\n## Recipe\n\n```yaml\n", imf_version,
                   io_basename(w->base), (long long)w->data.answers, (long long)w->data.pairs, hash, (long long)w->right,
                   (long long)w->n, range[0], range[1]));
    TRY(deck_print(w->deck, out));
    return str_puts(out, "```\n");
}

static Err save(const Work *w)
{
    char dir[IO_PATH], path[IO_PATH];
    Str text = {0};
    Err err = OK;
    TRY(io_join(dir, w->run_dir, "reward"));
    TRY(io_mkdirs(dir));
    TRY(io_join(path, dir, "model"));
    TRY_DONE(card(w, &text));
    TRY_DONE(reward_save(&w->model, &w->head, w->base, path, w->model.cfg.storage, str_text(&text)));
    log_info("reward", "reward model written to %s", path);
done:
    str_free(&text);
    return err;
}

static Err heads(Work *w)
{
    TRY(heads_ridge(&w->data, &w->features, &w->spec, &w->head));
    TRY(heads_verbosity(&w->data, &w->features, &w->spec, &w->head));
    TRY(heads_gate(w->ctx, &w->data, &w->features, &w->spec, &w->head));
    TRY(heads_scale(&w->data, &w->features, &w->spec, &w->head));
    TRY(report(w, false, "training pairs"));
    TRY(report(w, true, "held-out pairs"));
    return save(w);
}

// --- opening -------------------------------------------------------------------------------------------------------------------

static Err head_spec(Work *w)
{
    const Deck *d = w->deck;
    const char *verbosity = deck_str(d, "reward_train.verbosity");
    w->spec = (HeadSpec){.seed = (uint64_t)deck_i64(d, "seed"), .gate_steps = deck_i64(d, "reward_train.gate_steps"),
                         .gate_batch = deck_i64(d, "reward_train.gate_batch"),
                         .gate_lr = deck_f64(d, "reward_train.gate_learning_rate"),
                         .gate_dropout = deck_f64(d, "reward_train.gate_dropout"), .span = deck_f64(d, "reward_train.span"),
                         .verbosity = -1};
    for (int64_t k = 0; k < w->data.objectives; k++)
        if (!strcmp(w->data.name[k], verbosity)) w->spec.verbosity = k;
    CHECK(!*verbosity || w->spec.verbosity >= 0, ERR_RECIPE, "reward_train.verbosity: no objective of the data is called '%s'", verbosity);
    return OK;
}

// The real head needs the number of objectives, which the data know; the data need the gating pattern.
static Err open_data(Work *w)
{
    RewardHead pattern = {0};
    const Deck *d = w->deck;
    TRY(tok_load(w->base, &w->tok));
    TRY(chat_template(w->tok, deck_str(d, "reward_train.template"), &w->chat));
    TRY(model_check_tokenizer(w->base, w->tok, w->chat));
    TRY(reward_pattern(w->chat, w->tok, &pattern));
    TRY(reward_data_load(d, w->run_dir, &pattern, w->chat, w->tok, &w->data));
    TRY(head_spec(w));
    TRY(reward_head_new(&w->head, w->model.cfg.H, w->data.objectives, deck_i64(d, "reward_train.gate_hidden"),
                        deck_i64(d, "reward_train.gate_layers"), w->data.name));
    memcpy(w->head.pattern, pattern.pattern, sizeof pattern.pattern);
    w->head.pattern_len = pattern.pattern_len;
    w->head.temperature = (float)deck_f64(d, "reward_train.gate_temperature");
    int64_t held = 0;
    for (int64_t i = 0; i < w->data.rows; i++) held += w->data.held[i];
    log_info("reward", "%lld prompts (%lld held out), %lld answers, %lld pairs, %lld objectives; %lld duplicates, %lld answers too long",
             (long long)w->data.rows, (long long)held, (long long)w->data.answers, (long long)w->data.pairs,
             (long long)w->data.objectives, (long long)w->data.duplicates, (long long)w->data.too_long);
    return OK;
}

// Tokens inside the vocabulary, positions inside the model.
static Err check_fit(const Work *w)
{
    CHECK(w->data.longest <= w->model.cfg.max_positions, ERR_RECIPE,
          "the longest conversation takes %lld tokens, the model has %lld positions; lower reward_train.max_length",
          (long long)w->data.longest, (long long)w->model.cfg.max_positions);
    for (int64_t i = 0; i < w->data.answers; i++)
        TRY(model_check_ids(&w->model, w->data.answer[i].id, w->data.answer[i].n));
    return OK;
}

static void close_all(Work *w)
{
    mem_free(w->features.last);
    mem_free(w->features.gating);
    reward_data_free(&w->data);
    reward_head_free(&w->head);
    tok_free(w->tok);
    compute_close(&w->on);
    model_free(&w->model);
}

Err reward_train(Ctx *ctx, const Deck *deck, const char *run_dir)
{
    Work w = {.ctx = ctx, .deck = deck, .run_dir = run_dir};
    Err err = OK;
    TRY_DONE(deck_need(deck, "reward_train.base", &w.base));
    TRY_DONE(model_load(&w.model, w.base, par_size() > 1));
    TRY_DONE(compute_open(&w.on, ctx, &w.model));
    w.on.shard_grads = !strcmp(deck_str(deck, "shard"), "grads");
    TRY_DONE(par_agree(open_data(&w)));
    TRY_DONE(par_agree(check_fit(&w)));
    TRY_DONE(reward_backbone(&w.on, deck, &w.data));
    TRY_DONE(features(&w));
    TRY_DONE(par_agree(par_rank() == 0 ? heads(&w) : OK));
done:
    close_all(&w);
    return err;
}
