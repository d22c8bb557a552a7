// 50 fp32 steps of imf's own loop against TRL's SFTTrainer and DPOTrainer on a tiny random Qwen-2 model at lr 1e-3
// (tests/data/train/tiny-*.txt, tools/reference/train.py): loss within 1e-5 (SFT) and 1e-4 (DPO, LN-DPO), gradient norm within 1e-4
// and 1e-3 relative. Eight planted faults must each break one of these limits.
//
// `t46_reference real sft|dpo|ln` does the same for SmolLM2 in the folder MODELS (make check-real; smollm2-*.txt: lr 2e-5 and 1e-6),
// with one planted fault; every one of its steps is clipped.
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

typedef struct Gap {
    double loss, norm;  // absolute, relative
} Gap;

static Gap limit_of(const Fixture *x) { return strcmp(x->kind, "sft") ? (Gap){1e-4, 1e-3} : (Gap){1e-5, 1e-4}; }

// The largest differences. A gradient norm below 1e-4 of the first steps' is compared on that scale: it is the difference of
// saturated sigmoids and carries no more digits in fp32.
static Gap gap_of(const Fixture *x, const Curve *c)
{
    Gap worst = {0, 0};
    double scale = 0;
    for (int i = 0; i < x->steps; i++) scale = fmax(scale, x->norm[i]);
    for (int i = 0; i < c->n; i++) {
        worst.loss = fmax(worst.loss, fabs(c->loss[i] - x->loss[i]));
        worst.norm = fmax(worst.norm, fabs(c->norm[i] - x->norm[i]) / fmax(x->norm[i], 1e-4 * scale));
    }
    return worst;
}

// The largest excess over the limits: at most 1 when the curves agree.
static double excess(const Fixture *x, const Curve *c, const char *what)
{
    Gap g = gap_of(x, c), l = limit_of(x);
    double e = fmax(g.loss / l.loss, g.norm / l.norm);
    if (getenv("IMF_TEST_VERBOSE"))
        printf("%s%s: %d steps, loss within %.2e, gradient norm within %.2e: %.3f of the limits\n", x->kind, what, c->n, g.loss,
               g.norm, e);
    return e;
}

static Err read_metric(void *user, const json_t *o, const char *where)
{
    Curve *c = user;
    TRY(json_get_f64(o, "loss", where, &c->loss[c->n]));
    return json_get_f64(o, "grad_norm", where, &c->norm[c->n++]);
}

static int64_t chains_for(const Model *m) { return m->elements > 10000000 ? 1 : 4; }  // a real model: one gradient buffer

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
    spec.grad_chains = chains_for(&m);
    ok(io_join(path, dir, spec.stage));
    ok(io_mkdirs(path));
    if (spec.pairs) ok(refs_get(&ctx, &spec, &m, &x.data, train_row_tokens(&spec, &x.data), &ref));
    ok(train_run(&spec, &ctx, &m, &x.data, ref));
    ok(io_join(path, dir, "metrics.jsonl"));
    ok(jsonl_each(path, read_metric, &c));
    assert_int_equal(c.n, x.steps);
    double e = excess(&x, &c, "");
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

static void smollm2_path(char dir[IO_PATH])
{
    const char *models = getenv("MODELS");
    assert_non_null(models);
    snprintf(dir, IO_PATH, "%s/smollm2", models);
}

static void every_step_is_clipped(const char *fixture)
{
    Fixture x;
    fixture_open(&x, fixture);
    double least = HUGE_VAL, max_norm = fixture_spec(&x, "").optim.max_norm;
    for (int i = 0; i < x.steps; i++) least = fmin(least, x.norm[i]);
    if (getenv("IMF_TEST_VERBOSE")) printf("%s: least gradient norm %.3f, max_grad_norm %g\n", x.kind, least, max_norm);
    assert_true(least > max_norm);
    dataset_free(&x.data);
}

static void follow_smollm2(const char *fixture)
{
    char dir[IO_PATH];
    smollm2_path(dir);
    every_step_is_clipped(fixture);
    follow(dir, fixture);
}
static void smollm2_sft_follows_trl(void **state) { (void)state, follow_smollm2("train/smollm2-sft.txt"); }
static void smollm2_dpo_follows_trl(void **state) { (void)state, follow_smollm2("train/smollm2-dpo.txt"); }
static void smollm2_ln_dpo_follows_trl(void **state) { (void)state, follow_smollm2("train/smollm2-ln.txt"); }

// --- the loop from its parts -------------------------------------------------------------------------------------------------

typedef enum Fault { NONE, SCHEDULE, EPS, DECAY, CLIP, MASK, NORMALISER, LENGTH, BETA } Fault;

typedef struct Loop {  // the loop written down once more, with places for faults
    Fixture x;
    TrainSpec spec;
    Fault fault;
    Ctx ctx;
    Model m;
    Optim optim;
    ChainSum sum;
    Arena arena;
    PairLogp *ref;
    char work[32];
} Loop;

typedef struct StepData {
    const Example *ex[8];
    PairLogp policy[8], ref[8];
    PackedStep packed;
} StepData;

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

static void loop_open(Loop *l, const char *model_dir, const char *fixture, Fault fault)
{
    char dir[IO_PATH];
    *l = (Loop){.fault = fault, .work = "/tmp/imf-t46-XXXXXX"};
    assert_non_null(mkdtemp(l->work));
    fixture_open(&l->x, fixture);
    l->spec = fixture_spec(&l->x, l->work);
    plant(fault, &l->x, &l->spec);
    ok(ctx_init(&l->ctx, 1));
    ok(model_load(&l->m, model_dir, false));
    l->spec.grad_chains = chains_for(&l->m);
    ok(io_join(dir, l->work, l->spec.stage));
    ok(io_mkdirs(dir));
    if (l->spec.pairs) ok(refs_get(&l->ctx, &l->spec, &l->m, &l->x.data, 400, &l->ref));
    chain_init(&l->sum, &l->m);
}

static void loop_close(Loop *l)
{
    mem_free(l->ref);
    chain_free(&l->sum);
    optim_free(&l->optim);
    arena_free(&l->arena);
    model_free(&l->m);
    dataset_free(&l->x.data);
    ok(io_remove_tree(l->work));
}

static void loop_pack(Loop *l, int64_t step, int64_t row_tokens, StepData *d)
{
    int64_t order[64], n = l->x.batch, per_epoch = l->x.examples / n, first = step % per_epoch * n;
    dataset_order((uint64_t)l->x.seed, step / per_epoch, l->x.examples, order);
    arena_reset(&l->arena);
    for (int64_t i = 0; i < n; i++) {
        d->ex[i] = &l->x.data.ex[order[first + i]];
        if (l->ref) d->ref[i] = l->ref[order[first + i]];
    }
    ok(pack_step(&l->arena, d->ex, (int32_t)n, row_tokens, &d->packed));
}

static int32_t loop_gradient(Loop *l, StepData *d)
{
    int32_t active;
    StepJob job = {&l->ctx, &l->m, &d->packed, (int32_t)l->spec.grad_chains, 1, l->spec.pairs ? &l->spec.dpo : NULL, d->ref, &l->sum};
    ok(step_run(&job, d->policy, &active));
    return active;
}

// --- planted faults ----------------------------------------------------------------------------------------------------------

static void loop_step(Loop *l, int64_t step, const Schedule *schedule, Curve *c)
{
    StepData d;
    int32_t n = l->x.batch;
    loop_pack(l, step, 400, &d);
    if (l->fault == NORMALISER) d.packed.targets = d.packed.targets / n * n;  // as if every example had the same length
    int32_t active = loop_gradient(l, &d);
    c->loss[step] = metrics_of(&l->spec, d.policy, d.ref, n).loss;
    double lr = schedule_lr(schedule, step + (l->fault == SCHEDULE));
    ok(optim_step(&l->optim, &l->ctx, &l->sum, active, lr, step + 1, &c->norm[step]));
    c->n++;
}

// Runs the loop's first steps with a fault and returns how far the curve leaves the limits.
static double faulty(const char *model_dir, const char *fixture, int64_t steps, Fault fault)
{
    static const char *const name[] = {"", " schedule", " eps", " decay", " clip", " mask", " normaliser", " length", " beta"};
    Loop l;
    Curve c = {.n = 0};
    Schedule schedule;
    loop_open(&l, model_dir, fixture, fault);
    ok(optim_open(&l.optim, &l.m, &l.spec.optim));
    ok(schedule_make(&schedule, "cosine", l.x.lr, l.x.ratio, l.x.steps));
    for (int64_t step = 0; step < steps; step++) loop_step(&l, step, &schedule, &c);
    double e = excess(&l.x, &c, name[fault]);
    loop_close(&l);
    return e;
}

static double faulty_tiny(const char *fixture, Fault fault)
{
    char dir[IO_PATH];
    data_path(dir, "model/qwen2");
    return faulty(dir, fixture, 50, fault);
}

static void planted_faults_are_seen(void **state)
{
    (void)state;
    assert_true(faulty_tiny("train/tiny-sft.txt", NONE) <= 1);
    for (Fault f = SCHEDULE; f <= NORMALISER; f++)
        if (!(faulty_tiny("train/tiny-sft.txt", f) > 1)) fail_msg("SFT does not notice fault %d", (int)f);
    assert_true(faulty_tiny("train/tiny-ln.txt", NONE) <= 1);
    assert_true(faulty_tiny("train/tiny-ln.txt", LENGTH) > 1);
    assert_true(faulty_tiny("train/tiny-dpo.txt", NONE) <= 1);
    assert_true(faulty_tiny("train/tiny-dpo.txt", BETA) > 1);
}

// Four steps are enough: the warm-up's first rate is 0.
static void smollm2_notices_a_schedule_off_by_one(const char *fixture)
{
    char dir[IO_PATH];
    smollm2_path(dir);
    assert_true(faulty(dir, fixture, 4, NONE) <= 1);
    assert_true(faulty(dir, fixture, 4, SCHEDULE) > 1);
}
static void smollm2_sft_fault_is_seen(void **state) { (void)state, smollm2_notices_a_schedule_off_by_one("train/smollm2-sft.txt"); }
static void smollm2_dpo_fault_is_seen(void **state) { (void)state, smollm2_notices_a_schedule_off_by_one("train/smollm2-dpo.txt"); }
static void smollm2_ln_fault_is_seen(void **state) { (void)state, smollm2_notices_a_schedule_off_by_one("train/smollm2-ln.txt"); }

// --- the first step of pairs -------------------------------------------------------------------------------------------------

static void assert_neutral(const DpoSpec *spec, const PairLogp *policy, const PairLogp *ref)
{
    PairLoss p = dpo_pair(spec, policy, ref);
    uint32_t bits;
    memcpy(&bits, &p.loss, sizeof bits);
    assert_int_equal(bits, 0x3F317218);  // the float nearest to ln 2
    assert_true(p.reward[0] - p.reward[1] == 0.0 && p.reward[0] == 0.0 && p.reward[1] == 0.0);
}

// While the policy is the reference every pair's margin is exactly 0 and its loss exactly fp32 ln 2, although the reference is a
// forward pass over rows of four pairs in order of id and the policy a training pass over other rows in the epoch's order.
static void neutral_while_policy_is_reference(const char *model_dir, const char *fixture)
{
    const DpoSpec plain = {0.1, 0, false}, by_length = {10, 0, true};
    Loop l;
    StepData d;
    loop_open(&l, model_dir, fixture, NONE);
    for (int64_t step = 0; step < l.x.examples / l.x.batch; step++) {
        loop_pack(&l, step, l.x.data.longest, &d);
        loop_gradient(&l, &d);
        for (int32_t i = 0; i < l.x.batch; i++) {
            assert_neutral(&plain, &d.policy[i], &d.ref[i]);
            assert_neutral(&by_length, &d.policy[i], &d.ref[i]);
        }
    }
    loop_close(&l);
}

static void every_pair_starts_at_ln2(void **state)
{
    (void)state;
    char dir[IO_PATH];
    data_path(dir, "model/qwen2");
    neutral_while_policy_is_reference(dir, "train/tiny-dpo.txt");
}

static void every_pair_of_smollm2_starts_at_ln2(void **state)
{
    (void)state;
    char dir[IO_PATH];
    smollm2_path(dir);
    neutral_while_policy_is_reference(dir, "train/smollm2-dpo.txt");
}

static int run_real(const char *kind)
{
    const struct CMUnitTest sft[] = {
        cmocka_unit_test(smollm2_sft_fault_is_seen),
        cmocka_unit_test(smollm2_sft_follows_trl),
    };
    const struct CMUnitTest dpo[] = {
        cmocka_unit_test(every_pair_of_smollm2_starts_at_ln2),
        cmocka_unit_test(smollm2_dpo_fault_is_seen),
        cmocka_unit_test(smollm2_dpo_follows_trl),
    };
    const struct CMUnitTest ln[] = {
        cmocka_unit_test(smollm2_ln_fault_is_seen),
        cmocka_unit_test(smollm2_ln_dpo_follows_trl),
    };
    if (!strcmp(kind, "sft")) return cmocka_run_group_tests(sft, NULL, NULL);
    if (!strcmp(kind, "dpo")) return cmocka_run_group_tests(dpo, NULL, NULL);
    return cmocka_run_group_tests(ln, NULL, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tiny[] = {
        cmocka_unit_test(sft_follows_trl),
        cmocka_unit_test(dpo_follows_trl),
        cmocka_unit_test(ln_dpo_follows_trl_sigmoid_norm),
        cmocka_unit_test(every_pair_starts_at_ln2),
        cmocka_unit_test(planted_faults_are_seen),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    log_quiet(true);
    int failed = argc == 3 ? run_real(argv[2]) : cmocka_run_group_tests(tiny, NULL, NULL);
    par_finish();
    return failed;
}
