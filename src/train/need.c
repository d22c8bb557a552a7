// SPDX-License-Identifier: Apache-2.0
// Rows are packed as the stage will pack them (first epoch, at most COUNTED steps), and a rank's share is the largest over these
// steps. Drawback: a later epoch's order may make a slightly longer row.
#include "train/need.h"

#include <stddef.h>

#include "base/mem.h"
#include "train/chains.h"
#include "train/loop.h"
#include "train/optim.h"
#include "train/step.h"

enum { COUNTED = 256, EXAMPLES_A_ROW = 8 };  // the latter is assumed of rows that are not known

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// --- rows ------------------------------------------------------------------------------------------------------------------

typedef struct Steps {
    const Ctx *ctx;
    const TrainSpec *spec;
    const Model *m;
    const Dataset *data;
    Split split;
    int64_t *order;
    Arena arena;
} Steps;

static Err count_step(Steps *s, TrainWork *w, int64_t k)
{
    const int64_t batch = s->spec->global_batch, n = larger(0, s->split.n_train - k * batch) < batch ? s->split.n_train - k * batch : batch;
    const Example **ex;
    PackedStep step;
    arena_reset(&s->arena);
    TRY(ARENA_ARRAY(&s->arena, &ex, n));
    for (int64_t i = 0; i < n; i++) ex[i] = &s->data->ex[s->split.train[s->order[k * batch + i]]];
    TRY(pack_step(&s->arena, ex, (int32_t)n, w->row_tokens, w->chains, &step));
    w->active[k] = step.chains;
    Compute on = {.ctx = *s->ctx, .model = s->m};
    const StepJob job = {.on = &on, .step = &step, .micro_rows = (int32_t)s->spec->micro_rows, .dpo = s->spec->pairs ? &s->spec->dpo : NULL};
    for (int32_t c = 0; c < step.chains; c++) {
        TRY(step_chain_count(&job, c, true, &w->bytes[k * w->chains + c]));
        w->calls[k * w->chains + c] = (step.first[c + 1] - step.first[c] + job.micro_rows - 1) / job.micro_rows;
    }
    for (int32_t r = 0; r < step.rows; r++) w->tokens += step.row[r].T;
    return OK;
}

static Err alloc_work(TrainWork *w)
{
    TRY(MEM_ARRAY(&w->active, w->counted));
    TRY(MEM_ARRAY(&w->calls, w->counted * w->chains));
    return MEM_ARRAY(&w->bytes, w->counted * w->chains);
}

static Err count_data(Steps *s, TrainWork *w)
{
    w->counted = w->steps < w->per_epoch ? w->steps : w->per_epoch;
    if (w->counted > COUNTED) w->counted = COUNTED;
    TRY(alloc_work(w));
    TRY(MEM_ARRAY(&s->order, s->split.n_train));
    dataset_order(s->spec->seed, 0, s->split.n_train, s->order);
    for (int64_t k = 0; k < w->counted; k++) TRY(count_step(s, w, k));
    w->tokens *= (double)w->steps / (double)w->counted;
    return OK;
}

static Err work_known(const Ctx *ctx, const TrainSpec *spec, const Model *m, Dataset *data, TrainWork *w)
{
    Steps s = {.ctx = ctx, .spec = spec, .m = m, .data = data};
    w->known = true;
    w->row_tokens = train_row_tokens(spec, data);
    CHECK(data->longest <= w->row_tokens, ERR_RECIPE, "the longest example takes %lld tokens; set %s.row_tokens to %lld or more",
          (long long)data->longest, spec->stage, (long long)data->longest);
    TRY(dataset_split(data, spec->val_size, spec->seed, &s.split));
    w->examples = s.split.n_train;
    w->steps = train_steps(spec, w->examples, &w->per_epoch);
    w->reference = spec->pairs ? (double)data->tokens : 0;
    Err err = count_data(&s, w);
    mem_free(s.order);
    arena_free(&s.arena);
    return err;
}

// Without data: every chain a row as long as the recipe allows.
static Err work_bound(const Ctx *ctx, const TrainSpec *spec, const Model *m, TrainWork *w)
{
    int32_t rows = ctx->device ? 1 : (int32_t)spec->micro_rows, *row;
    int64_t bytes;
    w->row_tokens = spec->row_tokens > 0 ? spec->row_tokens : 2 * spec->max_length;
    w->examples = w->steps = -1;
    if (spec->max_steps) w->steps = spec->max_steps;
    w->counted = 1;
    TRY(alloc_work(w));
    w->active[0] = (int32_t)w->chains;
    TRY(MEM_ARRAY(&row, rows + 1));
    for (int32_t r = 0; r <= rows; r++) row[r] = (int32_t)(r * w->row_tokens);
    const Batch b = {.rows = rows, .T = rows * w->row_tokens, .S = rows * EXAMPLES_A_ROW, .row = row};
    Compute on = {.ctx = *ctx, .model = m};
    const StepJob job = {.on = &on, .dpo = spec->pairs ? &spec->dpo : NULL};
    Err err = step_count(&job, &b, true, &bytes);
    mem_free(row);
    for (int64_t c = 0; c < w->chains; c++) w->bytes[c] = bytes, w->calls[c] = 1;
    return err;
}

Err train_work(const Ctx *ctx, const TrainSpec *spec, const Model *m, Dataset *data, TrainWork *out)
{
    *out = (TrainWork){.chains = spec->grad_chains};
    return data ? work_known(ctx, spec, m, data, out) : work_bound(ctx, spec, m, out);
}

void train_work_free(TrainWork *w)
{
    mem_free(w->active);
    mem_free(w->calls);
    mem_free(w->bytes);
    *w = (TrainWork){0};
}

// --- bytes -----------------------------------------------------------------------------------------------------------------

static void rank_need(const TrainWork *w, const Model *m, TileShare mine, int rank, int ranks, TrainNeed *out)
{
    int64_t buffers = 0, acts = 0, received = 0;
    const int64_t element = (int64_t)sizeof(float);
    for (int64_t k = 0; k < w->counted; k++) {
        int32_t first, last;
        chain_share(w->active[k], rank, ranks, &first, &last);
        buffers = larger(buffers, chain_buffers(first, last));
        received = larger(received, chain_received(w->active[k], mine, rank, ranks));
        for (int32_t c = first; c < last; c++) {
            acts = larger(acts, w->bytes[k * w->chains + c]);
            out->calls += w->calls[k * w->chains + c];
        }
    }
    out->gradients += element * (buffers ? buffers * model_grad_elements(m) : mine.end - mine.begin);
    out->moments += optim_bytes(mine);
    out->activations += acts;
    out->received += element * received;
}

Err train_need(const TrainWork *w, const Model *m, int64_t ranks, int64_t first, int64_t count, TrainNeed *out)
{
    Tile *tiles;
    int64_t n;
    *out = (TrainNeed){0};
    TRY(tiles_make(m, &tiles, &n));
    for (int64_t r = first; r < first + count && r < ranks; r++)
        rank_need(w, m, tile_share(tiles, n, (int)r, (int)ranks), (int)r, (int)ranks, out);
    mem_free(tiles);
    return OK;
}

Err train_need_of_device(const TrainWork *w, const Model *m, bool shard_grads, int64_t ranks, DeviceNeed *out)
{
    Tile *tiles;
    int64_t n;
    *out = (DeviceNeed){.weights = model_device_bytes(m)};
    TRY(tiles_make(m, &tiles, &n));
    for (int64_t r = 0; r < ranks; r++) {
        const TileShare mine = tile_share(tiles, n, (int)r, (int)ranks);
        TrainNeed need = {0};
        rank_need(w, m, mine, (int)r, (int)ranks, &need);
        out->gradients = larger(out->gradients, compute_sum_bytes(m, shard_grads, (ParRange){mine.begin, mine.end}));
        out->optimiser = larger(out->optimiser, optim_device_bytes(mine));
        out->activations = larger(out->activations, need.activations);
    }
    mem_free(tiles);
    return OK;
}
