// SPDX-License-Identifier: Apache-2.0
// 50 fp32 steps of imf's own loop against TRL's SFTTrainer and DPOTrainer on a tiny random Qwen-2 model at lr 1e-3
// (tests/data/train/tiny-*.txt, tools/reference/train.py): loss within 1e-5 (SFT) and 1e-4 (DPO, LN-DPO), gradient norm within 1e-4
// and 1e-3 relative. Eight planted faults must each break one of these limits.
//
// The bf16 curve stays as near to TRL's fp32 curve as TRL's own bf16 does (*-bf16-BATCH.txt); stale packed weights must show.
//
// `t46_reference real sft|dpo|ln` does the same for SmolLM2 in the folder MODELS (make check-real; smollm2-*.txt: lr 2e-5 and 1e-6),
// with one planted fault; every one of its steps is clipped. `t46_reference bf16 sft|dpo|ln`: its bf16 curves.
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

static bool off_grid;  // models begin between the values of bf16 (tools/reference/train.py: off)

// Values of bf16 moved by -1/2 .. 1/2 of their last place, a function of the value's bits alone.
static void move_between(float *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &w[i], sizeof bits);
        bits += ((bits >> 16) * 40503 & 0xffff) - 0x8000;
        if (w[i] != 0) memcpy(&w[i], &bits, sizeof bits);
    }
}

static void load_as(Ctx *ctx, Model *m, Compute *on, const char *model_dir, DType dtype)
{
    ok(ctx_init(ctx, 1));
    ctx->dtype = dtype;
    ok(model_load(m, model_dir, false));
    if (off_grid) move_between(m->w, m->elements);
    ok(compute_open(on, ctx, m));
}

// The product's loop, seen through metrics.jsonl.
static Curve curve_of(Fixture *x, const char *model_dir, DType dtype)
{
    char dir[] = "/tmp/imf-t46-XXXXXX", path[IO_PATH];
    Model m;
    Ctx ctx;
    Compute on;
    Curve c = {.n = 0};
    PairLogp *ref = NULL;
    assert_non_null(mkdtemp(dir));
    load_as(&ctx, &m, &on, model_dir, dtype);
    TrainSpec spec = fixture_spec(x, dir);
    spec.grad_chains = chains_for(&m);
    ok(io_join(path, dir, spec.stage));
    ok(io_mkdirs(path));
    if (spec.pairs) ok(refs_get(&on, &spec, &x->data, train_row_tokens(&spec, &x->data), &ref));
    ok(train_run(&spec, &on, &x->data, ref));
    ok(io_join(path, dir, "metrics.jsonl"));
    ok(jsonl_each(path, read_metric, &c));
    assert_int_equal(c.n, x->steps);
    mem_free(ref);
    model_free(&m);
    ok(io_remove_tree(dir));
    return c;
}

static void follow(const char *model_dir, const char *fixture)
{
    Fixture x;
    fixture_open(&x, fixture);
    Curve c = curve_of(&x, model_dir, DT_F32);
    double e = excess(&x, &c, "");
    if (!(e <= 1)) fail_msg("%s: %.2f times the limit", fixture, e);
    dataset_free(&x.data);
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

typedef enum Fault { NONE, SCHEDULE, EPS, DECAY, CLIP, MASK, NORMALISER, LENGTH, BETA, STALE } Fault;

typedef struct Loop {  // the loop written down once more, with places for faults
    Fixture x;
    TrainSpec spec;
    Fault fault;
    Ctx ctx;
    Model m;
    Compute on;
    Optim optim;
    ChainSum sum;
    Arena arena, acts;
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

static void loop_open(Loop *l, const char *model_dir, const char *fixture, DType dtype, Fault fault)
{
    char dir[IO_PATH];
    *l = (Loop){.fault = fault, .work = "/tmp/imf-t46-XXXXXX"};
    assert_non_null(mkdtemp(l->work));
    fixture_open(&l->x, fixture);
    l->spec = fixture_spec(&l->x, l->work);
    plant(fault, &l->x, &l->spec);
    load_as(&l->ctx, &l->m, &l->on, model_dir, dtype);
    l->spec.grad_chains = chains_for(&l->m);
    ok(io_join(dir, l->work, l->spec.stage));
    ok(io_mkdirs(dir));
    if (l->spec.pairs) ok(refs_get(&l->on, &l->spec, &l->x.data, 400, &l->ref));
    chain_init(&l->sum, &l->m);
}

static void loop_close(Loop *l)
{
    mem_free(l->ref);
    chain_free(&l->sum);
    optim_free(&l->optim);
    arena_free(&l->arena);
    arena_free(&l->acts);
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
    ok(pack_step(&l->arena, d->ex, (int32_t)n, row_tokens, l->spec.grad_chains, &d->packed));
}

static int32_t loop_gradient(Loop *l, StepData *d)
{
    int32_t active;
    StepJob job = {&l->on, &d->packed, 1, l->spec.pairs ? &l->spec.dpo : NULL, d->ref, &l->sum, &l->acts};
    ok(step_run(&job, d->policy, &active));
    return active;
}

// --- planted faults ----------------------------------------------------------------------------------------------------------

// Updates the weights; a bf16 model then computes with the new ones, unless they are stale: those of the step before.
static void loop_update(Loop *l, int64_t step, double lr, int32_t active, double *norm)
{
    void *stale = NULL;
    size_t bytes = (size_t)l->m.bf16_values * 2;
    if (l->fault == STALE) {
        ok(mem_alloc(&stale, (int64_t)bytes, 1));
        ok(compute_refresh(&l->on));
        memcpy(stale, l->m.bf16, bytes);
    }
    ok(optim_step(&l->optim, &l->sum, active, lr, step + 1, norm));
    if (stale) memcpy(l->m.bf16, stale, bytes);
    mem_free(stale);
}

static void loop_step(Loop *l, int64_t step, const Schedule *schedule, Curve *c)
{
    StepData d;
    int32_t n = l->x.batch;
    loop_pack(l, step, 400, &d);
    if (l->fault == NORMALISER) d.packed.targets = d.packed.targets / n * n;  // as if every example had the same length
    int32_t active = loop_gradient(l, &d);
    c->loss[step] = metrics_of(&l->spec, d.policy, d.ref, n).loss;
    double lr = schedule_lr(schedule, step + (l->fault == SCHEDULE));
    loop_update(l, step, lr, active, &c->norm[step]);
    c->n++;
}

static void loop_steps(Loop *l, int64_t steps, Curve *c)
{
    Schedule schedule;
    ok(optim_open(&l->optim, &l->on, &l->spec.optim));
    ok(schedule_make(&schedule, "cosine", l->x.lr, l->x.ratio, l->x.steps));
    for (int64_t step = 0; step < steps; step++) loop_step(l, step, &schedule, c);
}

// Runs the loop's first steps with a fault and returns how far the curve leaves the limits.
static double faulty(const char *model_dir, const char *fixture, int64_t steps, Fault fault)
{
    static const char *const name[] = {"", " schedule", " eps", " decay", " clip", " mask", " normaliser", " length", " beta"};
    Loop l;
    Curve c = {.n = 0};
    loop_open(&l, model_dir, fixture, DT_F32, fault);
    loop_steps(&l, steps, &c);
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

// --- bf16 --------------------------------------------------------------------------------------------------------------------

enum { ORDERS = 6 };

typedef struct Reference16 {  // TRL's two curves on the same batches; order k has seed + k
    int batch, orders, steps;
    double fp32[ORDERS][FIXTURE_STEPS], bf16[ORDERS][FIXTURE_STEPS];
} Reference16;

static void reference16_open(Reference16 *r, const char *name, const Fixture *x)
{
    char path[IO_PATH], kind[8];
    data_path(path, name);
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s is missing", path);
    assert_int_equal(fscanf(f, "bf16 %7s %d %d %d", kind, &r->steps, &r->batch, &r->orders), 4);
    assert_string_equal(kind, x->kind);
    assert_true(r->steps == x->steps && r->orders <= ORDERS);
    for (int k = 0; k < r->orders; k++)
        for (int i = 0; i < r->steps; i++) assert_int_equal(fscanf(f, "%lf %lf", &r->fp32[k][i], &r->bf16[k][i]), 2);
    fclose(f);
}

typedef struct Distance {
    double absolute, mean, error;  // mean |d|, mean d and its standard error, d = loss of a step - that in fp32
} Distance;

// The standard error takes orders to be independent where there are several, else the steps of the one.
static Distance distance_of(const Reference16 *r, double loss[][FIXTURE_STEPS])
{
    double sum = 0, square = 0, absolute = 0;
    int n = 0;
    for (int k = 0; k < r->orders; k++) {
        double order = 0;
        for (int i = 0; i < r->steps; i++) {
            double d = loss[k][i] - r->fp32[k][i];
            absolute += fabs(d);
            order += d;
            if (r->orders == 1) sum += d, square += d * d, n++;
        }
        order /= r->steps;
        if (r->orders > 1) sum += order, square += order * order, n++;
    }
    double mean = sum / n;
    return (Distance){absolute / (r->orders * r->steps), mean, sqrt((square / n - mean * mean) / (n - 1))};
}

// At most 1: the mean absolute distance is at most 1.2 times that of torch's own bf16; the mean distance is torch's within two
// standard errors of their difference (issue 4: one order, a model's own weights), elsewhere no further from 0 than torch's and two
// standard errors. For sharper comparisons tell two sound roundings apart, measured for LN-DPO: tiny, 24 orders of 50 steps: torch
// +0.00068 +- 0.00016, we -0.00033 +- 0.00010; SmolLM2 off grid: torch +0.046 +- 0.023, we -0.015 +- 0.012.
static double excess16(const Reference16 *r, double loss[][FIXTURE_STEPS], const char *what)
{
    Distance torch = distance_of(r, (double(*)[FIXTURE_STEPS])r->bf16), own = distance_of(r, loss);
    double size = own.absolute / (1.2 * torch.absolute), errors = 2 * hypot(torch.error, own.error);
    double bias =
        r->orders > 1 || off_grid ? fabs(own.mean) / (fabs(torch.mean) + errors) : fabs(own.mean - torch.mean) / errors;
    if (getenv("IMF_TEST_VERBOSE"))
        printf("%s, batch %d: mean |d| %.5f, torch %.5f; mean d %+.5f (error %.5f), torch %+.5f (error %.5f): %.3f, %.3f of "
               "the limits\n",
               what, r->batch, own.absolute, torch.absolute, own.mean, own.error, torch.mean, torch.error, size, bias);
    return fmax(size, bias);
}

static void follow_bf16(const char *model_dir, const char *fixture, const char *reference)
{
    Fixture x;
    Reference16 r;
    double loss[ORDERS][FIXTURE_STEPS];
    fixture_open(&x, fixture);
    reference16_open(&r, reference, &x);
    x.batch = r.batch;
    for (int k = 0; k < r.orders; k++, x.seed++) {
        Curve c = curve_of(&x, model_dir, DT_BF16);
        memcpy(loss[k], c.loss, sizeof c.loss);
    }
    double e = excess16(&r, loss, x.kind);
    if (!(e <= 1)) fail_msg("%s: %.2f times the limit", reference, e);
    dataset_free(&x.data);
}

static void follow_tiny_bf16(const char *fixture, const char *reference)
{
    char dir[IO_PATH];
    data_path(dir, "model/llama3");
    follow_bf16(dir, fixture, reference);
}
static void bf16_sft_is_as_near_as_torch(void **state)
{
    (void)state;
    follow_tiny_bf16("train/tiny-sft.txt", "train/tiny-sft-bf16-4.txt");
}
static void bf16_dpo_is_as_near_as_torch(void **state)
{
    (void)state;
    follow_tiny_bf16("train/tiny-dpo.txt", "train/tiny-dpo-bf16-4.txt");
}
static void bf16_ln_dpo_is_as_near_as_torch(void **state)
{
    (void)state;
    follow_tiny_bf16("train/tiny-ln.txt", "train/tiny-ln-bf16-4.txt");
}

static void stale_bf16_weights_are_seen(void **state)
{
    (void)state;
    char dir[IO_PATH];
    Loop l;
    Reference16 r;
    Curve c = {.n = 0};
    data_path(dir, "model/llama3");
    loop_open(&l, dir, "train/tiny-sft.txt", DT_BF16, STALE);
    reference16_open(&r, "train/tiny-sft-bf16-4.txt", &l.x);
    r.orders = 1;
    loop_steps(&l, l.x.steps, &c);
    assert_true(excess16(&r, &c.loss, "stale weights") > 1);
    loop_close(&l);
}

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
static void neutral_while_policy_is_reference(const char *model_dir, const char *fixture, DType dtype)
{
    const DpoSpec plain = {0.1, 0, false}, by_length = {10, 0, true};
    Loop l;
    StepData d;
    loop_open(&l, model_dir, fixture, dtype, NONE);
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
    neutral_while_policy_is_reference(dir, "train/tiny-dpo.txt", DT_F32);
    neutral_while_policy_is_reference(dir, "train/tiny-dpo.txt", DT_BF16);
}

static void every_pair_of_smollm2_starts_at_ln2(void **state)
{
    (void)state;
    char dir[IO_PATH];
    smollm2_path(dir);
    neutral_while_policy_is_reference(dir, "train/smollm2-dpo.txt", DT_F32);
}

static void every_pair_of_smollm2_in_bf16_starts_at_ln2(void **state)
{
    (void)state;
    char dir[IO_PATH];
    smollm2_path(dir);
    neutral_while_policy_is_reference(dir, "train/smollm2-dpo.txt", DT_BF16);
}

// The bf16 curves of SmolLM2, one example a step: from its own weights, where most of the distance is weights that stand still
// (mean |d| of SFT 0.264, off grid 0.009), and from weights between the values of bf16, where it is the arithmetic's.
static const char *smollm2_kind;
static void smollm2_bf16(const char *suffix)
{
    char dir[IO_PATH], fixture[64], reference[64];
    smollm2_path(dir);
    snprintf(fixture, sizeof fixture, "train/smollm2-%s.txt", smollm2_kind);
    snprintf(reference, sizeof reference, "train/smollm2-%s-bf16-1%s.txt", smollm2_kind, suffix);
    follow_bf16(dir, fixture, reference);
}

static void smollm2_bf16_is_as_near_as_torch(void **state) { (void)state, smollm2_bf16(""); }

static void smollm2_bf16_off_grid_is_as_near_as_torch(void **state)
{
    (void)state;
    off_grid = true;
    smollm2_bf16("-off");
    off_grid = false;
}

static int run_real_bf16(const char *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm2_bf16_is_as_near_as_torch),
        cmocka_unit_test(smollm2_bf16_off_grid_is_as_near_as_torch),
        cmocka_unit_test(every_pair_of_smollm2_in_bf16_starts_at_ln2),
    };
    smollm2_kind = kind;
    return _cmocka_run_group_tests("bf16", tests, strcmp(kind, "dpo") ? 2 : 3, NULL, NULL);
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
        cmocka_unit_test(bf16_sft_is_as_near_as_torch),
        cmocka_unit_test(bf16_dpo_is_as_near_as_torch),
        cmocka_unit_test(bf16_ln_dpo_is_as_near_as_torch),
        cmocka_unit_test(stale_bf16_weights_are_seen),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    log_quiet(true);
    int failed = argc < 3                   ? cmocka_run_group_tests(tiny, NULL, NULL)
                 : !strcmp(argv[1], "bf16") ? run_real_bf16(argv[2])
                                            : run_real(argv[2]);
    par_finish();
    return failed;
}
