// SPDX-License-Identifier: Apache-2.0
// The device form of wgmma (sm_90a): included by ptx.cuh only.
//
// d[64][N] (+)= a[64][16] . b[16][N], bf16 with fp32 sums, by the 128 threads of a warpgroup, asynchronous. a lies in shared memory (ss) or in
// registers, as mma_m16n8k16's fragments do (rs); b in shared memory, N rows of 16 values, or, TURN_B, 16 rows of N. wgmma_fence before the
// first one and after a register of d or a was touched; nobody touches them until wgmma_wait says that the group is over.
#ifndef IMF_CUDA_WGMMA_CUH
#define IMF_CUDA_WGMMA_CUH

// Ten operands: their names in the text, and the registers. t: the tens, empty for the first.
#define TEN_NAMES(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9"
#define REGISTER(i) "+f"(d[(i) / 4][(i) % 4])
#define TEN_REGISTERS(t)                                                                                           \
    REGISTER(t##0), REGISTER(t##1), REGISTER(t##2), REGISTER(t##3), REGISTER(t##4), REGISTER(t##5), REGISTER(t##6), \
        REGISTER(t##7), REGISTER(t##8), REGISTER(t##9)

#define NAMES_32 TEN_NAMES() "," TEN_NAMES(1) "," TEN_NAMES(2) ",%30,%31"
#define NAMES_40 TEN_NAMES() "," TEN_NAMES(1) "," TEN_NAMES(2) "," TEN_NAMES(3)
#define NAMES_64 NAMES_40 "," TEN_NAMES(4) "," TEN_NAMES(5) ",%60,%61,%62,%63"
#define NAMES_128                                                                                                      \
    NAMES_40 "," TEN_NAMES(4) "," TEN_NAMES(5) "," TEN_NAMES(6) "," TEN_NAMES(7) "," TEN_NAMES(8) "," TEN_NAMES(9) "," \
             TEN_NAMES(10) "," TEN_NAMES(11) ",%120,%121,%122,%123,%124,%125,%126,%127"
#define REGISTERS_32 TEN_REGISTERS(), TEN_REGISTERS(1), TEN_REGISTERS(2), REGISTER(30), REGISTER(31)
#define REGISTERS_40 TEN_REGISTERS(), TEN_REGISTERS(1), TEN_REGISTERS(2), TEN_REGISTERS(3)
#define REGISTERS_64 REGISTERS_40, TEN_REGISTERS(4), TEN_REGISTERS(5), REGISTER(60), REGISTER(61), REGISTER(62), REGISTER(63)
#define REGISTERS_128                                                                                                     \
    REGISTERS_40, TEN_REGISTERS(4), TEN_REGISTERS(5), TEN_REGISTERS(6), TEN_REGISTERS(7), TEN_REGISTERS(8),               \
        TEN_REGISTERS(9), TEN_REGISTERS(10), TEN_REGISTERS(11), REGISTER(120), REGISTER(121), REGISTER(122), REGISTER(123), \
        REGISTER(124), REGISTER(125), REGISTER(126), REGISTER(127)

template <int N, bool TURN_B> struct Wgmma;

// n columns in r registers; o0 to o6: the names of the operands behind them.
#define WGMMA(n, r, o0, o1, o2, o3, o4, o5, o6)                                                                          \
    template <bool TURN_B> struct Wgmma<n, TURN_B> {                                                                     \
        static __device__ __forceinline__ void ss(float (&d)[n / 8][4], uint64_t a, uint64_t b, int accumulate)          \
        {                                                                                                                \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, " o2 ", 0; wgmma.mma_async.sync.aligned.m64n" #n                \
                         "k16.f32.bf16.bf16 {" NAMES_##r "}, " o0 ", " o1 ", p, 1, 1, 0, " o3 "; }"                      \
                         : REGISTERS_##r                                                                                 \
                         : "l"(a), "l"(b), "r"(accumulate), "n"((int)TURN_B));                                           \
        }                                                                                                                \
        static __device__ __forceinline__ void rs(float (&d)[n / 8][4], const uint32_t (&a)[4], uint64_t b, int accumulate) \
        {                                                                                                                \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, " o5 ", 0; wgmma.mma_async.sync.aligned.m64n" #n                \
                         "k16.f32.bf16.bf16 {" NAMES_##r "}, {" o0 ", " o1 ", " o2 ", " o3 "}, " o4 ", p, 1, 1, " o6 "; }" \
                         : REGISTERS_##r                                                                                 \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"((int)TURN_B));       \
        }                                                                                                                \
    };
WGMMA(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
WGMMA(80, 40, "%40", "%41", "%42", "%43", "%44", "%45", "%46")
WGMMA(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
WGMMA(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134")

template <int N, bool TURN_B = false> DEVICE void wgmma_ss(float (&d)[N / 8][4], uint64_t a, uint64_t b, int accumulate)
{
    Wgmma<N, TURN_B>::ss(d, a, b, accumulate);
}
template <int N, bool TURN_B = false> DEVICE void wgmma_rs(float (&d)[N / 8][4], const uint32_t (&a)[4], uint64_t b, int accumulate)
{
    Wgmma<N, TURN_B>::rs(d, a, b, accumulate);
}
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Behind a wait: the compiler takes none of these registers before it.
template <int N> DEVICE void hold(float (&x)[N][4])
{
#pragma unroll
    for (int j = 0; j < N; j++) asm volatile("" : "+f"(x[j][0]), "+f"(x[j][1]), "+f"(x[j][2]), "+f"(x[j][3]));
}

// The compiler computes what follows from x here, and keeps nothing of it from before: registers are worth more than instructions.
DEVICE void forget(int &x) { asm volatile("" : "+r"(x)); }

// A warpgroup gives registers back to its block, or takes more: N for each thread.
template <int N> DEVICE void registers_less() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEVICE void registers_more() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

#endif
