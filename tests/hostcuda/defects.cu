// SPDX-License-Identifier: Apache-2.0
// Planted defects: kernels that are right, and with bad = true each has one. t25_defects.sh wants every right one to pass in
// every order, and every defect to be found, whatever the order, with its kind and the line marked "DEFECT name".
#include "kernels/cuda/ptx.cuh"

#include "tests/hostcuda/find_defects.hpp"

#include <cstdio>
#include <cstdlib>

enum { N = 64 };

// ---- shared memory --------------------------------------------------------------------------------------------------

__global__ void missing_barrier(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    s[t] = 0;
    __syncthreads();
    s[t] = t;
    if (!bad) __syncthreads();
    out[t] = s[(t + 33) % N];  // DEFECT missing_barrier
}

__global__ void missing_syncwarp(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    s[t] = 0;
    __syncthreads();
    s[t] = t;
    if (!bad) __syncwarp();
    out[t] = s[t ^ 1];  // DEFECT missing_syncwarp
}

// A second round overwrites what slower warps still read.
__global__ void early_reuse(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    uint32_t sum = 0;
    for (unsigned round = 0; round < 3; round++) {
        s[t] = t + round;  // DEFECT early_reuse
        __syncthreads();
        sum += s[(t + 32) % N];
        if (!bad) __syncthreads();
    }
    out[t] = sum;
}

// Warps that meet at different named barriers do not meet.
__global__ void wrong_barrier(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    s[t] = 0;
    __syncthreads();
    s[t] = t;
    if (bad) bar_sync(1 + t / 32, 32);
    else bar_sync(1, N);
    out[t] = s[(t + 32) % N];  // DEFECT wrong_barrier
}

__global__ void shared_overrun(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    s[t + (bad ? 1 : 0)] = t;  // DEFECT shared_overrun
    out[t] = t;
}

__global__ void unwritten_shared(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    if (!bad || t != 5) s[t] = t;
    __syncthreads();
    out[t] = s[N - 1 - t];  // DEFECT unwritten_shared
}

struct alignas(16) Four {
    uint32_t v[4];
};

__global__ void misaligned(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    const unsigned t = threadIdx.x;
    if (t < 8) {
        uint64_t *s = (uint64_t *)(shared + t * 8 + (bad ? 4 : 0));
        *s = t;  // DEFECT misaligned
    }
    out[t] = t;
}

// Every thread counts itself; bad: a warp reads the sum before the other has.
__global__ void early_count(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared;
    const unsigned t = threadIdx.x;
    if (t == 0) *s = 0;
    __syncthreads();
    atom_add_shared(s, 1);
    if (!bad) __syncthreads();
    out[t] = *s;  // DEFECT early_count
}

__global__ void sum_outside(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    double *s = (double *)shared;
    const unsigned t = threadIdx.x;
    if (t == 0) *s = 0;
    __syncthreads();
    red_add_shared(s + (bad && t == 9 ? 1 : 0), 0.5);  // DEFECT sum_outside
    __syncthreads();
    out[t] = (uint32_t)*s;
}

// ---- global memory --------------------------------------------------------------------------------------------------

__global__ void global_overrun(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    out[bad ? t + 1 : t] = t;  // DEFECT global_overrun
}

__global__ void unwritten_global(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    if (!bad) out[t] = t;
    out[t] = out[t] + 1;  // DEFECT unwritten_global
}

__global__ void host_pointer(uint32_t *out, const uint32_t *host, bool bad)
{
    const unsigned t = threadIdx.x;
    out[t] = bad ? host[t] : t;  // DEFECT host_pointer
}

__global__ void two_blocks(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    out[bad ? t : t + N * blockIdx.x] = t;  // DEFECT two_blocks
}

// The blocks add their parts in the order of a ticket; bad: without waiting for those before.
__global__ void ticket(uint32_t *out, uint32_t *turn, bool bad)
{
    const unsigned t = threadIdx.x, mine = blockIdx.x;
    if (t == 0 && !bad) spin_until(turn, mine);
    __syncthreads();
    out[t] = (mine ? out[t] * 3 : 1) + mine;  // DEFECT ticket
    __syncthreads();
    if (t == 0) st_release(turn, mine + 1);
}

// ---- threads that do not meet ---------------------------------------------------------------------------------------

__global__ void early_exit(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    out[t] = t;
    if (bad && t == 7) return;
    __syncthreads();  // DEFECT early_exit
}

__global__ void lanes_apart(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    if (bad && t % 2) out[t] = __ballot_sync(~0u, 1);
    else out[t] = __shfl_xor_sync(~0u, t, 1);  // DEFECT lanes_apart
    if (bad && t % 2 == 0) __ballot_sync(~0u, 1);
}

// A lane that leaves out a product leaves its warp waiting.
__global__ void lane_skips_mma(uint32_t *out, bool bad)
{
    const unsigned t = threadIdx.x;
    const uint32_t a[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80}, b[2] = {0x3f803f80, 0x3f803f80};  // ones
    float d[4] = {1, 2, 3, 4};
    if (!bad || t != 3) mma_m16n8k16(d, a, b);
    out[t] = (uint32_t)(d[0] + d[3]);  // DEFECT lane_skips_mma
}

__global__ void matrix_outside(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *s = (uint32_t *)shared, v[4];
    const unsigned t = threadIdx.x;
    for (int i = 0; i < 4; i++) s[i * N + t] = t;
    __syncthreads();
    ldmatrix_x4(v, shared + t * 16 + (bad ? 16 : 0));  // DEFECT matrix_outside
    out[t] = v[0] + v[3];
}

__global__ void barrier_count(uint32_t *out, bool bad)
{
    out[threadIdx.x] = 1;
    bar_sync(2, bad && threadIdx.x < 32 ? 64 : 96);  // DEFECT barrier_count
    out[threadIdx.x] = 2;
}

__global__ void no_arrival(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint64_t *bar = (uint64_t *)shared;
    const unsigned t = threadIdx.x;
    if (t == 0) mbar_init(bar, N / 2);
    __syncthreads();
    if (t < 32) mbar_wait(bar, 0);  // DEFECT no_arrival
    else if (!bad) mbar_arrive(bar);
    out[t] = t;
}

__global__ void barrier_unmade(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint64_t *bar = (uint64_t *)shared;
    if (threadIdx.x == 0) mbar_init(bar, N);
    if (!bad) __syncthreads();
    mbar_arrive(bar);  // DEFECT barrier_unmade
    mbar_wait(bar, 0);
    out[threadIdx.x] = 1;
}

__global__ void wrong_parity(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint64_t *bar = (uint64_t *)shared;
    if (threadIdx.x == 0) mbar_init(bar, N);
    __syncthreads();
    mbar_arrive(bar);
    mbar_wait(bar, bad ? 2 : 0);  // DEFECT wrong_parity
    out[threadIdx.x] = 1;
}

// Warp 1 fills, warp 0 reads, two slots; bad: the reader gives a slot back before it has read it.
__global__ void early_release(uint32_t *out, bool bad)
{
    SHARED_MEMORY(shared);
    uint32_t *slot = (uint32_t *)shared;
    uint64_t *full = (uint64_t *)(slot + 64), *empty = full + 2;
    const unsigned t = threadIdx.x, lane = t % 32;
    if (t == 0)
        for (int i = 0; i < 2; i++) {
            mbar_init(full + i, 32);
            mbar_init(empty + i, 32);
        }
    __syncthreads();
    uint32_t sum = 0;
    for (unsigned i = 0; i < 6; i++) {
        const unsigned s = i % 2, phase = i / 2 % 2;
        if (t >= 32) {
            mbar_wait(empty + s, phase ^ 1);
            slot[s * 32 + lane] = i * 100 + lane;  // DEFECT early_release
            mbar_arrive(full + s);
        } else {
            mbar_wait(full + s, phase);
            if (bad) mbar_arrive(empty + s);
            sum += slot[s * 32 + (lane + 1) % 32];
            if (!bad) mbar_arrive(empty + s);
        }
    }
    out[t] = sum;
}

// ---- asynchronous copies ----------------------------------------------------------------------------------------------

__global__ void missing_wait(uint32_t *out, const Four *in, bool bad)
{
    SHARED_MEMORY(shared);
    Four *s = (Four *)shared;
    const unsigned t = threadIdx.x;
    cp_async16(&s[t], &in[t]);
    cp_async_commit();
    if (!bad) cp_async_wait<0>();
    __syncthreads();
    out[t] = s[N - 1 - t].v[1];  // DEFECT missing_wait
}

__global__ void wait_without_barrier(uint32_t *out, const Four *in, bool bad)
{
    SHARED_MEMORY(shared);
    Four *s = (Four *)shared;
    const unsigned t = threadIdx.x;
    s[t] = {{0, 0, 0, 0}};
    __syncthreads();
    cp_async16(&s[t], &in[t]);
    cp_async_commit();
    cp_async_wait<0>();
    if (!bad) __syncthreads();
    out[t] = s[N - 1 - t].v[1];  // DEFECT wait_without_barrier
}

// Two copies in flight; wait<1> is right for the first of them only.
__global__ void shallow_wait(uint32_t *out, const Four *in, bool bad)
{
    SHARED_MEMORY(shared);
    Four *s = (Four *)shared;
    const unsigned t = threadIdx.x;
    cp_async16(&s[t], &in[t]);
    cp_async_commit();
    cp_async16(&s[N + t], &in[N + t]);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    uint32_t v = s[N - 1 - t].v[0];
    if (!bad) cp_async_wait<0>();
    __syncthreads();
    out[t] = v + s[N + (t + 1) % N].v[0];  // DEFECT shallow_wait
}

__global__ void misaligned_copy(uint32_t *out, const Four *in, bool bad)
{
    SHARED_MEMORY(shared);
    const unsigned t = threadIdx.x;
    cp_async16(shared + t * 16, (const char *)&in[t] + (bad ? 8 : 0));  // DEFECT misaligned_copy
    cp_async_commit();
    cp_async_wait<0>();
    out[t] = t;
}

__global__ void nothing(uint32_t *out, bool) { out[threadIdx.x] = threadIdx.x; }

// ---- the table --------------------------------------------------------------------------------------------------------

static uint32_t *out, *turn;
static Four *in;
static uint32_t host[N];

static void prepare()
{
    Four fill[2 * N];
    for (int i = 0; i < 2 * N; i++) fill[i] = {{(uint32_t)i, (uint32_t)i + 1, 0, 0}};
    out = (uint32_t *)hostcuda::device_alloc(N * 4);
    turn = (uint32_t *)hostcuda::device_alloc(4);
    in = (Four *)hostcuda::device_alloc(sizeof fill);
    hostcuda::device_set(turn, 0, 4);
    hostcuda::device_write(in, fill, sizeof fill);
}

static void release()
{
    hostcuda::device_free(out);
    hostcuda::device_free(turn);
    hostcuda::device_free(in);
}

#define GO(kernel, blocks, shared, ...) hostcuda::launch(#kernel, kernel, blocks, N, shared, __VA_ARGS__)

static bool go_two_blocks(bool bad)
{
    uint32_t *both = (uint32_t *)hostcuda::device_alloc(2 * N * 4);
    const bool good = GO(two_blocks, 2, 0, both, bad);
    hostcuda::device_free(both);
    return good;
}

static bool go_barrier_count(bool bad)
{
    uint32_t *wide = (uint32_t *)hostcuda::device_alloc(96 * 4);
    const bool good = hostcuda::launch("barrier_count", barrier_count, 1, 96, 0, wide, bad);
    hostcuda::device_free(wide);
    return good;
}

static const Case cases[] = {
#define PLAIN(name, kind, shared) {#name, kind, [](bool bad) { return GO(name, 1, shared, out, bad); }}
#define COPY(name, kind) {#name, kind, [](bool bad) { return GO(name, 1, 2 * N * sizeof(Four), out, in, bad); }}
    PLAIN(missing_barrier, "race", N * 4),
    PLAIN(missing_syncwarp, "race", N * 4),
    PLAIN(early_reuse, "race", N * 4),
    PLAIN(wrong_barrier, "race", N * 4),
    PLAIN(shared_overrun, "out of bounds", N * 4),
    PLAIN(unwritten_shared, "unwritten", N * 4),
    PLAIN(misaligned, "misaligned", N * 4),
    PLAIN(early_count, "race", 4),
    PLAIN(sum_outside, "out of bounds", 8),
    PLAIN(global_overrun, "out of bounds", 0),
    PLAIN(unwritten_global, "unwritten", 0),
    PLAIN(early_exit, "barrier divergence", 0),
    PLAIN(lanes_apart, "warp divergence", 0),
    PLAIN(lane_skips_mma, "deadlock", 0),
    PLAIN(matrix_outside, "out of bounds", N * 16),
    PLAIN(no_arrival, "deadlock", 8),
    PLAIN(barrier_unmade, "", 8),
    PLAIN(wrong_parity, "barrier", 8),
    PLAIN(early_release, "race", 64 * 4 + 32),
    COPY(missing_wait, "race"),
    COPY(wait_without_barrier, "race"),
    COPY(shallow_wait, "race"),
    COPY(misaligned_copy, "misaligned"),
    {"barrier_count", "barrier divergence", go_barrier_count},
    {"host_pointer", "out of bounds", [](bool bad) { return GO(host_pointer, 1, 0, out, (const uint32_t *)host, bad); }},
    {"two_blocks", "race", go_two_blocks},
    {"ticket", "", [](bool bad) { hostcuda::device_set(turn, 0, 4); return GO(ticket, 5, 0, out, turn, bad); }},
    {"too_much_shared", "launch", [](bool bad) { return GO(nothing, 1, bad ? 227 * 1024 + 1 : 227 * 1024, out, false); }},
    {"too_many_threads", "launch", [](bool bad) { return hostcuda::launch("nothing", nothing, 1, bad ? 1025 : N, 0, out, false); }},
};

int main(int argc, char **argv)
{
    return find_defects(argc, argv, cases, [](const Case &c, bool bad) {
        prepare();
        const bool good = c.go(bad);
        release();
        return good;
    });
}
