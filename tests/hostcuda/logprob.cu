// SPDX-License-Identifier: Apache-2.0
// The log-probability kernels, mma.sync's and Hopper's, against sums in double: odd vocabularies and widths, soft-cap, tokens without a target, chunks of the vocabulary;
// the same bits in every order and for a row in any company. DPO and LN-DPO on top of them.
#include "kernels/cuda/dpo.cuh"
#include "kernels/cuda/logprob.cuh"
#include "kernels/cuda/logprob_sm90.cuh"
#include "kernels/cuda/tensor_map.hpp"

#include "tests/hostcuda/arrays.hpp"

#include <string>

using hostcuda::launch;
using logprob::Logprob;

struct Case {
    int T, H, V;
    float softcap;
    int every;        // which tokens have a target
    int width = 136;  // of a chunk: no multiple of a tile
};

struct Inputs {
    std::vector<uint16_t> head;
    std::vector<int32_t> target;
    std::vector<float> hidden, coef;  // hidden: values that bf16 can hold
    int64_t stride;
};

static Inputs random_inputs(const Case &c)
{
    Inputs in;
    in.stride = (c.H + 7) / 8 * 8;
    in.head = random_bf16((size_t)(c.V * in.stride));
    for (int i = 0; i < c.T * in.stride; i++) in.hidden.push_back(of_bf16(as_bf16(random_value() / 4)));
    for (int t = 0; t < c.T; t++) in.target.push_back(t % c.every ? -1 : (t * 37 + (t == 0 ? c.V - 1 : 0)) % c.V), in.coef.push_back(random_value());
    return in;
}

struct Result {
    std::vector<float> logp, lse;
    std::vector<uint8_t> best;
    std::vector<uint16_t> gradient;  // [targets][width], chunk after chunk
    bool operator==(const Result &o) const { return logp == o.logp && lse == o.lse && best == o.best && gradient == o.gradient; }
};

static unsigned tiles_of(int n, int tile) { return (unsigned)((n + tile - 1) / tile); }

// Maps of the `rows` tokens that have a target, and of the head.
static bool encode(logprob_sm90::Maps *m, const Logprob &a, int rows)
{
    return encode_map(cuTensorMapEncodeTiled, &m->hidden, a.hidden, a.H, rows, a.hidden_stride, logprob_sm90::TOKENS) &&
           encode_map(cuTensorMapEncodeTiled, &m->head, a.head, a.H, a.V, a.head_stride, logprob_sm90::LOGITS);
}

static bool slices(Form form, const Logprob &a, const logprob_sm90::Maps &m)
{
    if (form == MMA)
        return launch("logprob_slices", logprob_slices, dim3(tiles_of(a.T, product::SIDE), tiles_of(a.V, product::SIDE)), product::THREADS, product::BYTES, a);
    return launch("logprob_slices_sm90", logprob_slices_sm90, dim3(tiles_of(a.T, logprob_sm90::TOKENS), tiles_of(a.V, logprob_sm90::LOGITS)),
                  logprob_sm90::THREADS, logprob_sm90::BYTES, m, a);
}

static bool gradient(Form form, const logprob::Gradient &g, const logprob_sm90::Maps &m)
{
    if (form == MMA)
        return launch("logprob_gradient", logprob_gradient, dim3(tiles_of(g.of.T, product::SIDE), tiles_of(g.width, product::SIDE)), product::THREADS,
                      product::BYTES, g);
    return launch("logprob_gradient_sm90", logprob_gradient_sm90, dim3(tiles_of(g.of.T, logprob_sm90::TOKENS), tiles_of(g.width, logprob_sm90::LOGITS)),
                  logprob_sm90::THREADS, logprob_sm90::BYTES, m, g);
}

static bool run_case(const Case &c, const Inputs &in, int width, Form form, Result *r)
{
    Array<uint16_t> rounded(in.hidden.size()), head(in.head), out((size_t)(c.T * width));
    Array<int32_t> target(in.target), list((size_t)c.T + logprob::LISTED), place((size_t)c.T);
    Array<float> hidden(in.hidden), picked((size_t)c.T), logp((size_t)c.T), lse((size_t)c.T), coef(in.coef);
    Array<uint8_t> best((size_t)c.T);
    Array<logprob::Part> part((size_t)(logprob::slices_of(c.V) * c.T));
    const Logprob a = {head.p, target.p, rounded.p, in.stride, in.stride, list.p, place.p, c.T, c.H, c.V, c.softcap, part.p, picked.p, logp.p, lse.p, best.p};
    bool good = launch("logprob_list", logprob_list, 1, logprob::LIST_THREADS, logprob::LIST_BYTES, a) &&
                launch("logprob_gather", logprob_gather, (unsigned)((c.T + 3) / 4), rows::THREADS, 0, a, hidden.p, in.stride);
    const int rows = good ? list.read()[0] : 0;
    logprob_sm90::Maps m = {};
    good = good && encode(&m, a, rows) && slices(form, a, m) &&
           launch("logprob_combine", logprob_combine, (unsigned)((c.T + 31) / 32), logprob::COMBINE_THREADS, logprob::COMBINE_BYTES, a);
    if (good) r->logp = logp.read(), r->lse = lse.read(), r->best = best.read();
    r->gradient.clear();
    for (int first = 0; good && first < c.V; first += width) {
        const logprob::Gradient g = {a, coef.p, out.p, width, first, width};
        good = gradient(form, g, m);
        for (uint16_t x : out.read())
            if ((int)r->gradient.size() < (first / width + 1) * rows * width) r->gradient.push_back(x);
    }
    if (!good) printf("%s\n", hostcuda::report());
    return good;
}

static std::vector<double> logits_of(const Case &c, const Inputs &in, int t, std::vector<double> *slope)
{
    std::vector<double> x;
    for (int v = 0; v < c.V; v++) {
        double sum = 0;
        for (int h = 0; h < c.H; h++) sum += (double)in.hidden[(size_t)(t * in.stride + h)] * of_bf16(in.head[(size_t)(v * in.stride + h)]);
        const double y = c.softcap > 0 ? c.softcap * tanh(sum / c.softcap) : sum;
        slope->push_back(c.softcap > 0 ? 1 - y / c.softcap * (y / c.softcap) : 1);
        x.push_back(y);
    }
    return x;
}

static bool near(const char *name, int t, double got, double want, double tolerance)
{
    return std::fabs(got - want) <= tolerance || (printf("%s of token %d = %g, not %g\n", name, t, got, want), false);
}

static bool check(const Case &c, const Inputs &in, const Result &r, int width)
{
    int row = 0, rows = 0;
    for (int32_t x : in.target) rows += x >= 0;
    for (int t = 0; t < c.T; t++) {
        if (in.target[t] < 0) {
            if (r.logp[t] != 0 || r.lse[t] != 0 || r.best[t]) return printf("token %d has no target\n", t), false;
            continue;
        }
        std::vector<double> slope;
        const std::vector<double> x = logits_of(c, in, t, &slope);
        double most = -INFINITY, sum = 0;
        for (double y : x) most = std::fmax(most, y);
        for (double y : x) sum += exp(y - most);
        const double lse = most + log(sum), picked = x[in.target[t]];
        if (!near("lse", t, r.lse[t], lse, 3e-6 * (4 + std::fabs(lse))) || !near("logp", t, r.logp[t], picked - lse, 1e-5 * (4 + std::fabs(picked)))) return false;
        if (std::fabs(picked - most) > 1e-4 && r.best[t]) return printf("token %d is not the best\n", t), false;
        if (picked == most && !r.best[t]) return printf("token %d is the best\n", t), false;
        for (int v = 0; v < c.V; v++) {
            const double p = exp(x[v] - lse), want = in.coef[t] * ((v == in.target[t]) - p) * slope[v];
            const double got = of_bf16(r.gradient[(size_t)((v / width * rows + row) * width + v % width)]);
            if (!near("gradient", t, got, want, std::fabs(want) / 256 + 1e-5 * std::fabs(in.coef[t]))) return false;
        }
        row++;
    }
    return true;
}

static int check_case(const Case &c, Form form, const std::string &name)
{
    state = 13;
    const Inputs in = random_inputs(c);
    Result first;
    if (!same_in_every_order(name, &first, [&](int, Result *r) { return run_case(c, in, c.width, form, r); })) return 1;
    if (!check(c, in, first, c.width)) return printf("%s\n", name.c_str()), 1;
    return 0;
}

// A token alone, and the last of many: the same bits.
static int check_company(Form form)
{
    const Case many = {150, 72, 300, 0, 1}, alone = {1, 72, 300, 0, 1};
    state = 17;
    const Inputs in = random_inputs(many);
    Inputs one = in;
    const size_t at = 149 * (size_t)in.stride;
    one.hidden.assign(in.hidden.begin() + (long)at, in.hidden.begin() + (long)at + in.stride);
    one.target = {in.target[149]}, one.coef = {in.coef[149]};
    Result a, b;
    if (!run_case(many, in, 304, form, &a) || !run_case(alone, one, 304, form, &b)) return 1;
    if (a.logp[149] != b.logp[0] || a.lse[149] != b.lse[0]) return printf("a row's bits depend on its company\n"), 1;
    if (!std::equal(b.gradient.begin(), b.gradient.end(), a.gradient.begin() + 149 * 304)) return printf("a gradient's bits depend on its company\n"), 1;
    return 0;
}

// More tokens than logprob_list looks at in one go.
static int check_list()
{
    enum { T = 2500 };
    std::vector<int32_t> target, want;
    state = 29;
    for (int t = 0; t < T; t++) {
        target.push_back(random_value() < 0.5f ? t : -1);
        if (target[t] >= 0) want.push_back(t);
    }
    Array<int32_t> target_(target), list((size_t)T + logprob::LISTED), place_((size_t)T);
    Array<float> logp((size_t)T), lse((size_t)T);
    Logprob a = {};
    a.target = target_.p, a.list = list.p, a.place = place_.p, a.T = T, a.logp = logp.p, a.lse = lse.p;
    if (!launch("logprob_list", logprob_list, 1, logprob::LIST_THREADS, logprob::LIST_BYTES, a)) return printf("%s\n", hostcuda::report()), 1;
    const auto got = list.read(), place = place_.read();
    for (int i = 0; i < (int)want.size(); i++)
        if (place[want[i]] != i) return printf("token %d is not at its place\n", want[i]), 1;
    return (got[0] != (int)want.size() || !std::equal(want.begin(), want.end(), got.begin() + logprob::LISTED)) && printf("the list is wrong\n");
}

// Rows go back to the tokens that they came from; the others get zeros.
static int check_scatter()
{
    enum { T = 9, H = 44, S = 48 };
    std::vector<int32_t> place = {-1, 0, -1, 1, 2, -1, -1, 3, -1};
    std::vector<float> from(4 * S);
    for (auto &x : from) x = random_value();
    Array<int32_t> place_(place);
    Array<float> from_(from), to((size_t)T * S);
    Logprob a = {};
    a.place = place_.p, a.T = T, a.H = H;
    if (!launch("logprob_scatter", logprob_scatter, (T + 3) / 4, rows::THREADS, 0, a, from_.p, (int64_t)S, to.p, (int64_t)S)) return printf("%s\n", hostcuda::report()), 1;
    const auto got = to.read();
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++)
            if (got[t * S + h] != (place[t] < 0 ? 0 : from[place[t] * S + h])) return printf("token %d is not what was scattered\n", t), 1;
    return 0;
}

static int check_dpo(bool length_norm, double smoothing)
{
    enum { T = 100 };
    std::vector<int32_t> target(T);
    std::vector<float> logp(T), reference(T);
    state = 19;
    for (int t = 0; t < T; t++) {
        target[t] = t % 10 ? t : -1;
        logp[t] = target[t] < 0 ? 0 : -1 - random_value(), reference[t] = target[t] < 0 ? 0 : -1 - random_value();
    }
    target[11] = 0;  // a token too
    const std::vector<dpo::Pair> pairs = {{{10, 45}, {45, 60}}, {{60, 62}, {62, 100}}};
    const std::vector<float> untouched(T, -7);
    Array<int32_t> target_(target);
    Array<float> logp_(logp), reference_(reference), coef_(untouched);
    Array<dpo::Pair> pairs_(pairs);
    Array<dpo::Answers> policy_(2), ref_(2);
    Array<dpo::Loss> loss_(2);
    dpo::Dpo a = {pairs_.p, target_.p, reference_.p, nullptr, ref_.p, loss_.p, coef_.p, 0.1, smoothing, 0.5, length_norm};
    bool good = launch("dpo_pairs", dpo_pairs, 2, dpo::THREADS, sizeof(dpo::Shared), a);
    a.reference = ref_.p, a.sums = policy_.p;  // the policy is the reference: ln 2
    good = good && launch("dpo_pairs", dpo_pairs, 2, dpo::THREADS, sizeof(dpo::Shared), a);
    if (!good) return printf("%s\n", hostcuda::report()), 1;
    for (const dpo::Loss &l : loss_.read())
        if (l.loss != 0x1.62e430p-1f) return printf("the first loss is %a\n", (double)l.loss), 1;
    a.logp = logp_.p;
    if (!launch("dpo_pairs", dpo_pairs, 2, dpo::THREADS, sizeof(dpo::Shared), a)) return printf("%s\n", hostcuda::report()), 1;
    const auto loss = loss_.read();
    const auto coef = coef_.read();
    for (int p = 0; p < 2; p++) {
        double lp[2] = {0, 0}, ref[2] = {0, 0}, n[2] = {0, 0};
        for (int k = 0; k < 2; k++)
            for (int t = pairs[p].from[k]; t < pairs[p].to[k]; t++) lp[k] += logp[t], ref[k] += reference[t], n[k] += target[t] >= 0;
        double d[2] = {1, 1};
        for (int k = 0; k < 2 && length_norm; k++) d[k] = n[k];
        const double u = 0.1 * ((lp[0] / d[0] - lp[1] / d[1]) - (ref[0] / d[0] - ref[1] / d[1])), s = 1 / (1 + exp(-u));
        const double want = -(1 - smoothing) * log(s) - smoothing * log(1 - s), slope = -0.1 * ((1 - smoothing) * (1 - s) - smoothing * s);
        if (!near("loss", p, loss[p].loss, want, 1e-6) || !near("reward", p, loss[p].reward[0], 0.1 * (lp[0] - ref[0]) / d[0], 1e-9)) return 1;
        for (int k = 0; k < 2; k++)
            for (int t = pairs[p].from[k]; t < pairs[p].to[k]; t++)
                if (!near("coef", t, coef[t], target[t] < 0 ? 0 : (k ? -1 : 1) * slope / d[k] / 2, 1e-8)) return 1;
    }
    if (coef[3] != -7) return printf("coefficients of other tokens were written\n"), 1;
    return 0;
}

static bool uses_memory(Form form)
{
    const Case c = {96, 128, 512, 0, 1};
    const std::vector<Exception> exceptions = {
        {"a.list[0]", "all lanes read how many rows there are"},
        {"a.place[t]", "a number a row"},
        {"a.picked[", "a number a row, by the lane that has the target's column"},
    };
    const Inputs in = random_inputs(c);
    Result r;
    const std::string slices = form == MMA ? "logprob_slices" : "logprob_slices_sm90", gradient = form == MMA ? "logprob_gradient" : "logprob_gradient_sm90";
    return uses_memory_well({"logprob_list", "logprob_gather", slices, "logprob_combine", gradient}, exceptions, [&] { return run_case(c, in, 512, form, &r); });
}

static bool dpo_uses_memory()
{
    const std::vector<Exception> exceptions = {
        {"a.pair[blockIdx.x]", "all lanes read where an answer begins or ends"},
        {"a.target[t] >= 0", "answers begin and end beside sectors"},
        {"a.reference[blockIdx.x].logp[k]", "a number an answer"},
        {"out->logp[k]", "a number an answer"},
        {"out->reward[k]", "a number an answer"},
        {"a.loss[blockIdx.x].loss", "a number a pair"},
    };
    return uses_memory_well({"dpo_pairs"}, exceptions, [&] { return !check_dpo(true, 0.1); });
}

// Forward and one chunk of the gradient: two products each.
static void time_it(Form form)
{
    const Case c = {128, 512, 512, 0, 1};
    const Inputs in = random_inputs(c);
    Result r;
    speed_of(form == MMA ? "logprob" : "logprob_sm90", 4.0 * c.T * c.H * c.V, [&] { return run_case(c, in, c.V, form, &r); });
}

int main(int argc, char **)
{
    if (argc > 1) return time_forms(time_it);
    const Case cases[] = {
        {140, 72, 300, 0, 3},    // depth beyond one step, not a multiple of it; two tiles of tokens, three of the vocabulary
        {70, 64, 129, 2, 1},     // soft-cap; one token beyond a tile
        {5, 8, 1, 0, 1},
        {9, 200, 128, 0, 100},   // one target
        {130, 392, 257, 3, 1, 264},  // more steps than stages, one column beyond a tile of 256
        {2180, 8, 260, 0, 1, 264},   // more tiles of tokens than a band of blocks, two of the vocabulary
    };
    const auto name = [](Form form, int i) { return (form == MMA ? "mma, case " : "sm90, case ") + std::to_string(i); };
    for (Form form : {MMA, SM90}) {
        if (!is_built(form)) continue;
        int i = 0;
        for (const Case &c : cases)
            if (check_case(c, form, name(form, i++))) return 1;
        if (!uses_memory(form) || check_company(form) || !holds_for_inexact_functions([&] { return !check_case({20, 64, 129, 2, 1}, form, "inexact"); })) return 1;
    }
    return (is_built(MMA) && !no_conflicts()) || !dpo_uses_memory() || check_list() || check_scatter() || check_dpo(true, 0) || check_dpo(false, 0) || check_dpo(true, 0.1);
}
