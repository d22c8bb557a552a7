// SPDX-License-Identifier: Apache-2.0
// Everything that CUDA kernels say beyond C++: one name a PTX instruction, a device form here, a host form in kernels/hostcuda.
// Kernels call only these names, so that the same file runs on a GPU and on the CPU.
//
// Shared memory is one dynamic array a kernel. Addresses given to cp.async and ldmatrix are generic pointers into it.
#ifndef IMF_CUDA_PTX_CUH
#define IMF_CUDA_PTX_CUH

#ifdef __CUDACC__

#include <cuda.h>

#include <cstdint>

#define SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]
#define DEVICE static __device__ __forceinline__
#define BOTH static __host__ __device__ __forceinline__  // sizes, which the host asks for too
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    (kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__), cudaGetLastError())

DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 2^x, 1 / x and log2 x of the special function unit: relative error about 2^-22.
DEVICE float ex2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float rcp(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float lg2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Two values rounded to bf16 (nearest, ties to even), `low` in the lower half.
DEVICE uint32_t pack_bf16(float low, float high)
{
    uint32_t v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}
DEVICE float low_bf16(uint32_t v) { return __uint_as_float(v << 16); }
DEVICE float high_bf16(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
// The same in fp16, for values of at most 65,504: 11 bits in place of 8.
DEVICE uint32_t pack_f16(float low, float high)
{
    uint32_t v;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}
DEVICE float low_f16(uint32_t v)
{
    float f;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(f) : "r"(v));
    return f;
}
DEVICE float high_f16(uint32_t v)
{
    float f;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(f) : "r"(v));
    return f;
}

// Four values, or eight of 16 bits, at a multiple of 16 bytes, in global or shared memory. Stored as one number: nvcc may store a struct in pieces.
typedef unsigned __int128 __attribute__((may_alias)) SixteenBytes;
DEVICE float4 ld_v4(const float *p) { return *(const float4 *)p; }
DEVICE void st_v4(float *p, float4 v)
{
    unsigned long long low, high;
    asm("mov.b64 %0, {%1, %2};" : "=l"(low) : "f"(v.x), "f"(v.y));
    asm("mov.b64 %0, {%1, %2};" : "=l"(high) : "f"(v.z), "f"(v.w));
    *(SixteenBytes *)p = (unsigned __int128)high << 64 | low;
}
DEVICE uint4 ld_u4(const uint16_t *p) { return *(const uint4 *)p; }
DEVICE void st_u4(uint16_t *p, uint4 v) { *(uint4 *)p = v; }
// Two values, or four of 16 bits, at a multiple of 8 bytes. As one number: nvcc may store a struct in pieces.
typedef unsigned long long __attribute__((may_alias)) EightBytes;
DEVICE uint2 ld_u2(const uint16_t *p)
{
    uint2 v;
    asm("mov.b64 {%0, %1}, %2;" : "=r"(v.x), "=r"(v.y) : "l"(*(const EightBytes *)p));
    return v;
}
DEVICE void st_u2(uint16_t *p, uint2 v)
{
    unsigned long long bits;
    asm("mov.b64 %0, {%1, %2};" : "=l"(bits) : "r"(v.x), "r"(v.y));
    *(EightBytes *)p = bits;
}
DEVICE float2 ld_v2(const float *p)
{
    const uint2 v = ld_u2((const uint16_t *)p);
    return {__uint_as_float(v.x), __uint_as_float(v.y)};
}
DEVICE void st_v2(float *p, float2 v) { st_u2((uint16_t *)p, {__float_as_uint(v.x), __float_as_uint(v.y)}); }
DEVICE double shuffle_double(double v, int lane) { return __shfl_sync(~0u, v, lane); }

DEVICE void bar_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void bar_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

DEVICE uint32_t ld_acquire(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
DEVICE void spin_until(const uint32_t *p, uint32_t v)
{
    while (ld_acquire(p) != v) __nanosleep(64);
}
DEVICE void st_release(uint32_t *p, uint32_t v) { asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
DEVICE uint32_t atom_add_acq_rel(uint32_t *p, uint32_t v)
{
    uint32_t old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}

// In shared memory, in no order with what else happens.
DEVICE uint32_t atom_add_shared(uint32_t *p, uint32_t v)
{
    uint32_t old;
    asm volatile("atom.shared::cta.add.u32 %0, [%1], %2;" : "=r"(old) : "r"(shared_address(p)), "r"(v) : "memory");
    return old;
}
DEVICE void red_add_shared(double *p, double v)
{
    asm volatile("red.shared::cta.add.f64 [%0], %1;" ::"r"(shared_address(p)), "d"(v) : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MBAR_ASK "test"
#else
#define MBAR_ASK "try"  // may put the thread to sleep for a while
#endif
DEVICE void mbar_init(uint64_t *bar, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
}
DEVICE void mbar_arrive(uint64_t *bar)
{
    asm volatile("{ .reg .b64 t; mbarrier.arrive.shared::cta.b64 t, [%0]; }" ::"r"(shared_address(bar)) : "memory");
}
// Arrives, and expects so many bytes of bulk copies in this phase.
DEVICE void mbar_arrive_expect(uint64_t *bar, uint32_t bytes)
{
    asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared::cta.b64 t, [%0], %1; }" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}
DEVICE void fence_mbar_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Returns when the phase of that parity is over.
DEVICE void mbar_wait(uint64_t *bar, uint32_t parity)
{
    uint32_t over;
    do
        asm volatile("{ .reg .pred p; mbarrier." MBAR_ASK "_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over)
                     : "r"(shared_address(bar)), "r"(parity)
                     : "memory");
    while (!over);
}

DEVICE void cp_async16(void *shared, const void *global, bool filled = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(filled ? 16 : 0)
                 : "memory");
}
DEVICE void cp_async4(void *shared, const void *global, bool filled = true)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(filled ? 4 : 0)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// sm_90 and later: the box of `map` at column x, row y, to shared memory, swizzled by 128 bytes; its bytes count in bar. By one thread.
typedef CUtensorMap TensorMap;
DEVICE void tma_load_2d(void *shared, const TensorMap *map, int x, int y, uint64_t *bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                     shared_address(shared)),
                 "l"(map), "r"(x), "r"(y), "r"(shared_address(bar))
                 : "memory");
}
// What this thread wrote to shared memory, or knows to be written, wgmma and bulk copies see as well.
DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

DEVICE void ldmatrix_x4(uint32_t (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(uint32_t (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#include "kernels/cuda/wgmma.cuh"

#else

#include "kernels/hostcuda/hostcuda.hpp"

#define SHARED_MEMORY(name) unsigned char *name = hostcuda::place.shared
#define DEVICE static inline __attribute__((always_inline))  // as on the device: registers are arrays of the kernel's own frame
#define BOTH static inline

#endif
#endif
