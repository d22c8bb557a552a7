// SPDX-License-Identifier: Apache-2.0
// Normal equations in double with Cholesky: exact enough for H up to a few thousand, one pass over the features. Drawback: H^2
// doubles of memory and H^3 / 3 per alpha.
#include "train/reward_heads.h"

#include <math.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

enum { STREAM_RIDGE = 104, ALPHAS = 9 };

typedef struct Normal {  // normal equations of one objective over one part of the rows
    double *gram, *rhs;  // [H][H] lower triangle, [H]
    int64_t n;
} Normal;

typedef struct Ridge {
    const RewardData *d;
    const Features *f;
    const HeadSpec *spec;
    int64_t H, objective;
    Normal part[2];      // 80 %, 20 %
    double *factor, *w;  // [H][H], [H]
} Ridge;

static int part_of(const Ridge *r, const RewardAnswer *a)
{
    return rng_uniform(rng_key(r->spec->seed, STREAM_RIDGE), (uint64_t)a->row) >= 0.8;
}

static bool takes_part(const Ridge *r, const RewardAnswer *a)
{
    return !r->d->held[a->row] && isfinite(a->label[r->objective]);
}

static void add_row(Normal *p, const float *x, double y, int64_t H)
{
    for (int64_t i = 0; i < H; i++) {
        double xi = x[i], *g = p->gram + i * H;
        for (int64_t j = 0; j <= i; j++) g[j] += xi * x[j];
        p->rhs[i] += xi * y;
    }
    p->n++;
}

static void accumulate(Ridge *r)
{
    for (int k = 0; k < 2; k++) {
        r->part[k].n = 0;
        for (int64_t i = 0; i < r->H * r->H; i++) r->part[k].gram[i] = 0;
        for (int64_t i = 0; i < r->H; i++) r->part[k].rhs[i] = 0;
    }
    for (int64_t i = 0; i < r->d->answers; i++) {
        const RewardAnswer *a = &r->d->answer[i];
        if (takes_part(r, a)) add_row(&r->part[part_of(r, a)], r->f->last + i * r->H, a->label[r->objective], r->H);
    }
}

// w = (gram + alpha I)^-1 rhs. False when the matrix is not positive definite in double (alpha too small).
static bool solve(Ridge *r, const double *gram, const double *rhs, double alpha)
{
    int64_t H = r->H;
    double *L = r->factor;
    for (int64_t i = 0; i < H; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = gram[i * H + j] + (i == j ? alpha : 0);
            for (int64_t k = 0; k < j; k++) sum -= L[i * H + k] * L[j * H + k];
            if (i == j && sum <= 0) return false;
            L[i * H + j] = i == j ? sqrt(sum) : sum / L[j * H + j];
        }
    for (int64_t i = 0; i < H; i++) {
        double sum = rhs[i];
        for (int64_t k = 0; k < i; k++) sum -= L[i * H + k] * r->w[k];
        r->w[i] = sum / L[i * H + i];
    }
    for (int64_t i = H - 1; i >= 0; i--) {
        double sum = r->w[i];
        for (int64_t k = i + 1; k < H; k++) sum -= L[k * H + i] * r->w[k];
        r->w[i] = sum / L[i * H + i];
    }
    return true;
}

static double predict(const Ridge *r, int64_t answer)
{
    double sum = 0;
    for (int64_t i = 0; i < r->H; i++) sum += r->w[i] * (double)r->f->last[answer * r->H + i];
    return sum;
}

static double mean_error(const Ridge *r)
{
    double sum = 0;
    for (int64_t i = 0; i < r->d->answers; i++) {
        const RewardAnswer *a = &r->d->answer[i];
        if (!takes_part(r, a) || !part_of(r, a)) continue;
        double e = predict(r, i) - a->label[r->objective];
        sum += e * e;
    }
    return sum / (double)(r->part[1].n ? r->part[1].n : 1);
}

static Err choose_alpha(Ridge *r, double *alpha)
{
    double best = INFINITY;
    *alpha = 0;
    for (int k = 0; k < ALPHAS; k++) {
        double a = pow(10, k - 4);
        if (!solve(r, r->part[0].gram, r->part[0].rhs, a)) continue;
        double e = mean_error(r);
        if (e < best) best = e, *alpha = a;
    }
    CHECK(isfinite(best), ERR_INTERNAL, "ridge regression of objective '%s' has no solution: are the features finite?",
          r->d->name[r->objective]);
    return OK;
}

// Correlation of prediction and label on held-out rows; 0 when there are fewer than 3.
static double held_correlation(const Ridge *r, int64_t *n)
{
    double s[5] = {0, 0, 0, 0, 0};
    *n = 0;
    for (int64_t i = 0; i < r->d->answers; i++) {
        const RewardAnswer *a = &r->d->answer[i];
        if (!r->d->held[a->row] || !isfinite(a->label[r->objective])) continue;
        double x = predict(r, i), y = a->label[r->objective];
        s[0] += x, s[1] += y, s[2] += x * x, s[3] += y * y, s[4] += x * y;
        ++*n;
    }
    double m = (double)*n, vx = s[2] - s[0] * s[0] / m, vy = s[3] - s[1] * s[1] / m;
    return *n < 3 || vx <= 0 || vy <= 0 ? 0 : (s[4] - s[0] * s[1] / m) / sqrt(vx * vy);
}

static Err fit(Ridge *r, float *out)
{
    double alpha;
    int64_t held;
    accumulate(r);
    CHECK(r->part[0].n > 0, ERR_DATA, "objective '%s' has no labelled answer in the training rows", r->d->name[r->objective]);
    TRY(choose_alpha(r, &alpha));
    for (int64_t i = 0; i < r->H * r->H; i++) r->part[0].gram[i] += r->part[1].gram[i];
    for (int64_t i = 0; i < r->H; i++) r->part[0].rhs[i] += r->part[1].rhs[i];
    ASSERT(solve(r, r->part[0].gram, r->part[0].rhs, alpha));
    for (int64_t i = 0; i < r->H; i++) out[i] = (float)r->w[i];
    double c = held_correlation(r, &held);
    log_info("reward", "objective %-20s %lld labels, alpha %g, correlation %.3f on %lld held-out answers", r->d->name[r->objective],
             (long long)(r->part[0].n + r->part[1].n), alpha, c, (long long)held);
    return OK;
}

Err heads_ridge(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h)
{
    Ridge r = {.d = d, .f = f, .spec = s, .H = h->H};
    Err err = OK;
    for (int k = 0; k < 2; k++) {
        TRY_DONE(MEM_ARRAY(&r.part[k].gram, h->H * h->H));
        TRY_DONE(MEM_ARRAY(&r.part[k].rhs, h->H));
    }
    TRY_DONE(MEM_ARRAY(&r.factor, h->H * h->H));
    TRY_DONE(MEM_ARRAY(&r.w, h->H));
    for (r.objective = 0; r.objective < d->objectives; r.objective++) TRY_DONE(fit(&r, h->regression + r.objective * h->H));
done:
    for (int k = 0; k < 2; k++) mem_free(r.part[k].gram), mem_free(r.part[k].rhs);
    mem_free(r.factor);
    mem_free(r.w);
    return err;
}

// --- verbosity -------------------------------------------------------------------------------------------------------------

static double raw_objective(const RewardHead *h, const float *last, int64_t k)
{
    double sum = 0;
    for (int64_t i = 0; i < h->H; i++) sum += (double)h->regression[k * h->H + i] * (double)last[i];
    return sum;
}

// Sums over the training answers that give the correlation of r_k - c r_v with r_v for every c.
typedef struct Moments {
    double n, k, v, kk, vv, kv;
} Moments;

static double correlation(const Moments *m, double c)
{
    double vv = m->vv - m->v * m->v / m->n, kv = m->kv - m->k * m->v / m->n, kk = m->kk - m->k * m->k / m->n;
    double cov = kv - c * vv, var = kk - 2 * c * kv + c * c * vv;
    return var <= 0 || vv <= 0 ? 0 : cov / sqrt(var * vv);
}

static Moments moments(const RewardData *d, const Features *f, const RewardHead *h, int64_t k, int64_t v)
{
    Moments m = {0};
    for (int64_t i = 0; i < d->answers; i++) {
        if (d->held[d->answer[i].row]) continue;
        double a = raw_objective(h, f->last + i * h->H, k), b = raw_objective(h, f->last + i * h->H, v);
        m.n++, m.k += a, m.v += b, m.kk += a * a, m.vv += b * b, m.kv += a * b;
    }
    return m;
}

Err heads_verbosity(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h)
{
    int64_t K = h->objectives, v = s->verbosity;
    if (v < 0) return OK;
    for (int64_t k = 0; k < K; k++) {
        if (k == v) continue;
        Moments m = moments(d, f, h, k, v);
        int step = 0;
        while (step < 19 && fabs(correlation(&m, 0.05 * step)) > 0.03) step++;
        h->transform[v * K + k] = (float)(-0.05 * step);
        log_info("reward", "objective %-20s verbosity penalty %.2f", d->name[k], 0.05 * step);
    }
    return OK;
}

// --- scores ----------------------------------------------------------------------------------------------------------------

void heads_objectives(const RewardHead *h, const float *last, double *out)
{
    int64_t K = h->objectives;
    for (int64_t k = 0; k < K; k++) out[k] = 0;
    for (int64_t j = 0; j < K; j++) {
        double r = raw_objective(h, last, j);
        for (int64_t k = 0; k < K; k++) out[k] += r * (double)h->transform[j * K + k];
    }
}

static Err all_scores(const RewardData *d, const Features *f, const RewardHead *h, Arena *arena, double **out)
{
    Ctx alone = {.threads = 1};
    RewardScores one;
    TRY(ARENA_ARRAY(arena, out, d->answers));
    TRY(ARENA_ARRAY(arena, &one.objectives, h->objectives));
    TRY(ARENA_ARRAY(arena, &one.gate, h->objectives));
    ArenaMark mark = arena_mark(arena);
    for (int64_t i = 0; i < d->answers; i++) {
        one.score = &(*out)[i];
        TRY(reward_score_hidden(&alone, h, arena, 1, f->last + i * h->H, f->gating + i * h->H, &one));
        arena_rewind(arena, mark);
    }
    return OK;
}

Err heads_accuracy(const RewardData *d, const Features *f, const RewardHead *h, bool held, int64_t *right, int64_t *n)
{
    Arena arena = {0};
    double *score;
    Err err = OK;
    *right = *n = 0;
    TRY_DONE(all_scores(d, f, h, &arena, &score));
    for (int64_t i = 0; i < d->pairs; i++) {
        if (d->held[d->answer[d->pair[i].good].row] != held) continue;
        *right += score[d->pair[i].good] > score[d->pair[i].bad];
        ++*n;
    }
done:
    arena_free(&arena);
    return err;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

Err heads_scale(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h)
{
    Arena arena = {0};
    double *score;
    Err err = OK;
    if (s->span <= 0) return OK;
    TRY_DONE(all_scores(d, f, h, &arena, &score));
    MEM_SORT(score, d->answers, ascending);
    double low = score[d->answers / 20], high = score[d->answers - 1 - d->answers / 20];
    CHECK_DONE(high > low, ERR_DATA, "all scores are the same: the data teach the reward model nothing");
    double factor = s->span / (high - low);
    for (int64_t i = 0; i < h->objectives * h->H; i++) h->regression[i] = (float)(h->regression[i] * factor);
    log_info("reward", "objectives scaled by %.4f: the middle 90 %% of the scores are %.4f .. %.4f", factor, low * factor,
             high * factor);
done:
    arena_free(&arena);
    return err;
}
