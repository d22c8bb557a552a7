// 50 fp32 steps of imf's own loop against TRL's SFTTrainer and DPOTrainer on a tiny random Qwen-2 model at lr 1e-3
// (tests/data/train/tiny-*.txt, tools/reference/train.py): loss within 1e-5 (SFT) and 1e-4 (DPO, LN-DPO), gradient norm within 1e-4
// and 1e-3 relative. Eight planted faults must each break one of these limits.
//
// `t46_reference real` does the same for SFT of SmolLM2 in the folder MODELS (make check-real; smollm2-sft.txt, which holds the
// first steps of the 50).
#include <math.h>

#include "base/log.h"
#include "par/par.h"
#include "tests/lib/train_fixture.h"
#include "train/metrics.h"
#include "train/step.h"

typedef struct Curve {
    double loss[FIXTURE_STEPS], norm[FIXTURE_STEPS];
    int n;
} Curve;

typedef struct Limit {
    double loss, norm;  // absolute, relative
} Limit;

static Limit limit_of(const Fixture *x)
{
    return strcmp(x->kind, "sft") ? (Limit){1e-4, 1e-3} : (Limit){1e-5, 1e-4};
}

// The largest excess over the limits: at most 1 when the curves agree. A gradient norm below 1e-4 of the first steps' is
// compared on that scale: it is the difference of saturated sigmoids and carries no more digits in fp32.
static double excess(const Fixture *x, const Curve *c)
{
    Limit l = limit_of(x);
    double worst = 0, scale = 0;
    for (int i = 0; i < x->recorded; i++) scale = fmax(scale, x->norm[i]);
    for (int i = 0; i < x->recorded; i++) {
        worst = fmax(worst, fabs(c->loss[i] - x->loss[i]) / l.loss);
        worst = fmax(worst, fabs(c->norm[i] - x->norm[i]) / fmax(x->norm[i], 1e-4 * scale) / l.norm);
    }
    return worst;
}

static Err read_metric(void *user, const json_t *o, const char *where)
{
    Curve *c = user;
    TRY(json_get_f64(o, "loss", where, &c->loss[c->n]));
    return json_get_f64(o, "grad_norm", where, &c->norm[c->n++]);
}

// The product's loop, seen through metrics.jsonl.
static void follow(const char *model_dir, const char *fixture)
{
    char dir[] = "/tmp/imf-t46-XXXXXX", path[IO_PATH];
    Fixture x;
    Model m;
    Ctx ctx;
    Curve c = {.n = 0};
    PairLogp *ref = NULL;
    assert_non_null(mkdtemp(dir));
    ok(ctx_init(&ctx, 1));
    fixture_open(&x, fixture);
    ok(model_load(&m, model_dir, false));
    TrainSpec spec = fixture_spec(&x, dir);
    if (m.elements > 10000000) spec.grad_chains = 1;  // a real model: one gradient buffer
    ok(io_join(path, dir, spec.stage));
    ok(io_mkdirs(path));
    if (spec.pairs) ok(refs_get(&ctx, &spec, &m, &x.data, train_row_tokens(&spec, &x.data), &ref));
    ok(train_run(&spec, &ctx, &m, &x.data, ref));
    ok(io_join(path, dir, "metrics.jsonl"));
    ok(jsonl_each(path, read_metric, &c));
    assert_int_equal(c.n, x.steps);
    assert_true(x.recorded == x.steps || m.elements > 10000000);
    double e = excess(&x, &c);
    if (getenv("IMF_TEST_VERBOSE")) printf("%s: %.3f of the limits\n", fixture, e);
    if (!(e <= 1)) fail_msg("%s: %.2f times the limit", fixture, e);
    mem_free(ref);
    model_free(&m);
    dataset_free(&x.data);
    ok(io_remove_tree(dir));
}

static void follow_tiny(const char *fixture)
{
    char dir[IO_PATH];
    data_path(dir, "model/qwen2");
    follow(dir, fixture);
}
static void sft_follows_trl(void **state) { (void)state, follow_tiny("train/tiny-sft.txt"); }
static void dpo_follows_trl(void **state) { (void)state, follow_tiny("train/tiny-dpo.txt"); }
static void ln_dpo_follows_trl_sigmoid_norm(void **state) { (void)state, follow_tiny("train/tiny-ln.txt"); }

static void follow_smollm2(const char *fixture)
{
    const char *models = getenv("MODELS");
    char dir[IO_PATH];
    assert_non_null(models);
    snprintf(dir, sizeof dir, "%s/smollm2", models);
    follow(dir, fixture);
}
static void smollm2_sft_follows_trl(void **state) { (void)state, follow_smollm2("train/smollm2-sft.txt"); }

// --- planted faults --------------------------------------------------------------------------------------------------------

typedef enum Fault { NONE, SCHEDULE, EPS, DECAY, CLIP, MASK, NORMALISER, LENGTH, BETA } Fault;

static void shift_masks(Dataset *d)
{
    for (int64_t i = 0; i < d->n; i++) {
        uint8_t *mask = (uint8_t *)d->ex[i].mask;  // the fixture's own memory
        memmove(mask, mask + 1, (size_t)d->ex[i].n - 1);
    }
}

static void plant(Fault fault, Fixture *x, TrainSpec *s)
{
    if (fault == EPS) s->optim.eps = 1e-6;
    if (fault == DECAY) s->optim.decay = 0.01;
    if (fault == CLIP) s->optim.max_norm = 0;  // never
    if (fault == LENGTH) s->dpo.length_norm = false;
    if (fault == BETA) s->dpo.beta *= 1.01;
    if (fault == MASK) shift_masks(&x->data);
}

typedef struct Loop {  // the loop written down once more from its parts, with places for faults
    Fixture *x;
    TrainSpec spec;
    Fault fault;
    Ctx ctx;
    Model m;
    Optim optim;
    ChainSum sum;
    Arena arena;
    PairLogp *ref;
} Loop;

static void loop_step(Loop *l, int64_t step, const int64_t *order, const Schedule *schedule, Curve *c)
{
    const Example *ex[8];
    PairLogp policy[8], ref[8];
    PackedStep packed;
    int32_t active, n = l->x->batch;
    int64_t first = step % (l->x->examples / n) * n;
    arena_reset(&l->arena);
    for (int32_t i = 0; i < n; i++) {
        ex[i] = &l->x->data.ex[order[first + i]];
        if (l->ref) ref[i] = l->ref[order[first + i]];
    }
    ok(pack_step(&l->arena, ex, n, 400, &packed));
    if (l->fault == NORMALISER) packed.targets = packed.targets / n * n;  // as if every example had the same length
    StepJob job = {&l->ctx, &l->m, &packed, 4, 1, l->spec.pairs ? &l->spec.dpo : NULL, ref, &l->sum};
    ok(step_run(&job, policy, &active));
    c->loss[step] = metrics_of(&l->spec, policy, ref, n).loss;
    double lr = schedule_lr(schedule, step + (l->fault == SCHEDULE));
    ok(optim_step(&l->optim, &l->ctx, &l->sum, active, lr, step + 1, &c->norm[step]));
}

// Runs the loop with a fault and returns how far the curve leaves the limits.
static double faulty(const char *fixture, Fault fault)
{
    Fixture x;
    Loop l = {.x = &x, .fault = fault};
    Curve c = {.n = 0};
    Schedule schedule;
    char dir[IO_PATH], work[] = "/tmp/imf-t46-XXXXXX";
    int64_t order[64];
    assert_non_null(mkdtemp(work));
    data_path(dir, "model/qwen2");
    fixture_open(&x, fixture);
    l.spec = fixture_spec(&x, work);
    plant(fault, &x, &l.spec);
    ok(ctx_init(&l.ctx, 1));
    ok(model_load(&l.m, dir, false));
    ok(io_join(dir, work, l.spec.stage));
    ok(io_mkdirs(dir));
    if (l.spec.pairs) ok(refs_get(&l.ctx, &l.spec, &l.m, &x.data, 400, &l.ref));
    ok(optim_open(&l.optim, &l.m, &l.spec.optim));
    chain_init(&l.sum, &l.m);
    ok(schedule_make(&schedule, "cosine", x.lr, x.ratio, x.steps));
    for (int64_t step = 0; step < x.steps; step++) {
        dataset_order((uint64_t)x.seed, step * x.batch / x.examples, x.examples, order);
        loop_step(&l, step, order, &schedule, &c);
    }
    double e = excess(&x, &c);
    if (getenv("IMF_TEST_VERBOSE")) printf("%s fault %d: %.3f of the limits\n", fixture, (int)fault, e);
    mem_free(l.ref);
    chain_free(&l.sum);
    optim_free(&l.optim);
    arena_free(&l.arena);
    model_free(&l.m);
    dataset_free(&x.data);
    ok(io_remove_tree(work));
    return e;
}

static void planted_faults_are_seen(void **state)
{
    (void)state;
    assert_true(faulty("train/tiny-sft.txt", NONE) <= 1);
    for (Fault f = SCHEDULE; f <= NORMALISER; f++)
        if (!(faulty("train/tiny-sft.txt", f) > 1)) fail_msg("SFT does not notice fault %d", (int)f);
    assert_true(faulty("train/tiny-ln.txt", NONE) <= 1);
    assert_true(faulty("train/tiny-ln.txt", LENGTH) > 1);
    assert_true(faulty("train/tiny-dpo.txt", NONE) <= 1);
    assert_true(faulty("train/tiny-dpo.txt", BETA) > 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tiny[] = {
        cmocka_unit_test(sft_follows_trl),
        cmocka_unit_test(dpo_follows_trl),
        cmocka_unit_test(ln_dpo_follows_trl_sigmoid_norm),
        cmocka_unit_test(planted_faults_are_seen),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(smollm2_sft_follows_trl),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    log_quiet(true);
    int failed = argc > 1 ? cmocka_run_group_tests(real, NULL, NULL) : cmocka_run_group_tests(tiny, NULL, NULL);
    par_finish();
    return failed;
}
