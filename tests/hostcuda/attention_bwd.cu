// SPDX-License-Identifier: Apache-2.0
// attn_bwd_* and attn_bwd_sm90_main against the gradient in double: head sizes, GQA, shared prefixes, soft-cap, window, padding; the same bits in every order, and
// for a segment wherever it lies in its row.
#include "tests/hostcuda/attention_bwd.hpp"

static bool near(const char *name, const std::vector<uint16_t> &got, const Sum &want, double part)
{
    for (size_t i = 0; i < got.size(); i++)
        if (!(std::fabs(of_bf16(got[i]) - want.value[i]) <= want.size[i] * part + 1e-6))
            return printf("%s[%zu] = %g, not %g\n", name, i, of_bf16(got[i]), want.value[i]), false;
    return true;
}

// A rounding to bf16 moves a value by up to 2^-8 of it. dv: the weight and the output are rounded. dq, dk: dS and the output; and delta, from
// an output whose weights were rounded and itself.
static bool check(const Definition &def, const std::vector<uint16_t> &dout, const Result &r)
{
    const Case &c = def.c;
    const Want w = gradient_of(def, dout);
    return near("dq", r.dq, w.dq, 1.0 / 64) && near("dk", r.dk, w.dk, 1.0 / 64) && near("dv", r.dv, w.dv, 1.0 / 128) &&
           def.padding_is_zero(r.dq, c.N * c.D, "dq") && def.padding_is_zero(r.dk, c.K * c.D, "dk") && def.padding_is_zero(r.dv, c.K * c.D, "dv");
}

// The first query of segment 0 that does not see key 0 any more would give it most of its weight.
static void tempt(const Case &c, Inputs *in)
{
    const Seg &g = c.seg[0];
    if (c.window <= 0 || c.window >= g.len) return;
    for (int d = 0; d < c.D; d++) in->k[(size_t)g.start * c.K * c.D + d] = in->q[(size_t)(g.start + c.window) * c.N * c.D + d];
}

static int check_case(const Case &c, Form form, const std::string &name)
{
    state = 11;
    Inputs in = random_inputs(c);
    tempt(c, &in);
    std::vector<uint16_t> dout = random_bf16(c.queries());
    const std::vector<bool> used = c.used();
    for (size_t i = 0; i < dout.size(); i++)
        if (!used[i / (c.N * c.D)]) dout[i] = 0x7fc0;  // NaN, as the inputs' padding
    Result first;
    if (!same_in_every_order(name, &first, [&](int, Result *r) { return run_case(c, in, dout, form, r); })) return 1;
    if (!check({c, in}, dout, first)) return printf("%s\n", name.c_str()), 1;
    return 0;
}

// A segment alone at the start of its row, and the same tokens behind another segment: the same bits.
static int check_place(Form form)
{
    enum { D = 64, L = 100, BEFORE = 37 };
    const Case alone = {D, L, 2, 1, {{0, L, -1, 0}}, 0, 0}, behind = {D, L + BEFORE, 2, 1, {{0, BEFORE, -1, 0}, {BEFORE, L, -1, 0}}, 0, 0};
    state = 9;
    const Inputs in = random_inputs(behind);
    const std::vector<uint16_t> dout = random_bf16(behind.queries());
    const auto tail = [](const std::vector<uint16_t> &x, int width) { return std::vector<uint16_t>(x.begin() + (size_t)BEFORE * width, x.end()); };
    Result a, b;
    if (!run_case(behind, in, dout, form, &b) || !run_case(alone, {tail(in.q, 2 * D), tail(in.k, D), tail(in.v, D)}, tail(dout, 2 * D), form, &a)) return 1;
    if (a.dq != tail(b.dq, 2 * D) || a.dk != tail(b.dk, D) || a.dv != tail(b.dv, D)) return printf("a segment's bits depend on its place\n"), 1;
    return 0;
}

static void time_it(Form form)
{
    const Case c = {128, 512, 2, 1, {{0, 512, -1, 0}}, 0, 0};
    const Inputs in = random_inputs(c);
    const std::vector<uint16_t> dout = random_bf16(c.queries());
    OnDevice f(c, in);
    Result r;
    if (f.run(form)) speed_of(form == MMA ? "attn_bwd, D128" : "attn_bwd_sm90, D128", 10 * c.products_in_tiles(), [&] { return run_form(c, &f, dout, form, &r); });
}

static bool uses_memory(Form form, int D)
{
    const Case c = {D, 152, 2, 1, {{0, 144, -1, 0}}, 0, 0};
    const Inputs in = random_inputs(c);
    const std::vector<uint16_t> dout = random_bf16(c.queries());
    OnDevice f(c, in);
    Result r;
    if (!f.run(form)) return false;
    std::vector<Exception> exceptions = TABLE;
    exceptions.push_back({"a.table.seg[v.seg]", "all lanes read one segment"});
    exceptions.push_back({"a.delta[n * a.table.T + token] = sum", "a number a row"});
    exceptions.push_back({"a.turn[i] = 0", "as many numbers as there are turns, and one"});
    if (form == MMA) exceptions.push_back({"(dp[j][i] - delta[query])", "lanes whose weight is hidden read none, and are counted with the others' next read"});
    exceptions.push_back({"dq[j * 4] = pack_bf16", "half a sector; the next store writes the other half (attn_bwd.cuh says why)"});
    return uses_memory_well({form == MMA ? "attn_bwd_prepare" : "attn_bwd_prepare_sm90", form == MMA ? "attn_bwd_main" : "attn_bwd_sm90", "attn_clear_padding"}, exceptions,
                            [&] { return run_form(c, &f, dout, form, &r); });
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
        {64, 192, 1, 1, {{0, 192, -1, 0}}, 0, 65},  // the last key of a tile is the last that the first query of another sees
        {64, 384, 1, 1, {{0, 384, -1, 0}}, 0, 255},  // the first key of a tile is the last that the last query of another does not see
        {256, 130, 1, 1, {{0, 130, -1, 0}}, 3, 17},
        {64, 1, 1, 1, {{0, 1, -1, 0}}, 0, 0},
        {64, 60, 1, 1, {{0, 29, -1, 0}, {29, 31, -1, 0}}, 0, 0},  // segments that end within the upper half of a warp's queries
        {64, 700, 1, 1, {{0, 300, -1, 0}, {300, 390, 0, 300}}, 0, 0},  // more tiles than stages
        {128, 270, 2, 1, {{0, 260, -1, 0}}, 0, 100},
    };
    for (Form form : {MMA, SM90}) {
        if (!is_built(form)) continue;
        int i = 0;
        for (const Case &c : cases) {
            const std::string name = (form == MMA ? "mma, case " : "sm90, case ") + std::to_string(i++);
            if (check_case(c, form, name)) return 1;
        }
        if (check_place(form)) return 1;
        for (int D : {64, 128, 256})
            if (!uses_memory(form, D)) return 1;
        if (!holds_for_inexact_functions([&] { return !check_case({64, 80, 1, 1, {{0, 80, -1, 0}}, 5, 0}, form, "inexact"); })) return 1;
    }
    return !no_conflicts();
}
