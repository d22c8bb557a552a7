// SPDX-License-Identifier: Apache-2.0
// Random inputs and device arrays for tests of kernels.
#ifndef TESTS_HOSTCUDA_ARRAYS_HPP
#define TESTS_HOSTCUDA_ARRAYS_HPP

#include "kernels/cuda/ptx.cuh"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>
#include <string>
#include <vector>

static uint32_t state;  // of the random numbers

static float random_value()
{
    state = state * 1664525u + 1013904223u;
    return ((float)(state >> 8) / (1 << 23) - 1) * 1.7f;
}

static inline float of_bf16(uint16_t v) { return low_bf16(v); }
static inline uint16_t as_bf16(float v) { return (uint16_t)pack_bf16(v, 0); }

static inline std::vector<uint16_t> random_bf16(size_t n)
{
    std::vector<uint16_t> v(n);
    for (auto &x : v) x = as_bf16(random_value());
    return v;
}

// Device memory of n values, written by the host or not yet.
template <typename T> struct Array {
    T *p;
    size_t n;

    explicit Array(size_t n_) : p((T *)hostcuda::device_alloc(n_ * sizeof(T))), n(n_) {}
    explicit Array(const std::vector<T> &v) : Array(v.size()) { hostcuda::device_write(p, v.data(), n * sizeof(T)); }
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    ~Array() { hostcuda::device_free(p); }
    std::vector<T> read() const
    {
        std::vector<T> v(n);
        hostcuda::device_read(v.data(), p, n * sizeof(T));
        return v;
    }
};

// Which kernels a test runs: mma.sync's and Hopper's. With -DFORM=SM90 (tools/mutate.py) a program has one of them alone and is built in half the time.
enum Form { MMA, SM90 };
#ifdef FORM
static constexpr bool is_built(Form f) { return f == FORM; }
#else
static constexpr bool is_built(Form) { return true; }
#endif

// run(seed, &result) in every order, with the same bits.
template <typename R, typename Run> static bool same_in_every_order(const std::string &name, R *first, Run run)
{
    const hostcuda::Order orders[] = {hostcuda::Order::EARLY, hostcuda::Order::LATE, hostcuda::Order::RANDOM};
    R r;
    for (int seed = 0; seed < 3; seed++) {
        hostcuda::set_order(orders[seed], (uint64_t)seed);
        if (!run(seed, seed ? &r : first)) return printf("%s: refused\n", name.c_str()), false;
        if (seed && !(r == *first)) return printf("%s: other bits in another order\n", name.c_str()), false;
    }
    return true;
}

// Does `check` hold with special functions that are as wrong as a GPU's may be?
template <typename Check> static bool holds_for_inexact_functions(Check check)
{
    bool good = true;
    for (uint64_t seed = 1; good && seed <= 20; seed++) {
        hostcuda::set_numeric_seed(seed);
        good = check();
        if (!good) printf("numeric seed %d\n", (int)seed);
    }
    hostcuda::set_numeric_seed(0);
    return good;
}

// No ldmatrix since the start met a bank conflict.
static inline bool no_conflicts()
{
    const hostcuda::Counts c = hostcuda::take_counts();
    if (!c.loads || c.conflicts) printf("%llu bank conflicts in %llu ldmatrix\n", (unsigned long long)c.conflicts, (unsigned long long)c.loads);
    return c.loads && !c.conflicts;
}

// Lines of kernels that hold `text` need not use memory well, for the reason that is given.
struct Exception {
    const char *text, *why;
    bool needed = false;
};

// "kernels/cuda/x.cuh:12 (f)": the text of that line.
static inline std::string text_of_line(const std::string &line)
{
    const size_t colon = line.find(':');
    std::ifstream file(line.substr(0, colon));
    std::string text;
    for (int n = colon == std::string::npos ? 0 : atoi(line.c_str() + colon + 1); n > 0; n--) std::getline(file, text);
    return text;
}

static inline bool is_excepted(const std::string &line, std::vector<Exception> *exceptions)
{
    const std::string text = text_of_line(line);
    for (Exception &e : *exceptions)
        if (text.find(e.text) != std::string::npos) return e.needed = true;
    return false;
}

// Code that is not (make cuda-coverage) moves structs and the bounds of loops in pieces of its own.
#ifdef __OPTIMIZE__
static constexpr bool IS_OPTIMISED = true;
#else
static constexpr bool IS_OPTIMISED = false;
#endif

// Runs with accesses counted. All these kernels run, and no others; every line of theirs meets no bank conflict and uses 95 % of the sectors that it
// touches, but for the exceptions, which are all needed.
template <typename Run> static bool uses_memory_well(const std::set<std::string> &kernels, std::vector<Exception> exceptions, Run run)
{
    hostcuda::set_order(hostcuda::Order::RANDOM, 1);
    hostcuda::count(true);
    hostcuda::take_accesses();
    bool good = run();
    hostcuda::count(false);
    if (!IS_OPTIMISED) return good;
    std::set<std::string> seen;
    for (const hostcuda::Accesses &a : hostcuda::take_accesses()) {
        seen.insert(a.kernel);
        if (a.part() >= (a.shared ? 1.0 : 0.95) || is_excepted(a.line, &exceptions)) continue;
        printf("%s, %s: %s memory used for %.3f\n", a.kernel.c_str(), a.line.c_str(), a.shared ? "shared" : "global", a.part());
        good = false;
    }
    for (const Exception &e : exceptions)
        if (!e.needed) printf("no line with %s is an exception (%s)\n", e.text, e.why), good = false;
    return good && (seen == kernels || (printf("%s and others: not these kernels were counted\n", kernels.begin()->c_str()), false));
}

// Of one core, whatever else the machine does.
static inline double core_seconds()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// GFLOP/s of a run, the best of a few; 0: it was refused.
template <typename Run> static double speed_of(const char *name, double flop, Run run)
{
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const double from = core_seconds();
        if (!run()) return printf("%s: %s\n", name, hostcuda::report()), 0;
        best = std::fmax(best, 1e-9 * flop / (core_seconds() - from));
    }
    printf("%-32s %6.2f GFLOP/s a core on hostcuda\n", name, best);
    return best;
}

// What a test does with an argument, in place of its checks.
static inline int time_forms(void (*time_it)(Form))
{
    for (Form form : {MMA, SM90})
        if (is_built(form)) time_it(form);
    return 0;
}

#endif
