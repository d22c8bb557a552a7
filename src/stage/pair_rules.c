// SPDX-License-Identifier: Apache-2.0
// One pass over the prompts finds each one's best answer and possible pairs; a second one splits each data set by the
// prompts' random draws. Everything is a function of (answers, rules): no input order, no rank.
#include "stage/pair_rules.h"

#include <math.h>
#include <stddef.h>

#include "base/mem.h"

static int compare_answers(const void *pa, const void *pb)
{
    const PairAnswer *a = pa, *b = pb;
    int order = id_compare(a->prompt, b->prompt);
    if (order) return order;
    if (a->source != b->source) return a->source < b->source ? -1 : 1;
    if (a->k != b->k) return a->k < b->k ? -1 : 1;
    return id_compare(a->id, b->id);
}

Err pair_order(PairAnswer *a, int64_t answers, PairPrompt *p, int64_t prompts)
{
    MEM_SORT(a, answers, compare_answers);
    int64_t at = 0;
    for (int64_t i = 0; i < prompts; i++) {
        p[i].first = at;
        while (at < answers && id_equal(a[at].prompt, p[i].id)) at++;
        p[i].n = at - p[i].first;
    }
    if (at == answers) return OK;
    char sample[ID_TEXT], prompt[ID_TEXT];
    id_print(a[at].id, sample);
    id_print(a[at].prompt, prompt);
    FAIL(ERR_DATA, "sample %s belongs to prompt %s, which is not in this run directory", sample, prompt);
}

int64_t pair_share(double fraction, int64_t n) { return (int64_t)floor(fraction * (double)n + 1e-9); }

static const char *reason_left_out(const PairRules *r, PairKind kind, const PairAnswer *a)
{
    if (!a->scored) return "unscored";
    if (kind == PAIR_IF) return NULL;
    if (a->verdict == PAIR_UNJUDGED) return "no verdict";
    if (a->verdict == PAIR_UNDECIDED) return "undecided";
    if (a->weak && !r->allow_weak) return "weak verdict";
    return NULL;
}

// Can the answer be on the good (or bad) side?
static bool fits(PairKind kind, const PairAnswer *a, bool good)
{
    if (a->left_out || (good && a->not_chosen)) return false;
    return kind == PAIR_IF || a->verdict == (good ? PAIR_RIGHT : PAIR_WRONG);
}

// First answer with the highest (or lowest) score of those that fit; -1: none.
static int64_t extreme(PairKind kind, const PairAnswer *a, int64_t from, int64_t to, bool good)
{
    int64_t best = -1;
    for (int64_t i = from; i < to; i++) {
        if (!fits(kind, &a[i], good)) continue;
        if (best < 0 || (good ? a[i].score > a[best].score : a[i].score < a[best].score)) best = i;
    }
    return best;
}

static bool all_identical(const PairAnswer *a, int64_t from, int64_t to)
{
    for (int64_t i = from + 1; i < to; i++)
        if (!id_equal(a[i].text, a[from].text)) return false;
    return true;
}

static const char *reason_no_pair(const PairRules *r, PairKind kind, const PairAnswer *a, int64_t chosen, int64_t rejected)
{
    if (chosen < 0) return kind == PAIR_IF ? "no answer to choose" : "no right answer of one source";
    if (rejected < 0) return "no wrong answer of the same source";
    if (id_equal(a[chosen].text, a[rejected].text)) return "best and worst answer are identical";
    if (kind == PAIR_CODE && !r->window_code) return NULL;
    double margin = a[chosen].score - a[rejected].score;
    if (margin < r->margin_min) return "margin below margin_min";
    if (margin > r->margin_max) return "margin above margin_max";
    return NULL;
}

bool pair_of_source(const PairRules *r, PairKind kind, const PairAnswer *a, int64_t from, int64_t to, PairChoice *out,
                    const char **why)
{
    int64_t chosen = extreme(kind, a, from, to, true), rejected = extreme(kind, a, from, to, false);
    const char *reason = to - from > 0 && all_identical(a, from, to) ? "all answers of the source are identical"
                                                                     : reason_no_pair(r, kind, a, chosen, rejected);
    if (why) *why = reason;
    if (reason) return false;
    *out = (PairChoice){.chosen = chosen, .rejected = rejected, .margin = a[chosen].score - a[rejected].score};
    return true;
}

static int64_t end_of_source(const PairAnswer *a, int64_t from, int64_t to)
{
    int64_t end = from;
    while (end < to && a[end].source == a[from].source) end++;
    return end;
}

typedef struct Choosing {
    const PairRules *r;
    PairAnswer *a;
    PairChoice *pairs;
    int64_t n_pairs;
} Choosing;

static const char *reason_no_best(const Choosing *c, const PairPrompt *p)
{
    bool cut = false;
    for (int64_t i = p->first; i < p->first + p->n; i++) {
        const PairAnswer *a = &c->a[i];
        cut |= a->not_chosen && (p->kind == PAIR_IF || a->verdict == PAIR_RIGHT);
    }
    if (!p->n) return "no answer";
    if (cut) return p->kind == PAIR_IF ? "every scored answer is cut by length" : "every right answer is cut by length";
    return p->kind == PAIR_IF ? "no scored answer" : "no right answer";
}

// if: the pair of the source that owns the best answer, or none.
static void choose_if(Choosing *c, PairPrompt *p, int64_t index)
{
    int64_t end = p->first + p->n, from = p->first;
    PairChoice pair;
    if (p->best < 0) {
        p->dropped = reason_no_best(c, p);
        return;
    }
    while (c->a[from].source != c->a[p->best].source) from++;
    if (!pair_of_source(c->r, PAIR_IF, c->a, from, end_of_source(c->a, from, end), &pair, &p->dropped)) return;
    pair.prompt = index;
    c->pairs[c->n_pairs++] = pair;
    p->pairs = 1;
}

// math, code: the pair of every source that has one, or of the one with the best right answer.
static void choose_judged(Choosing *c, PairPrompt *p, int64_t index)
{
    int64_t end = p->first + p->n;
    if (p->best < 0) {
        p->dropped = reason_no_best(c, p);
        return;
    }
    for (int64_t from = p->first, to; from < end; from = to) {
        PairChoice pair;
        to = end_of_source(c->a, from, end);
        if (!pair_of_source(c->r, (PairKind)p->kind, c->a, from, to, &pair, NULL)) continue;
        pair.prompt = index;
        bool replace = c->r->one_per_prompt && p->pairs > 0;
        if (replace && c->a[pair.chosen].score <= c->a[c->pairs[c->n_pairs - 1].chosen].score) continue;
        if (replace) c->n_pairs--, p->pairs--;
        c->pairs[c->n_pairs++] = pair;
        p->pairs++;
    }
}

// ---- split -----------------------------------------------------------------------------------------------------------

typedef struct Draw {
    const PairPrompt *p;
    int64_t index;
} Draw;

static int compare_draws(const void *pa, const void *pb)
{
    const PairPrompt *a = ((const Draw *)pa)->p, *b = ((const Draw *)pb)->p;
    if (a->dataset != b->dataset) return a->dataset < b->dataset ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->draw != b->draw) return a->draw < b->draw ? -1 : 1;
    return id_compare(a->id, b->id);
}

// The first of n shuffled prompts with a pair, of one data set and kind, go one way, the others the other way.
static void split(const PairRules *r, PairPrompt *p, const Draw *draw, int64_t n)
{
    PairKind kind = (PairKind)draw[0].p->kind;
    double dpo = kind == PAIR_MATH ? r->math_dpo_fraction : r->code_dpo_fraction;
    int64_t sft = kind == PAIR_IF ? pair_share(r->sft_fraction, n) : n - pair_share(dpo, n);
    for (int64_t i = 0; i < n; i++) {
        PairPrompt *q = &p[draw[i].index];
        q->to_dpo = i >= sft;
        q->to_sft = !q->to_dpo || (kind == PAIR_CODE && r->code_overlap);
    }
}

static Err split_all(const PairRules *r, PairPrompt *p, int64_t prompts)
{
    Draw *draw;
    int64_t n = 0;
    TRY(MEM_ARRAY(&draw, prompts));
    for (int64_t i = 0; i < prompts; i++) {
        if (p[i].dropped) continue;
        if (p[i].pairs) draw[n++] = (Draw){&p[i], i};
        else p[i].to_sft = true;  // math and code with a right answer but no pair
    }
    MEM_SORT(draw, n, compare_draws);
    for (int64_t from = 0, to; from < n; from = to) {
        for (to = from; to < n; to++)
            if (draw[to].p->dataset != draw[from].p->dataset || draw[to].p->kind != draw[from].p->kind) break;
        split(r, p, draw + from, to - from);
    }
    mem_free(draw);
    return OK;
}

Err pair_choose(const PairRules *r, PairAnswer *a, PairPrompt *p, int64_t prompts, PairChoice *pairs, int64_t *n_pairs)
{
    Choosing c = {.r = r, .a = a, .pairs = pairs};
    for (int64_t i = 0; i < prompts; i++) {
        PairPrompt *q = &p[i];
        int64_t end = q->first + q->n;
        for (int64_t k = q->first; k < end; k++) {
            a[k].left_out = reason_left_out(r, (PairKind)q->kind, &a[k]);
            a[k].not_chosen = !a[k].left_out && a[k].cut && !r->allow_cut ? "cut by length, not to be chosen" : NULL;
        }
        q->best = extreme((PairKind)q->kind, a, q->first, end, true);
        q->first_pair = c.n_pairs;
        if (q->kind == PAIR_IF) choose_if(&c, q, i);
        else choose_judged(&c, q, i);
    }
    *n_pairs = c.n_pairs;
    return split_all(r, p, prompts);
}
