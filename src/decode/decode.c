// SPDX-License-Identifier: Apache-2.0
// Method: continuous batching. `slots` samples are in flight; a slot whose sample ends is refilled at once with the next
// sample of the current request, or of the next one, whose prompt is computed in between. Slots 0 .. active-1 are in use;
// the last one moves into a gap. Drawback: the other slots wait while a prompt is computed.
//
// Invariants: a prompt's pages are given back with its last sample; nothing is allocated in the loop once the longest
// request was seen.
#include "decode/decode.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "decode/step.h"

// A request with samples in flight.
typedef struct Work {
    DecodeRequest request;
    int32_t *page;  // [cap] pages of the prompt, owned
    int64_t pages, cap;
    int32_t started, ended;
    bool used;
} Work;

typedef struct Slot {
    Work *work;
    int32_t k;
    RngKey key;
    int32_t *id;   // [cap] output, owned
    int64_t n, cap;
    int64_t limit; // output ids at most
    uint8_t *seen; // [V], owned, where ops reach it; NULL until a request with a repetition penalty came by
    double logp;
    int64_t pages;  // own pages taken
} Slot;

typedef struct Engine {
    Ctx ctx;               // where the model is
    Step step;
    Sampler *sampler;
    const int32_t *extra_stop;
    int32_t extra_stops;
    const DecodeIo *io;
    Slot *slot;
    int32_t slots, active;
    Work *work;      // [slots + 1]
    Work *current;   // the request whose samples are being started, or NULL
    bool drained;    // next() has no more
    float *first;    // [V] logits behind the current request's prompt
    float *logits;   // [slots][V]
    SampleRow *row;  // [slots] draws of the step
    float *logp;     // [slots] theirs
    int32_t *token;  // [slots] to be fed next
} Engine;

const char *finish_name(FinishReason f) { return f == FINISH_STOP ? "stop" : "length"; }

static bool is_stop(const Engine *e, int32_t token)
{
    const ModelConfig *c = &e->step.model->cfg;
    for (int32_t i = 0; i < c->stops; i++)
        if (c->stop[i] == token) return true;
    for (int32_t i = 0; i < e->extra_stops; i++)
        if (e->extra_stop[i] == token) return true;
    return false;
}

static bool penalised(const DecodeRequest *r) { return r->params.repetition_penalty != 1.0; }

// --- requests --------------------------------------------------------------------------------------------------------

static Err check_request(const Engine *e, const DecodeRequest *r)
{
    const Model *m = e->step.model;
    ASSERT(r->n >= 1);
    TRY(sampler_check(&r->params));
    CHECK(r->prompt_len >= 1 && r->prompt_len < m->rope_positions, ERR_DATA,
          "a prompt of %lld tokens does not fit: %s takes 1 to %lld", (long long)r->prompt_len, m->dir ? m->dir : "the model",
          (long long)m->rope_positions - 1);
    for (int64_t i = 0; i < r->prompt_len; i++)
        CHECK(r->prompt[i] >= 0 && r->prompt[i] < m->cfg.V, ERR_DATA,
              "prompt id %d is outside the vocabulary of %lld; is this the model's own tokenizer?", (int)r->prompt[i],
              (long long)m->cfg.V);
    return OK;
}

static int64_t output_limit(const Engine *e, const DecodeRequest *r)
{
    const int64_t room = e->step.model->rope_positions - r->prompt_len;
    return r->params.max_new_tokens < room ? r->params.max_new_tokens : room;
}

// Asks for a request and computes its prompt; e->current stays NULL when there is none.
static Err start_request(Engine *e)
{
    bool have = true;
    Work *w = e->work;
    while (w->used) w++;  // slots + 1 entries, each used one but the current holds a slot
    TRY(e->io->next(e->io->user, &w->request, &have));
    e->drained = !have;
    if (!have) return OK;
    const DecodeRequest *r = &w->request;
    TRY(check_request(e, r));
    TRY(step_reserve(&e->step, r->prompt_len, output_limit(e, r)));
    TRY(MEM_GROW(&w->page, 0, &w->cap, kv_pages_for(r->prompt_len)));
    w->started = w->ended = 0;
    w->used = true;
    for (w->pages = 0; w->pages < kv_pages_for(r->prompt_len); w->pages++)
        TRY(kv_take(&e->step.kv, &w->page[w->pages]));
    TRY(step_prefill(&e->step, r->prompt, r->prompt_len, w->page, e->first));
    e->current = w;
    return e->io->tick ? e->io->tick(e->io->user) : OK;
}

static void end_request(Engine *e, Work *w)
{
    for (int64_t i = 0; i < w->pages; i++) kv_give(&e->step.kv, w->page[i]);
    w->used = false;
}

// --- samples ---------------------------------------------------------------------------------------------------------

static Err end_sample(Engine *e, Slot *s, FinishReason finish, int32_t stop_token)
{
    Work *w = s->work;
    const int32_t *page = e->step.tables.own_page + (s - e->slot) * e->step.tables.max_own;
    for (int64_t i = 0; i < s->pages; i++) kv_give(&e->step.kv, page[i]);
    w->ended++;
    DecodeResult r = {.request = &w->request, .k = s->k, .last = w->ended == w->request.n, .id = s->id, .n = s->n,
                      .finish = finish, .stop_token = stop_token, .logp = s->logp};
    TRY(e->io->done(e->io->user, &r));
    if (r.last) end_request(e, w);
    return OK;
}

// Draws a token behind each of `logits` [n][V] for the slots from `first` on: their rows and logp.
static Err draw(Engine *e, int64_t first, int64_t n, const float *logits)
{
    for (int64_t i = first; i < first + n; i++) {
        const Slot *s = &e->slot[i];
        const DecodeRequest *r = &s->work->request;
        e->row[i] = sampler_row(&r->params, penalised(r) ? s->seen : NULL, rng_uniform(s->key, (uint64_t)s->n));
    }
    const SampleArgs a = {logits, e->row + first, n, e->step.model->cfg.V};
    return sampler_draw_rows(e->sampler, &e->ctx, &a, e->logp + first);
}

// Takes the token that was drawn for a slot. *ended: the sample is over and was handed out; otherwise the token is to be fed.
static Err advance(Engine *e, Slot *s, bool *ended)
{
    const DecodeRequest *r = &s->work->request;
    SlotTables *t = &e->step.tables;
    const int64_t i = s - e->slot;
    const int32_t token = e->row[i].token;
    CHECK(token >= 0, ERR_INTERNAL, "the model's logits are not finite after %lld prompt and %lld output tokens",
          (long long)r->prompt_len, (long long)s->n);
    s->logp += (double)e->logp[i];
    if (e->io->drawn) ++*e->io->drawn;
    *ended = true;
    if (is_stop(e, token)) return end_sample(e, s, FINISH_STOP, token);
    s->id[s->n++] = token;
    if (s->n == s->limit) return end_sample(e, s, FINISH_LENGTH, -1);
    *ended = false;
    if (t->own_len[i] == s->pages * KV_PAGE) TRY(kv_take(&e->step.kv, &t->own_page[i * t->max_own + s->pages++]));
    t->own_len[i]++;
    e->token[i] = token;
    return OK;
}

static Err mark_prompt(Engine *e, Slot *s, const DecodeRequest *r)
{
    if (!penalised(r)) return OK;
    const int64_t V = e->step.model->cfg.V;
    if (!s->seen) TRY(ctx_alloc(&e->ctx, &s->seen, V, sizeof *s->seen));
    memset(s->seen, 0, (size_t)V);
    for (int64_t i = 0; i < r->prompt_len; i++) s->seen[r->prompt[i]] = 1;
    return OK;
}

// Starts the current request's next sample in the slot behind the active ones.
static Err start_sample(Engine *e)
{
    Work *w = e->current;
    const DecodeRequest *r = &w->request;
    const int64_t i = e->active;
    SlotTables *t = &e->step.tables;
    Slot *s = &e->slot[i];
    s->work = w;
    s->k = w->started++;
    s->key = rng_key_from_id(r->sample_id[s->k]);
    s->n = s->pages = 0;
    s->limit = output_limit(e, r);
    s->logp = 0;
    TRY(MEM_GROW(&s->id, 0, &s->cap, s->limit));
    TRY(mark_prompt(e, s, r));
    memcpy(t->prefix_page + i * t->max_prefix, w->page, (size_t)w->pages * sizeof *w->page);
    t->prefix_len[i] = (int32_t)r->prompt_len;
    t->own_len[i] = 0;
    if (w->started == r->n) e->current = NULL;
    bool ended;
    TRY(draw(e, i, 1, e->first));
    TRY(advance(e, s, &ended));
    if (!ended) e->active++;
    return OK;
}

static Err fill(Engine *e)
{
    while (e->active < e->slots) {
        if (!e->current && !e->drained) TRY(start_request(e));
        if (!e->current) return OK;
        TRY(start_sample(e));
    }
    return OK;
}

// Moves slot `from` to `to` (whose sample is over); the two swap their buffers.
static void move_slot(Engine *e, int64_t from, int64_t to)
{
    SlotTables *t = &e->step.tables;
    Slot swap = e->slot[to];
    e->slot[to] = e->slot[from];
    e->slot[from] = swap;
    e->token[to] = e->token[from];
    t->prefix_len[to] = t->prefix_len[from];
    t->own_len[to] = t->own_len[from];
    memcpy(t->prefix_page + to * t->max_prefix, t->prefix_page + from * t->max_prefix,
           (size_t)t->max_prefix * sizeof *t->prefix_page);
    memcpy(t->own_page + to * t->max_own, t->own_page + from * t->max_own, (size_t)t->max_own * sizeof *t->own_page);
}

// One token for every active slot. Backwards, so that the slot that fills a gap was advanced already.
static Err step_all(Engine *e)
{
    TRY(step_decode(&e->step, e->token, e->active, e->logits));
    TRY(draw(e, 0, e->active, e->logits));
    for (int64_t i = e->active - 1; i >= 0; i--) {
        bool ended;
        TRY(advance(e, &e->slot[i], &ended));
        if (ended && i != --e->active) move_slot(e, e->active, i);
    }
    return e->io->tick ? e->io->tick(e->io->user) : OK;
}

// --- life ------------------------------------------------------------------------------------------------------------

static Err open_engine(Engine *e, Ctx *ctx, const Model *m, int32_t slots)
{
    const int64_t V = m->cfg.V;
    e->slots = slots;
    e->ctx = *ctx;
    e->ctx.device = m->device;
    TRY(step_open(&e->step, &e->ctx, m, slots));
    TRY(sampler_new(&e->sampler, V));
    TRY(MEM_ARRAY(&e->slot, slots));
    TRY(MEM_ARRAY(&e->work, slots + 1));
    TRY(MEM_ARRAY(&e->token, slots));
    TRY(MEM_ARRAY(&e->logp, slots));
    TRY(ctx_alloc(&e->ctx, &e->row, slots, sizeof *e->row));
    TRY(ctx_alloc(&e->ctx, &e->first, V, sizeof *e->first));
    return ctx_alloc(&e->ctx, &e->logits, slots * V, sizeof *e->logits);
}

static void close_engine(Engine *e)
{
    for (int32_t i = 0; e->slot && i < e->slots; i++) {
        mem_free(e->slot[i].id);
        ctx_free(&e->ctx, e->slot[i].seen);
    }
    for (int32_t i = 0; e->work && i < e->slots + 1; i++) mem_free(e->work[i].page);
    mem_free(e->slot);
    mem_free(e->work);
    mem_free(e->token);
    mem_free(e->logp);
    ctx_free(&e->ctx, e->row);
    ctx_free(&e->ctx, e->first);
    ctx_free(&e->ctx, e->logits);
    sampler_free(e->sampler);
    step_close(&e->step);
}

// All samples in flight as long as they may get, and of as many prompts as they can be.
Err decode_need(Ctx *ctx, const Model *m, const DecodeShape *s, DecodeNeed *out)
{
    const int64_t V = m->cfg.V, before = mem_now(), prompts = (s->slots + s->n - 1) / s->n + (s->slots > 1);
    const SlotTables longest = {.slots = s->slots, .max_prefix = kv_pages_for(s->prompt_len), .max_own = kv_pages_for(s->new_tokens)};
    Sampler *sampler;
    TRY(sampler_new(&sampler, V));
    *out = (DecodeNeed){.sampler = mem_now() - before, .logits = (s->slots + 1) * V * (int64_t)sizeof(float)};
    sampler_free(sampler);
    out->kv = step_kv_bytes(ctx, m, s->slots, s->slots * longest.max_own + prompts * longest.max_prefix);
    out->rows = step_row_bytes(ctx, m, &longest, s->prompt_len);
    return OK;
}

Err decode_run(Ctx *ctx, const Model *m, int32_t slots, const int32_t *extra_stop, int32_t extra_stops, const DecodeIo *io)
{
    Engine e = {.extra_stop = extra_stop, .extra_stops = extra_stops, .io = io};
    Err err = OK;
    CHECK(slots >= 1, ERR_RECIPE, "slots is %d; it is the number of samples in flight, at least 1", (int)slots);
    TRY_DONE(open_engine(&e, ctx, m, slots));
    TRY_DONE(fill(&e));
    while (e.active > 0) {
        TRY_DONE(step_all(&e));
        TRY_DONE(fill(&e));
    }
done:
    close_engine(&e);
    return err;
}
