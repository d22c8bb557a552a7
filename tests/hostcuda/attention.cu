// SPDX-License-Identifier: Apache-2.0
// attn_fwd and attn_fwd_sm90 against sums in double: head sizes, GQA, shared prefixes, soft-cap, window, padding; the same bits in every order, and for
// a segment wherever it lies in its row.
#include "tests/hostcuda/attention.hpp"

struct Result {
    std::vector<uint16_t> o;
    std::vector<float> lse;
    bool operator==(const Result &r) const { return o == r.o && lse == r.lse; }
};

static bool run_case(const Case &c, const Inputs &in, Form form, Result *r)
{
    OnDevice d(c, in);
    if (!d.run(form)) return printf("%s\n", hostcuda::report()), false;
    r->o = d.o.read(), r->lse = d.lse.read();
    return true;
}

// The weights are rounded to bf16 (by at most 2^-8 of their size each), and so is the output.
static bool check_row(const Definition &def, const Result &r, const Seg &g, int i, int n)
{
    const Case &c = def.c;
    const int token = g.start + i;
    double lse;
    const std::vector<Seen> keys = def.keys_of(g, i, n, &lse);
    const double got_lse = r.lse[(size_t)n * c.T + token];
    if (!(std::fabs(got_lse - lse) < 1e-5 * (1 + std::fabs(lse)))) return printf("lse[%d][%d] = %g, not %g\n", n, token, got_lse, lse), false;
    for (int d = 0; d < c.D; d++) {
        double want = 0, size = 0;
        for (const Seen &s : keys) {
            const double x = exp(s.score - lse) * def.v(s.key, n, d);
            want += x, size += std::fabs(x);
        }
        const double got = of_bf16(r.o[((size_t)token * c.N + n) * c.D + d]);
        if (!(std::fabs(got - want) <= size / 128 + 1e-6)) return printf("o[%d][%d][%d] = %g, not %g\n", token, n, d, got, want), false;
    }
    return true;
}

static bool check(const Definition &def, const Result &r)
{
    for (const Seg &g : def.c.seg)
        for (int i = 0; i < g.len; i++)
            for (int n = 0; n < def.c.N; n++)
                if (!check_row(def, r, g, i, n)) return false;
    return def.padding_is_zero(r.o, def.c.N * def.c.D, "o");
}

static int check_case(const Case &c, Form form, const std::string &name)
{
    state = 7;
    const Inputs in = random_inputs(c);
    Result first;
    if (!same_in_every_order(name, &first, [&](int, Result *r) { return run_case(c, in, form, r); })) return 1;
    if (!check({c, in}, first)) return printf("%s\n", name.c_str()), 1;
    return 0;
}

// A segment alone at the start of its row, and the same tokens behind another segment: the same bits.
static int check_place(Form form)
{
    enum { D = 64, L = 100, BEFORE = 37 };
    const Case alone = {D, L, 2, 1, {{0, L, -1, 0}}, 0, 0}, behind = {D, L + BEFORE, 2, 1, {{0, BEFORE, -1, 0}, {BEFORE, L, -1, 0}}, 0, 0};
    state = 9;
    const Inputs in = random_inputs(behind);
    const auto tail = [](const std::vector<uint16_t> &x, int width) { return std::vector<uint16_t>(x.begin() + (size_t)BEFORE * width, x.end()); };
    Result a, b;
    if (!run_case(behind, in, form, &b) || !run_case(alone, {tail(in.q, 2 * D), tail(in.k, D), tail(in.v, D)}, form, &a)) return 1;
    if (a.o != tail(b.o, 2 * D)) return printf("a segment's bits depend on its place\n"), 1;
    return 0;
}

static bool uses_memory(Form form, int D)
{
    const Case c = {D, 152, 2, 1, {{0, 144, -1, 0}}, 0, 0};
    const Inputs in = random_inputs(c);
    Result r;
    std::vector<Exception> exceptions = TABLE;
    exceptions.push_back({"lse[(int64_t)n * t.T + token] = 0", "a number a head of a token that is padding"});
    return uses_memory_well({form == MMA ? "attn_fwd" : "attn_fwd_sm90", "attn_clear_padding"}, exceptions, [&] { return run_case(c, in, form, &r); });
}

static void time_it(Form form)
{
    const Case c = {128, 512, 2, 1, {{0, 512, -1, 0}}, 0, 0};
    const Inputs in = random_inputs(c);
    OnDevice d(c, in);
    speed_of(form == MMA ? "attn_fwd, D128" : "attn_fwd_sm90, D128", 4 * c.products_in_tiles(), [&] { return d.run(form); });
}

int main(int argc, char **)
{
    if (argc > 1) return time_forms(time_it);
    const Case cases[] = {
        {64, 200, 4, 2, PAIR, 0, 0},
        {128, 200, 2, 1, PAIR, 0, 0},
        {256, 200, 2, 2, PAIR, 0, 0},
        {128, 200, 2, 2, PAIR, 5, 0},
        {64, 200, 2, 1, PAIR, 0, 40},
        {64, 192, 1, 1, {{0, 192, -1, 0}}, 0, 127},  // the first key of a tile is the last that the last query does not see
        {256, 130, 1, 1, {{0, 130, -1, 0}}, 3, 17},
        {64, 1, 1, 1, {{0, 1, -1, 0}}, 0, 0},
        {64, 700, 1, 1, {{0, 300, -1, 0}, {300, 390, 0, 300}}, 0, 0},  // more tiles than stages
        {128, 530, 2, 1, {{0, 520, -1, 0}}, 0, 200},
        {256, 270, 1, 1, {{0, 270, -1, 0}}, 0, 0},
        {64, 270, 1, 1, {{0, 270, -1, 0}}, 5, 0},
    };
    for (Form form : {MMA, SM90}) {
        if (!is_built(form)) continue;
        int i = 0;
        for (const Case &c : cases)
            if (check_case(c, form, (form == MMA ? "mma, case " : "sm90, case ") + std::to_string(i++))) return 1;
        if (check_place(form)) return 1;
        for (int D : {64, 128, 256})
            if (!uses_memory(form, D)) return 1;
        if (!holds_for_inexact_functions([&] { return !check_case({64, 100, 1, 1, {{0, 100, -1, 0}}, 5, 0}, form, "inexact"); })) return 1;
    }
    return is_built(MMA) && !no_conflicts();  // the other form has no ldmatrix
}
