// SPDX-License-Identifier: Apache-2.0
// CUDA kernels executed on the CPU: what device code sees. kernels/cuda/ptx.cuh includes this in the host build.
//
// One fiber a thread of a block; blocks of a launch are alive a few at a time and run in an order that a seed decides. Every
// access to shared and global memory is seen (kernels are compiled with -fsanitize=thread against hooks of our own) and held
// against vector clocks, so an access that nothing orders is an error on the first run, not on an unlucky one. A defect ends
// the launch with cudaErrorLaunchFailure; hostcuda_report() says kernel, block, thread, source line and what is wrong.
// hostcuda knows no kernel and no op.
//
// Not emulated: weak memory order between blocks, caches, register hazards, speed. kernels/cuda/STATUS.md lists what follows.
#ifndef IMF_HOSTCUDA_HPP
#define IMF_HOSTCUDA_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>
#include <tuple>
#include <utility>

#include "kernels/hostcuda/cuda.h"

#define __global__ __attribute__((unused)) static
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define ALWAYS_INLINE inline __attribute__((always_inline))  // reports name the line of the caller

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};
struct uint2 {
    unsigned x, y;
};
struct float4 {
    float x, y, z, w;
};
struct uint4 {
    unsigned x, y, z, w;
};

namespace hostcuda {

// Of the thread that runs.
struct Place {
    uint3 thread, block;
    dim3 block_size, grid_size;
    unsigned char *shared;
};
extern Place place;

// How asynchronous copies and products land, and in what order runnable warps are taken.
enum class Order { EARLY, LATE, RANDOM };  // at once; when nothing else can run or a wait asks for it; decided per operation
void set_order(Order order, uint64_t seed);

// What the devices say they are: 10 x major + minor of the compute capability. Instructions of sm_90a are defects on others than 90. At first the
// environment's HOSTCUDA_SM, or 90.
int architecture();
void set_architecture(int sm);

// 0: the special functions are exact; otherwise they are wrong by as much as the PTX ISA allows, differently for every seed.
void set_numeric_seed(uint64_t seed);

const char *report();  // of the last launch that failed; "" when none did

// Since the last call: ldmatrix instructions, and how many more passes over the banks of shared memory they took than one a matrix; wgmma instructions.
struct Counts {
    uint64_t loads, conflicts, wgmmas;
};
Counts take_counts();

// Plain accesses and cp.async at one line of one kernel. Global memory: bytes that a warp wants, and bytes of the sectors (32 bytes) that
// they lie in. Shared memory: passes over the banks, the fewest possible and those taken.
struct Accesses {
    std::string kernel, line;
    bool shared;
    uint64_t warps, least, taken;  // warps: accesses, each by all lanes of a warp that make it together
    double part() const { return (double)least / (double)taken; }
};
void count(bool on);  // off at first: it is slow
std::vector<Accesses> take_accesses();  // since the last call, the worst first

struct Range {
    const void *p;
    size_t n;
};

// Runs a grid to its end; false: a defect was found. `what` names the kernel; params: host memory it may read, its arguments.
bool run(const char *what, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body, Range params);

template <typename... P> struct Call {
    void (*kernel)(P...);
    std::tuple<P...> params;
    void operator()() { std::apply(kernel, params); }
};

template <typename... P, typename... A>
bool launch(const char *what, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A &&...args)
{
    Call<P...> call{kernel, {std::forward<A>(args)...}};
    return run(what, grid, block, shared_bytes, std::ref(call), {&call, sizeof call});
}

// --- memory that kernels may touch ---------------------------------------------------------------------------------

// Global memory, not yet written; NULL when there is none. A copy from the host counts as a write.
void *device_alloc(size_t bytes);
void device_free(void *p);
bool device_write(void *to, const void *from, size_t bytes);  // false: not inside one allocation
bool device_read(void *to, const void *from, size_t bytes);
bool device_copy(void *to, const void *from, size_t bytes);
bool device_set(void *to, int value, size_t bytes);
bool device_holds(const void *p, size_t bytes);    // inside one allocation?
bool device_written(const void *p, size_t bytes);  // marks it as written, as a library does that is no kernel of ours

}  // namespace hostcuda

#define threadIdx (hostcuda::place.thread)
#define blockIdx (hostcuda::place.block)
#define blockDim (hostcuda::place.block_size)
#define gridDim (hostcuda::place.grid_size)

// --- synchronisation ------------------------------------------------------------------------------------------------

void __syncthreads();
void __syncwarp(unsigned mask = ~0u);
void bar_sync(int id, int threads);    // named barrier, 1..15
void bar_arrive(int id, int threads);

uint32_t shuffle_bits(uint32_t v, int lane, unsigned mask);
unsigned __ballot_sync(unsigned mask, int predicate);
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
template <typename T> T __shfl_sync(unsigned mask, T v, int lane)
{
    static_assert(sizeof(T) == 4, "shuffles move 4 bytes");
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits = shuffle_bits(bits, lane, mask);
    memcpy(&v, &bits, 4);
    return v;
}
static inline double shuffle_double(double v, int lane)
{
    uint32_t half[2];
    memcpy(half, &v, 8);
    for (uint32_t &h : half) h = shuffle_bits(h, lane, ~0u);
    memcpy(&v, half, 8);
    return v;
}
template <typename T> T __shfl_xor_sync(unsigned mask, T v, int bits) { return __shfl_sync(mask, v, (int)(threadIdx.x % 32) ^ bits); }
template <typename T> T __shfl_down_sync(unsigned mask, T v, unsigned by)
{
    unsigned lane = threadIdx.x % 32;
    return __shfl_sync(mask, v, (int)(lane + by < 32 ? lane + by : lane));
}

// Between blocks. Release: what this thread knows becomes known to whoever acquires the same word later.
uint32_t ld_acquire(const uint32_t *p);
void spin_until(const uint32_t *p, uint32_t v);  // acquires *p again and again, until it is v
void st_release(uint32_t *p, uint32_t v);
uint32_t atom_add_acq_rel(uint32_t *p, uint32_t v);

// In shared memory, in no order with what else happens.
uint32_t atom_add_shared(uint32_t *p, uint32_t v);
void red_add_shared(double *p, double v);

// --- asynchronous copies --------------------------------------------------------------------------------------------

void mbar_init(uint64_t *bar, uint32_t arrivals);
void mbar_arrive(uint64_t *bar);
void mbar_arrive_expect(uint64_t *bar, uint32_t bytes);  // and bulk copies of so many bytes belong to this phase
void fence_mbar_init();                                  // bulk copies see the barriers that this thread has initialised
void mbar_wait(uint64_t *bar, uint32_t parity);

void cp_async16(void *shared, const void *global, bool filled = true);  // 16 bytes, zeros where not filled
void cp_async4(void *shared, const void *global, bool filled = true);
void cp_async_commit();
void cp_async_wait_n(int pending);
template <int N> void cp_async_wait() { cp_async_wait_n(N); }

// The box of `map` at column x, row y, to shared memory, swizzled; its bytes count in bar.
typedef CUtensorMap TensorMap;
void tma_load_2d(void *shared, const TensorMap *map, int x, int y, uint64_t *bar);
void fence_proxy_async();  // what this thread wrote or knows of, asynchronous units see as well

// --- arithmetic that C++ has no name for --------------------------------------------------------------------------------

float ex2(float x);
float rcp(float x);
float lg2(float x);
uint32_t pack_bf16(float low, float high);
uint32_t pack_f16(float low, float high);
float low_f16(uint32_t v);
float high_f16(uint32_t v);
ALWAYS_INLINE float float_of_bits(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}
ALWAYS_INLINE float low_bf16(uint32_t v) { return float_of_bits(v << 16); }
ALWAYS_INLINE float high_bf16(uint32_t v) { return float_of_bits(v & 0xffff0000u); }

float4 ld_v4(const float *p);  // at a multiple of 16 bytes
void st_v4(float *p, float4 v);
uint4 ld_u4(const uint16_t *p);  // eight values of 16 bits
void st_u4(uint16_t *p, uint4 v);

// Two values, or four of 16 bits, at a multiple of 8 bytes: one access.
typedef uint64_t __attribute__((may_alias)) EightBytes;
template <typename V> ALWAYS_INLINE V get_pair(const void *p)
{
    const uint64_t bits = *(const EightBytes *)p;
    V v;
    memcpy(&v, &bits, 8);
    return v;
}
template <typename V> ALWAYS_INLINE void put_pair(void *p, V v)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    *(EightBytes *)p = bits;
}
ALWAYS_INLINE float2 ld_v2(const float *p) { return get_pair<float2>(p); }
ALWAYS_INLINE void st_v2(float *p, float2 v) { put_pair(p, v); }
ALWAYS_INLINE uint2 ld_u2(const uint16_t *p) { return get_pair<uint2>(p); }
ALWAYS_INLINE void st_u2(uint16_t *p, uint2 v) { put_pair(p, v); }

// --- tensor cores ---------------------------------------------------------------------------------------------------

// Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
void ldmatrix_x4(uint32_t (&out)[4], const void *row);
void ldmatrix_x4_trans(uint32_t (&out)[4], const void *row);
// d[16][8] += a[16][16] . b[16][8], bf16 with fp32 sums; fragments as the PTX ISA lays them out.
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b);  // b[2]

// A warpgroup's product d[64][N] (+)= a[64][16] . b[16][N], asynchronous: bf16 with fp32 sums. Descriptors as the PTX ISA has them, 128-byte swizzle;
// b: N rows of 16 values (K-major), turned: 16 rows of N values.
uint32_t shared_address(const void *p);
void wgmma_issue(float *d, const uint32_t *a, uint64_t desc_a, uint64_t desc_b, int n, bool turn_b, int accumulate);
template <int N, bool TURN_B = false> ALWAYS_INLINE void wgmma_ss(float (&d)[N / 8][4], uint64_t a, uint64_t b, int accumulate)
{
    wgmma_issue(&d[0][0], nullptr, a, b, N, TURN_B, accumulate);
}
template <int N, bool TURN_B = false> ALWAYS_INLINE void wgmma_rs(float (&d)[N / 8][4], const uint32_t (&a)[4], uint64_t b, int accumulate)
{
    wgmma_issue(&d[0][0], a, 0, b, N, TURN_B, accumulate);
}
void wgmma_fence();   // before the first product, and after registers of products were touched
void wgmma_commit();  // what was issued since the last one is a group
void wgmma_wait_n(int pending);
template <int N> ALWAYS_INLINE void wgmma_wait() { wgmma_wait_n(N); }
void wgmma_hold(const float *x, int n);  // for a compiler that moves registers across waits: no product may be under way that writes these
template <int N> ALWAYS_INLINE void hold(float (&x)[N][4]) { wgmma_hold(&x[0][0], N * 4); }
ALWAYS_INLINE void forget(int &) {}  // for one that keeps too much in registers

// A warpgroup gives registers back to its block, or takes more: N for each thread.
void change_registers(int n, bool more);
template <int N> ALWAYS_INLINE void registers_less() { change_registers(N, false); }
template <int N> ALWAYS_INLINE void registers_more() { change_registers(N, true); }

#endif
