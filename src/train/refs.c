// SPDX-License-Identifier: Apache-2.0
#include "train/refs.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "par/par.h"
#include "train/step.h"

static const char magic[8] = {'I', 'M', 'F', 'R', 'E', 'F', '0', '2'}, advice[] = "remove it, and it is computed again";
enum { SUMMED = 40 };  // offset

typedef struct RefHead {
    char magic[8];
    Id fingerprint, sum;
    int64_t n;
} RefHead;
typedef struct RefItem {
    Id id;
    double logp[2];
    int32_t n[2];
} RefItem;
_Static_assert(sizeof(RefHead) == 48 && offsetof(RefHead, n) == SUMMED && sizeof(RefItem) == 40, "ref_logps.bin has this layout");

Err refs_fingerprint(Id model, Id data, Id *out)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_id(h, model);
    hash_add_id(h, data);
    *out = hash_end(h);
    return OK;
}

// Forward over all pairs, a few at a time in order of id.
static Err compute(Compute *on, const TrainSpec *spec, const Dataset *d, int64_t row_tokens, PairLogp *ref)
{
    Arena arena = {0}, acts = {.source = on->source};
    Progress p;
    Err err = OK;
    progress_start(&p, "reference log-probs", d->n, "pairs");
    for (int64_t at = 0; at < d->n; at += spec->global_batch) {
        const Example **ex;
        PackedStep step;
        int64_t n = d->n - at < spec->global_batch ? d->n - at : spec->global_batch;
        int32_t active;
        TRY_DONE(par_stop_agree(spec->stage));
        arena_reset(&arena);
        TRY_DONE(ARENA_ARRAY(&arena, &ex, n));
        for (int64_t i = 0; i < n; i++) ex[i] = &d->ex[at + i];
        TRY_DONE(pack_step(&arena, ex, (int32_t)n, row_tokens, spec->grad_chains, &step));
        StepJob job = {.on = on, .step = &step, .micro_rows = (int32_t)spec->micro_rows, .dpo = &spec->dpo, .acts = &acts};
        TRY_DONE(step_run(&job, ref + at, &active));
        progress_show(&p, at + n, 0);
    }
    progress_end(&p, d->n, 0);
done:
    arena_free(&arena);
    arena_free(&acts);
    return err;
}

static bool all_finite(const PairLogp *p) { return isfinite(p->logp[0]) && isfinite(p->logp[1]); }

// Every rank has all of them.
static Err check_finite(const Model *m, const Dataset *d, const PairLogp *ref)
{
    char id[ID_TEXT];
    for (int64_t i = 0; i < d->n; i++) {
        id_print(d->ex[i].id, id);
        CHECK(all_finite(&ref[i]), ERR_INTERNAL, "reference log-probabilities of pair %s are %g and %g: the model in %s overflows on it; "
              "look at this pair, or take another model", id, ref[i].logp[0], ref[i].logp[1], m->dir ? m->dir : "memory");
    }
    return OK;
}

static Err save(const char *path, Id print, const Dataset *d, const PairLogp *ref)
{
    RefHead head = {.fingerprint = print, .n = d->n};
    Str s = {0};
    Err err = OK;
    memcpy(head.magic, magic, sizeof magic);
    TRY_DONE(str_add(&s, (const char *)&head, (int64_t)sizeof head));
    for (int64_t i = 0; i < d->n; i++) {
        RefItem item = {d->ex[i].id, {ref[i].logp[0], ref[i].logp[1]}, {ref[i].n[0], ref[i].n[1]}};
        TRY_DONE(str_add(&s, (const char *)&item, (int64_t)sizeof item));
    }
    head.sum = hash_bytes(s.p + SUMMED, s.len - SUMMED);
    memcpy(s.p, &head, sizeof head);
    TRY_DONE(io_write(path, s.p, s.len));
done:
    str_free(&s);
    return err;
}

static Err check_head(const char *path, const FileMap *f, RefHead *head)
{
    const int64_t size = sizeof *head, item = sizeof(RefItem);
    CHECK(f->size >= size, ERR_DATA, "%s is shorter than its header; %s", path, advice);
    memcpy(head, f->p, sizeof *head);
    CHECK(!memcmp(head->magic, magic, sizeof magic), ERR_DATA,
          "%s is not a file of reference log-probabilities, or one of another version of imf; %s", path, advice);
    CHECK(head->n >= 0 && head->n <= (f->size - size) / item && f->size == size + item * head->n, ERR_DATA,
          "%s is torn (%lld bytes for %lld pairs); %s", path, (long long)f->size, (long long)head->n, advice);
    CHECK(id_equal(head->sum, hash_bytes(f->p + SUMMED, f->size - SUMMED)), ERR_DATA,
          "%s does not match its own sum: it was damaged or edited; %s", path, advice);
    return OK;
}

static Err read_item(const char *path, const FileMap *f, int64_t i, RefItem *item)
{
    char id[ID_TEXT];
    memcpy(item, f->p + sizeof(RefHead) + sizeof *item * (size_t)i, sizeof *item);
    id_print(item->id, id);
    CHECK(isfinite(item->logp[0]) && isfinite(item->logp[1]), ERR_DATA,
          "%s: the log-probabilities of pair %s are %g and %g; %s", path, id, item->logp[0], item->logp[1], advice);
    return OK;
}

static Err load_item(const char *path, const FileMap *f, int64_t i, Id want, PairLogp *ref)
{
    RefItem item;
    char id[ID_TEXT];
    TRY(read_item(path, f, i, &item));
    id_print(want, id);
    CHECK(id_equal(item.id, want), ERR_DATA, "%s has another pair in place of %s; %s", path, id, advice);
    *ref = (PairLogp){.logp = {item.logp[0], item.logp[1]}, .n = {item.n[0], item.n[1]}};
    return OK;
}

static Err load(const char *path, Id print, const Dataset *d, PairLogp *ref)
{
    FileMap f;
    RefHead head;
    Err err = OK;
    TRY(io_map(path, &f));
    TRY_DONE(check_head(path, &f, &head));
    CHECK_DONE(id_equal(head.fingerprint, print) && head.n == d->n, ERR_DATA,
               "%s belongs to another model or to other pairs; choose another run_dir, or %s", path, advice);
    for (int64_t i = 0; i < d->n; i++) TRY_DONE(load_item(path, &f, i, d->ex[i].id, &ref[i]));
done:
    io_unmap(&f);
    return err;
}

// Rank 0 looks for the file and reads it; *found on every rank.
static Err find(const char *path, Id print, const Dataset *d, PairLogp *ref, int32_t *found)
{
    *found = par_rank() == 0 && io_exists(path);
    Err err = *found ? load(path, print, d, ref) : OK;
    TRY(par_agree(err));
    TRY(par_bcast(found, (int64_t)sizeof *found, 0));
    if (*found) TRY(par_bcast(ref, d->n * (int64_t)sizeof *ref, 0));
    return OK;
}

Err refs_get(Compute *on, const TrainSpec *spec, const Dataset *d, int64_t row_tokens, PairLogp **ref)
{
    char path[IO_PATH], dir[IO_PATH];
    int32_t found = 0;
    Id print;
    TRY(io_join(dir, spec->run_dir, spec->stage));
    TRY(io_join(path, dir, "ref_logps.bin"));
    TRY(refs_fingerprint(on->model->fingerprint, d->hash, &print));
    TRY(par_agree(MEM_ARRAY(ref, d->n)));
    TRY(find(path, print, d, *ref, &found));
    if (found) {
        log_info(spec->stage, "reference log-probabilities of %lld pairs read from %s", (long long)d->n, path);
        return OK;
    }
    TRY(compute(on, spec, d, row_tokens, *ref));
    TRY(par_agree(check_finite(on->model, d, *ref)));
    fault_point("refs-computed");
    TRY(par_agree(par_rank() == 0 ? save(path, print, d, *ref) : OK));
    fault_point("refs-written");
    return OK;
}

Err refs_each(const char *path, Id *fingerprint, RefsFn f, void *user)
{
    FileMap map;
    RefHead head;
    RefItem item;
    Err err = OK;
    TRY(io_map(path, &map));
    TRY_DONE(check_head(path, &map, &head));
    *fingerprint = head.fingerprint;
    for (int64_t i = 0; i < head.n; i++) {
        TRY_DONE(read_item(path, &map, i, &item));
        PairLogp ref = {.logp = {item.logp[0], item.logp[1]}, .n = {item.n[0], item.n[1]}};
        TRY_DONE(f(user, item.id, &ref));
    }
done:
    io_unmap(&map);
    return err;
}

Err refs_show(const char *path, Str *out)
{
    FileMap f;
    RefHead head;
    char id[ID_TEXT];
    Err err = OK;
    TRY(io_map(path, &f));
    TRY_DONE(check_head(path, &f, &head));
    id_print(head.fingerprint, id);
    TRY_DONE(str_printf(out, "reference log-probabilities of %lld pairs, fingerprint %s\n", (long long)head.n, id));
    for (int64_t i = 0; i < head.n && i < 10; i++) {
        RefItem item;
        memcpy(&item, f.p + sizeof head + sizeof item * (size_t)i, sizeof item);
        id_print(item.id, id);
        TRY_DONE(str_printf(out, "  %s  chosen %.4f (%d tokens)  rejected %.4f (%d tokens)\n", id, item.logp[0], (int)item.n[0],
                            item.logp[1], (int)item.n[1]));
    }
    if (head.n > 10) TRY_DONE(str_printf(out, "  ... %lld more\n", (long long)head.n - 10));
done:
    io_unmap(&f);
    return err;
}
