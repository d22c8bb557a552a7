// SPDX-License-Identifier: Apache-2.0
// Planted defects of Hopper's instructions: a pipeline of bulk copies and wgmma that is right, and the same with one defect. t25_defects.sh wants the
// right one to pass in every order, and every defect to be found, whatever the order.
#include "kernels/cuda/sm90.cuh"
#include "kernels/cuda/tensor_map.hpp"
#include "tests/hostcuda/find_defects.hpp"

enum { STEPS = 5, STAGES = 2, TILE = 64 * 64 * 2, THREADS = 256, BYTES = TILE + STAGES * TILE + 2 * STAGES * 8 };

// What is wrong.
enum Bad {
    NOTHING,
    NO_INIT_FENCE,
    TOO_FEW_BYTES,
    TOO_MANY_BYTES,
    MISPLACED_COPY,
    COPY_OUTSIDE,
    NO_MAP,
    NO_WAIT_FULL,
    NO_WAIT_EMPTY,
    WRONG_PARITY,
    NO_PARITY,
    COPY_LEFT,
    EARLY_GIVE_BACK,
    ONE_GIVES_BACK,
    NO_PROXY_FENCE,
    NO_WGMMA_FENCE,
    FENCE_BEFORE_WRITE,
    NO_WGMMA_WAIT,
    SHALLOW_WAIT,
    EARLY_HOLD,
    NO_COMMIT,
    WRONG_START,
    WRONG_STRIDE,
    WRONG_LAYOUT,
    OPERAND_OUTSIDE,
    LANES_DIFFER,
    MORE_REGISTERS,
    ODD_REGISTERS
};

struct Pipe {
    TensorMap b;  // [STEPS x 64][64]
    float *out;   // [128 threads][32]
};

template <int BAD> DEVICE void fetch(const Pipe &p, unsigned char *b, uint64_t *full, uint64_t *empty)
{
    for (int step = 0; step < STEPS + (BAD == COPY_LEFT); step++) {
        const int stage = step % STAGES;
        if (BAD != NO_WAIT_EMPTY) mbar_wait(empty + stage, (uint32_t)(step / STAGES & 1) ^ (BAD == WRONG_PARITY ? 0 : 1));
        mbar_arrive_expect(full + stage, BAD == TOO_FEW_BYTES ? TILE / 2 : BAD == TOO_MANY_BYTES ? 2 * TILE : TILE);
        unsigned char *to = b + stage * TILE + (BAD == MISPLACED_COPY ? 16 : BAD == COPY_OUTSIDE ? 4 * TILE : 0);
        tma_load_2d(to, BAD == NO_MAP ? (const TensorMap *)(uintptr_t)p.out : &p.b, 0, step * 64, full + stage);
    }
}

// a: 64 x 64 bf16, written here by the warpgroup's own threads.
DEVICE void write_a(unsigned char *a)
{
    const int t = (int)threadIdx.x % 128;
    for (int i = t; i < 64 * 8; i += 128) st_u4((uint16_t *)(a + at<64>(i / 8, i % 8)), {0x3f803f80u, 0x40003f80u, 0x3f803f80u, 0x3f803f80u});
}

template <int BAD> DEVICE void multiply(float (&x)[8][4], const unsigned char *a, const unsigned char *b, int step)
{
    uint64_t of_a = sm90::operand(a, TILE), of_b = sm90::operand(b, TILE);
    if (BAD == WRONG_START) of_a += 128 >> 4;
    if (BAD == WRONG_STRIDE) of_b += (uint64_t)(16 >> 4) << 32;
    if (BAD == WRONG_LAYOUT) of_b += (uint64_t)1 << 62;
    if (BAD == OPERAND_OUTSIDE) of_b += (3 * TILE) >> 4;
    if (BAD == LANES_DIFFER && threadIdx.x % 128 == 77) of_a += 32 >> 4;
    for (int k = 0; k < 4; k++) wgmma_ss<64>(x, of_a + (uint64_t)(k * 32 >> 4), of_b + (uint64_t)(k * 32 >> 4), step > 0 || k > 0);
}

template <int BAD> DEVICE void compute(const Pipe &p, unsigned char *a, unsigned char *b, uint64_t *full, uint64_t *empty)
{
    float x[8][4];
    if (BAD == FENCE_BEFORE_WRITE) wgmma_fence();
    clear(x);
    write_a(a);
    if (BAD != NO_PROXY_FENCE) fence_proxy_async();
    bar_sync(1, 128);
    for (int step = 0; step < STEPS; step++) {
        const int stage = step % STAGES;
        if (BAD != NO_WAIT_FULL) mbar_wait(full + stage, (uint32_t)(step / STAGES & (BAD == NO_PARITY ? 3 : 1)));
        if (BAD != NO_WGMMA_FENCE && BAD != FENCE_BEFORE_WRITE) wgmma_fence();
        multiply<BAD>(x, a, b + stage * TILE, step);
        if (BAD != NO_COMMIT) wgmma_commit();
        if (BAD == EARLY_GIVE_BACK && threadIdx.x % 32 == 0) mbar_arrive(empty + stage);
        if (BAD == EARLY_HOLD) hold(x);
        if (BAD == SHALLOW_WAIT) wgmma_wait<1>();
        else if (BAD != NO_WGMMA_WAIT) wgmma_wait<0>();
        if (BAD != NO_WGMMA_WAIT && BAD != SHALLOW_WAIT && BAD != NO_COMMIT) hold(x);
        for (int i = 0; i < 32; i++) x[i / 4][i % 4] *= 0.5f;
        if (BAD != EARLY_GIVE_BACK && (BAD == ONE_GIVES_BACK ? threadIdx.x == 128 : threadIdx.x % 32 == 0)) mbar_arrive(empty + stage);
    }
    for (int i = 0; i < 32; i++) p.out[threadIdx.x % 128 * 32 + i] = x[i / 4][i % 4];
}

template <int BAD> __global__ void __launch_bounds__(THREADS, 1) pipeline(const __grid_constant__ Pipe p)
{
    SHARED_MEMORY(shared);
    unsigned char *b = shared + TILE;
    uint64_t *full = (uint64_t *)(b + STAGES * TILE), *empty = full + STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) mbar_init(full + i, 1), mbar_init(empty + i, BAD == ONE_GIVES_BACK ? 1 : 4);
        if (BAD != NO_INIT_FENCE) fence_mbar_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        if (BAD != MORE_REGISTERS) registers_less<40>();
        if (threadIdx.x == 0) fetch<BAD>(p, b, full, empty);
    } else {
        registers_more<256>();
        if (BAD == ODD_REGISTERS) registers_less<100>();
        compute<BAD>(p, shared, b, full, empty);
    }
}

template <int BAD> static bool run()
{
    enum { N = STEPS * 64 * 64 };
    static uint16_t host[N];
    for (int i = 0; i < N; i++) host[i] = 0x3f80;
    uint16_t *b = (uint16_t *)hostcuda::device_alloc(sizeof host);
    Pipe p = {};
    hostcuda::device_write(b, host, sizeof host);
    p.out = (float *)hostcuda::device_alloc(128 * 32 * 4);
    bool good = encode_map(cuTensorMapEncodeTiled, &p.b, b, 64, STEPS * 64, 64, 64);
    good = good && hostcuda::launch("pipeline", pipeline<BAD>, 1, THREADS, BYTES, p);
    hostcuda::device_free(p.out);
    hostcuda::device_free(b);
    return good;
}

static bool run_on_old_device(bool bad)
{
    hostcuda::set_architecture(bad ? 89 : 90);
    const bool good = run<NOTHING>();
    hostcuda::set_architecture(90);
    return good;
}

static const Case cases[] = {
#define CASE(wrong, kind) {#wrong, kind, [](bool bad) { return bad ? run<wrong>() : run<NOTHING>(); }}
    CASE(NO_INIT_FENCE, "barrier"),      CASE(TOO_FEW_BYTES, "barrier"),   CASE(TOO_MANY_BYTES, "deadlock"),      CASE(MISPLACED_COPY, "misaligned"),
    CASE(COPY_OUTSIDE, "out of bounds"), CASE(NO_MAP, "tensor map"),       CASE(NO_WAIT_FULL, "race|unwritten"),  CASE(NO_WAIT_EMPTY, "race"),
    CASE(NO_PARITY, "barrier"),          CASE(COPY_LEFT, "barrier"),       CASE(ONE_GIVES_BACK, "race"),
    CASE(WRONG_PARITY, "race|deadlock"), CASE(EARLY_GIVE_BACK, "race"),    CASE(NO_PROXY_FENCE, "proxy"),         CASE(NO_WGMMA_FENCE, "wgmma"),
    CASE(FENCE_BEFORE_WRITE, "wgmma"),   CASE(NO_WGMMA_WAIT, "wgmma"),     CASE(SHALLOW_WAIT, "wgmma"),           CASE(NO_COMMIT, "wgmma"),
    CASE(WRONG_START, "descriptor"),     CASE(WRONG_STRIDE, "descriptor"), CASE(WRONG_LAYOUT, "descriptor"),      CASE(OPERAND_OUTSIDE, "out of bounds"),
    CASE(EARLY_HOLD, "wgmma"), CASE(LANES_DIFFER, "warp divergence"), CASE(MORE_REGISTERS, "deadlock"), CASE(ODD_REGISTERS, "registers"),
    {"OLD_DEVICE", "architecture", run_on_old_device},
};

int main(int argc, char **argv) { return find_defects(argc, argv, cases, [](const Case &c, bool bad) { return c.go(bad); }); }
