// SPDX-License-Identifier: Apache-2.0
// The reward model's opinion of the answers: a column of the table that decides nothing.
//
// Answers are dealt round robin in id order; the ids are those of the text rendered by the reward model's own template.
// Record of run_dir/eval/NAME.scores: {"prompt","score"} or {"prompt","unscored": reason}. Drawback: two models' answers to
// one prompt are computed without sharing the prompt (few thousand short rows).
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/fit.h"
#include "model/reward.h"
#include "par/par.h"
#include "stage/eval_parts.h"
#include "text/chat.h"
#include "text/prompt.h"
#include "text/record.h"

enum { BATCH = 16 };  // rows a forward; changes speed and memory, no result

typedef struct Scoring {
    RewardModel reward;
    Tokenizer *tok;
    const ChatTemplate *chat;
    RecordSet *answers, *had;
    RecordWriter *writer;
    int64_t max_length;
    Ids ids[BATCH];            // rendered conversations
    RewardInput in[BATCH];
    const EvalItem *item[BATCH];
    int count;
    Arena arena;
} Scoring;

static Err open_reward(const Job *job, Scoring *s)
{
    const char *dir = deck_str(job->deck, "reward.path");
    s->max_length = deck_i64(job->deck, "reward.max_length");
    TRY(par_agree(tok_load(dir, &s->tok)));
    TRY(par_agree(chat_template(s->tok, deck_str(job->deck, "reward.template"), &s->chat)));
    TRY(par_agree(model_check_tokenizer(dir, s->tok, s->chat)));
    return par_agree(reward_load(&s->reward, job->ctx, dir, true));
}

// The whole conversation: the prompt's messages and the answer.
static Err render(const Scoring *s, const EvalItem *e, const char *answer, Ids *out)
{
    Message *prompt = NULL, *all = NULL;
    int64_t n;
    Err err = OK;
    TRY(prompt_messages(e->data, e->set, &prompt, &n));
    TRY_DONE(MEM_ARRAY(&all, n + 1));
    memcpy(all, prompt, (size_t)n * sizeof *all);
    all[n] = (Message){"assistant", answer};
    TRY_DONE(chat_conversation(s->chat, s->tok, all, n + 1, false, out));
done:
    mem_free(all);
    mem_free(prompt);
    return err;
}

static Err write_score(Scoring *s, const EvalItem *e, double score, const char *unscored)
{
    json_t *data = unscored ? json_pack("{s:o, s:s}", "prompt", json_id(e->prompt), "unscored", unscored)
                            : json_pack("{s:o, s:f}", "prompt", json_id(e->prompt), "score", score);
    CHECK(data, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = record_write(s->writer, e->id, data, NULL);
    json_decref(data);
    return err;
}

// Renders one answer into the batch; one that cannot be scored is recorded at once.
static Err put_item(Scoring *s, const EvalItem *e, const char *where)
{
    json_t *data;
    const char *answer;
    Err err = OK;
    Ids *ids = &s->ids[s->count];
    int64_t at = record_find(s->answers, e->id);
    CHECK(at >= 0, ERR_INTERNAL, "%s misses an answer", where);
    TRY(record_read(s->answers, at, &data));
    ids->n = 0;
    TRY_DONE(json_get_text(data, "text", where, &answer));
    TRY_DONE(render(s, e, answer, ids));
    int64_t gating = reward_gating_position(&s->reward.head, ids->id, ids->n);
    if (ids->n > s->max_length) TRY_DONE(write_score(s, e, 0, "longer than reward.max_length"));
    else if (gating < 0) TRY_DONE(write_score(s, e, 0, "no gating pattern"));
    else {
        s->in[s->count] = (RewardInput){ids->id, ids->n, gating};
        s->item[s->count++] = e;
    }
done:
    json_decref(data);
    return err;
}

static Err score_batch(Scoring *s, const Job *job)
{
    const int64_t K = s->reward.head.objectives;
    double score[BATCH];
    RewardScores all = {.score = score};
    arena_reset(&s->arena);
    TRY(ARENA_ARRAY(&s->arena, &all.objectives, s->count * K));
    TRY(ARENA_ARRAY(&s->arena, &all.gate, s->count * K));
    TRY(reward_score(job->ctx, &s->reward, &s->arena, s->in, s->count, &all));
    for (int i = 0; i < s->count; i++) TRY(write_score(s, s->item[i], score[i], NULL));
    s->count = 0;
    return OK;
}

static Err score_share(Scoring *s, const Job *job, const EvalModel *m, const EvalItems *items)
{
    for (int64_t i = par_rank(); i < items->n; i += par_size()) {
        TRY(par_stop_check("eval"));
        if (record_find(s->had, items->item[i].id) < 0) TRY(put_item(s, &items->item[i], m->answers));
        if (s->count == BATCH) TRY(score_batch(s, job));
    }
    return s->count ? score_batch(s, job) : OK;
}

static Err make_header(const Scoring *s, const Id *answers, json_t **out)
{
    *out = json_pack("{s:{s:o, s:o, s:s*}}", "inputs", "answers", json_id(*answers), "reward", json_id(s->reward.fingerprint), "device",
                     reward_device(&s->reward));
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err score_all(Scoring *s, const Job *job, const EvalModel *m, const EvalItems *items, const json_t *header)
{
    TRY(record_open(&s->had, job->run_dir, m->scores));
    TRY(par_agree(record_create(&s->writer, job->run_dir, m->scores, header)));
    par_stop_watch();
    Err err = score_share(s, job, m, items);
    Err closed = record_close(s->writer);
    return par_agree(err != OK ? err : closed);
}

Err eval_score(const Job *job, const EvalModel *m, const EvalItems *items)
{
    Scoring *s;
    json_t *header = NULL;
    Id digest;
    bool done;
    Err err = OK;
    if (!*deck_str(job->deck, "reward.path")) return OK;
    TRY(par_agree(MEM_ARRAY(&s, 1)));
    TRY_DONE(open_reward(job, s));
    s->arena.source = reward_memory(&s->reward);
    TRY_DONE(record_require(&s->answers, job->run_dir, m->answers, "eval", &digest));
    TRY_DONE(par_agree(make_header(s, &digest, &header)));
    TRY_DONE(record_begin(job->run_dir, m->scores, header, &done));
    if (!done) TRY_DONE(score_all(s, job, m, items, header));
    TRY_DONE(record_finish(job->run_dir, m->scores, &digest));
done:
    if (s->answers) record_free(s->answers);
    if (s->had) record_free(s->had);
    arena_free(&s->arena);
    reward_free(&s->reward);
    tok_free(s->tok);
    for (int i = 0; i < BATCH; i++) ids_free(&s->ids[i]);
    json_decref(header);
    mem_free(s);
    return err;
}
