// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of ops: contexts to try, random arrays, comparisons.
#ifndef IMF_TESTS_OPS_SUPPORT_H
#define IMF_TESTS_OPS_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/ops.h"

// An array with room before and after the values that an op may touch.
static inline float *array(int64_t n)
{
    float *p = NULL;
    assert_int_equal(MEM_ARRAY(&p, n + 64), OK);
    return p;
}

// n values in (-1, 1), a function of seed and index alone.
static inline float *randoms(int64_t n, uint64_t seed)
{
    float *p = array(n);
    for (int64_t i = 0; i < n; i++) {
        uint64_t x = ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u ^ (seed + 1) * 0xD1B54A32D192ED03u;
        x ^= x >> 29, x *= 0xBF58476D1CE4E5B9u, x ^= x >> 32;
        p[i] = (float)((double)(x >> 11) / 4503599627370496.0 - 1.0);
    }
    return p;
}

// The fast contexts of this machine: every ISA level, with oneDNN (where the guard passed) and without, 1 and 2 threads.
enum { MAX_CONTEXTS = 24 };
static inline int contexts(Ctx out[MAX_CONTEXTS])
{
    Ctx best;
    int n = 0;
    assert_int_equal(ctx_init(&best, 2), OK);
    for (int isa = ISA_BASE; isa <= (int)best.isa; isa++)
        for (int threads = 1; threads <= 2; threads++)
            for (int dnnl = 0; dnnl <= (best.gemm_dnnl ? 1 : 0); dnnl++)
                out[n++] = (Ctx){.isa = (Isa)isa, .threads = threads, .gemm_dnnl = dnnl != 0};
    return n;
}

static const Ctx plain_ctx = {.threads = 1, .plain = true};

static inline void close_to(const float *got, const float *want, int64_t n, double tolerance, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * (1 + fabs((double)want[i]))))
            fail_msg("%s[%ld] = %.9g, want %.9g", what, (long)i, (double)got[i], (double)want[i]);
}

static inline void same_bits(const float *got, const float *want, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("%s[%ld] = %.9g, want the same bits as %.9g", what, (long)i, (double)got[i], (double)want[i]);
}

#endif
