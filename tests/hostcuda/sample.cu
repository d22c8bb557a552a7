// SPDX-License-Identifier: Apache-2.0
// The device's choice of a token is the CPU sampler's, in every order and with any number of warps: sizes, ties, -inf, penalty, temperature, top-k, top-p,
// numbers at the edge of a cut; and the log-probability's bits.
#include "kernels/cuda/sample.cuh"

#include "tests/hostcuda/arrays.hpp"

#include <algorithm>

extern "C" {
#include "decode/sampler.h"

// Only sampler_draw_rows would call these.
Err cuda_sample(Ctx *, const SampleArgs *) { return ERR_INTERNAL; }
Err ctx_wait(Ctx *) { return ERR_INTERNAL; }
}

struct Case {
    std::vector<float> logits;
    std::vector<uint8_t> seen;
    SamplingParams p;
    double u;
    bool penalised;
};

static uint32_t random_below(uint32_t n)
{
    random_value();
    return (uint32_t)((uint64_t)(state >> 4) * n >> 28);
}
template <typename T> static T one_of(std::initializer_list<T> all) { return all.begin()[random_below((uint32_t)all.size())]; }

// Logits of one kind: spread, steps (many ties), all equal, one far above the others, or mostly -inf.
static std::vector<float> random_logits(int64_t V)
{
    std::vector<float> x((size_t)V);
    const uint32_t kind = random_below(6);
    const float wide = one_of({1.0f, 4.0f, 12.0f, 40.0f});
    for (float &v : x) {
        const float r = random_value() * wide;
        v = kind == 0 ? floorf(r) : kind == 1 ? 2.5f : kind == 2 ? r / 1000 : kind == 3 && random_below(8) ? -INFINITY : r;
    }
    if (kind == 4) x[random_below((uint32_t)V)] = 60;
    if (kind == 3) x[random_below((uint32_t)V)] = 0;
    for (int i = 0; i < 3; i++) x[random_below((uint32_t)V)] = one_of({0.0f, -0.0f, 1.0f, x[0]});
    return x;
}

static Case random_case(int64_t V)
{
    Case c;
    c.logits = random_logits(V);
    c.seen.resize((size_t)V);
    for (uint8_t &s : c.seen) s = random_below(4) == 0;
    c.penalised = random_below(2);
    c.p.temperature = one_of({0.0, 1e-6, 1e-5, 1.0, 0.7, 0.8, 2.0, 0.05});
    c.p.top_p = one_of({1.0, 1.0, 0.95, 0.8, 0.5, 1e-6, 0.999999, 1 - 1e-15});
    c.p.top_k = one_of({0, 0, 1, 2, 20, 1000, (int)V});
    c.p.repetition_penalty = c.penalised ? one_of({1.0, 1.05, 1.5, 0.5}) : 1.0;
    c.u = one_of({0.0, 0.5, 1 - 0x1p-53, (double)random_below(1u << 27) / (1u << 27)});
    return c;
}

// u where a running sum of the CPU's weights reaches it exactly, or nearly.
static void to_an_edge(Case *c, Sampler *s)
{
    if (c->p.temperature < SAMPLE_GREEDY_BELOW) return;
    const float *w = sampler_weights(s, c->logits.data(), c->penalised ? c->seen.data() : nullptr, &c->p);
    if (!w) return;
    double total = 0, sum = 0;
    for (size_t i = 0; i < c->logits.size(); i++) total += (double)w[i];
    for (uint32_t i = 0, n = random_below((uint32_t)c->logits.size()); i <= n; i++) sum += (double)w[i];
    c->u = sum / total < 1 ? sum / total : 1 - 0x1p-53;
}

static bool same(const Case &c, const SampleRow &r, Sampler *s)
{
    float logp = 0;
    const int32_t token = sampler_draw(s, c.logits.data(), c.penalised ? c.seen.data() : nullptr, &c.p, c.u, &logp);
    if (r.token != token)
        return printf("token %d, not %d: V %zu, temperature %g, top_p %.17g, top_k %d, penalty %g, u %.17g\n", r.token, token, c.logits.size(), c.p.temperature,
                      c.p.top_p, (int)c.p.top_k, c.p.repetition_penalty, c.u), false;
    const float got = token < 0 ? logp : (float)((double)r.logit - ((double)r.max + log(r.total)));
    return got == logp || (printf("log-probability %.9g, not %.9g\n", got, logp), false);
}

// All cases have one V: rows of one launch.
static bool check_rows(const std::vector<Case> &all, unsigned threads, Sampler *s)
{
    const size_t V = all[0].logits.size(), rows = all.size();
    std::vector<float> logits;
    std::vector<uint8_t> seen;
    for (const Case &c : all) logits.insert(logits.end(), c.logits.begin(), c.logits.end()), seen.insert(seen.end(), c.seen.begin(), c.seen.end());
    Array<float> logits_(logits);
    Array<uint8_t> seen_(seen);
    std::vector<SampleRow> row;
    for (size_t i = 0; i < rows; i++) row.push_back(sampler_row(&all[i].p, all[i].penalised ? seen_.p + i * V : nullptr, all[i].u));
    Array<SampleRow> row_(row);
    if (!hostcuda::launch("sample_rows", sample_rows, (unsigned)rows, threads, sizeof(sample::Shared), SampleArgs{logits_.p, row_.p, (int64_t)rows, (int64_t)V}))
        return printf("%s\n", hostcuda::report()), false;
    row = row_.read();
    const std::vector<uint8_t> marked = seen_.read();
    for (size_t i = 0; i < rows; i++) {
        if (!same(all[i], row[i], s)) return printf("row %zu, %u threads\n", i, threads), false;
        for (size_t t = 0; t < V; t++)
            if (marked[i * V + t] != (all[i].penalised && (int)t == row[i].token ? 1 : all[i].seen[t])) return printf("seen[%zu] of row %zu\n", t, i), false;
    }
    return true;
}

static bool check_size(int64_t V, int rows, unsigned threads)
{
    Sampler *s;
    if (sampler_new(&s, V)) return false;
    std::vector<Case> all;
    for (int i = 0; i < rows; i++) {
        all.push_back(random_case(V));
        if (i % 3 == 0) to_an_edge(&all.back(), s);
    }
    const bool good = check_rows(all, threads, s);
    sampler_free(s);
    return good;
}

// One case of each that random ones may miss.
static bool check_special(unsigned threads)
{
    const int64_t V = 100;
    Sampler *s;
    if (sampler_new(&s, V)) return false;
    std::vector<Case> all;
    for (float odd : {NAN, -NAN, INFINITY, -INFINITY, 1e30f, -1e30f})
        for (bool everywhere : {false, true}) {
            Case c = random_case(V);
            for (float &x : c.logits) x = everywhere ? odd : random_value();
            c.logits[42] = odd;
            c.p.temperature = 1, c.p.repetition_penalty = 1;
            all.push_back(c);
        }
    const bool good = check_rows(all, threads, s);
    sampler_free(s);
    return good;
}

// A cut behind more candidates than shared memory holds: ties, and values close to each other; and lanes in chunks.
static bool check_large(int64_t V, float spread, double top_p, unsigned threads)
{
    Sampler *s;
    if (sampler_new(&s, V)) return false;
    Case c = {std::vector<float>((size_t)V), std::vector<uint8_t>((size_t)V), {1, top_p, 0, 1, 1}, 0.6, false};
    for (float &x : c.logits) x = random_value() * spread;
    const bool good = check_rows({c}, threads, s);
    sampler_free(s);
    return good;
}

static bool uses_memory()
{
    const std::vector<Exception> exceptions = {
        {"SampleRow row = a.row[blockIdx.x]", "all lanes read the row's question"},
        {"to->", "one thread writes the row's answer"},
        {"row.seen[row.token] = 1", "as the answer"},
        {"s.key[atom_add_shared(&s.keys, 1)]", "in the order in which lanes arrive"},
        {"s.key[i], b = s.key[j]", "bitonic exchanges over less than 16 places"},
        {"s.key[i] = b, s.key[j] = a", "as their loads"},
    };
    state = 5;
    return uses_memory_well({"sample_rows"}, exceptions, [] { return check_size(8192, 4, 256); });
}

int main()
{
    const hostcuda::Order orders[] = {hostcuda::Order::EARLY, hostcuda::Order::LATE, hostcuda::Order::RANDOM};
    for (int seed = 0; seed < 3; seed++) {
        hostcuda::set_order(orders[seed], (uint64_t)seed);
        state = 11 + (uint32_t)seed;
        for (int i = 0; i < 60; i++)
            if (!check_size(1 + random_below(i % 4 ? 40 : 700), 40, 32 << i % 2)) return printf("seed %d\n", seed), 1;
        if (!check_special(64) || !check_size(4097, 6, 512) || !check_size(8200, 4, 256)) return printf("seed %d\n", seed), 1;
        if (!check_large(5000, 0, 0.7, 128) || !check_large(5000, 0.01f, 0.9, 96)) return printf("seed %d, more than fit\n", seed), 1;
    }
    if (!uses_memory()) return 1;
    state = 5;
    return !check_size(128256, 2, 512);
}
