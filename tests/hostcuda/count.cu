// SPDX-License-Identifier: Apache-2.0
// hostcuda's counts of sectors and bank passes, for kernels whose counts are known.
#include "tests/hostcuda/arrays.hpp"

using hostcuda::Accesses;
using hostcuda::launch;

// Every line of these kernels that touches memory has one access.
__global__ void copy_floats(const float *in, float *out)
{
    const float x = in[blockIdx.x * blockDim.x + threadIdx.x];
    out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}

enum { EIGHTH = __LINE__ + 3 };
__global__ void every_eighth(const float *in, float *out)
{
    const float x = in[threadIdx.x * 8];
    if (x < -100) out[0] = x;
}

__global__ void uneven_loop(const float *in, float *out)
{
    float x = 0;
    for (unsigned i = 0; i < (threadIdx.x < 16 ? 2u : 1u); i++) x += in[i * 32 + threadIdx.x];
    if (x < -100) out[0] = x;
}

__global__ void shared_words(int stride)
{
    SHARED_MEMORY(s);
    ((float *)s)[(int)threadIdx.x * stride] = 1;
}

__global__ void shared_vectors(int stride)
{
    SHARED_MEMORY(s);
    st_v4((float *)s + (int)threadIdx.x * stride, {1, 2, 3, 4});
}

__global__ void copy_async(const float *in, int stride)
{
    SHARED_MEMORY(s);
    cp_async16(s + threadIdx.x * 16, in + (int)threadIdx.x * stride);
    cp_async_commit();
    cp_async_wait<0>();
}

// The lines of the launch since the last call hold these counts, one for global memory and one for shared memory (warps 0: none).
static bool counted(const char *what, bool ran, uint64_t warps, uint64_t least, uint64_t taken, uint64_t shared_warps, uint64_t shared_least, uint64_t shared_taken)
{
    if (!ran) return printf("%s: %s\n", what, hostcuda::report()), false;
    uint64_t got[2][3] = {};
    for (const Accesses &a : hostcuda::take_accesses()) got[a.shared][0] += a.warps, got[a.shared][1] += a.least, got[a.shared][2] += a.taken;
    const uint64_t want[2][3] = {{warps, least, taken}, {shared_warps, shared_least, shared_taken}};
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < 3; i++)
            if (got[s][i] != want[s][i])
                return printf("%s, %s memory, number %d: %d, not %d\n", what, s ? "shared" : "global", i, (int)got[s][i], (int)want[s][i]), false;
    return true;
}

int main()
{
    Array<float> in(std::vector<float>(2048)), out(2048);
    const bool off = launch("copy_floats", copy_floats, 2, 64, 0, in.p, out.p) && hostcuda::take_accesses().empty();
    if (!off) return printf("counted, though nobody asked: %s\n", hostcuda::report()), 1;
    hostcuda::count(true);
    for (int seed = 0; seed < 3; seed++) {
        hostcuda::set_order(hostcuda::Order::RANDOM, (uint64_t)seed);
        if (!counted("a copy", launch("copy_floats", copy_floats, 2, 64, 0, in.p, out.p), 8, 1024, 1024, 0, 0, 0) ||
            !counted("half a warp", launch("copy_floats", copy_floats, 1, 48, 0, in.p, out.p), 4, 384, 384, 0, 0, 0) ||
            !counted("beside a sector", launch("copy_floats", copy_floats, 1, 32, 0, in.p + 1, out.p), 2, 256, 288, 0, 0, 0) ||
            !counted("every eighth", launch("every_eighth", every_eighth, 1, 32, 0, in.p, out.p), 1, 128, 1024, 0, 0, 0) ||
            !counted("an uneven loop", launch("uneven_loop", uneven_loop, 1, 32, 0, in.p, out.p), 2, 192, 192, 0, 0, 0) ||
            !counted("words, stride 1", launch("shared_words", shared_words, 1, 32, 8192, 1), 0, 0, 0, 1, 1, 1) ||
            !counted("words, stride 2", launch("shared_words", shared_words, 1, 32, 8192, 2), 0, 0, 0, 1, 1, 2) ||
            !counted("words, stride 32", launch("shared_words", shared_words, 1, 32, 8192, 32), 0, 0, 0, 1, 1, 32) ||
            !counted("words, stride 33", launch("shared_words", shared_words, 1, 32, 8192, 33), 0, 0, 0, 1, 1, 1) ||
            !counted("vectors in a row", launch("shared_vectors", shared_vectors, 1, 32, 8192, 4), 0, 0, 0, 1, 4, 4) ||
            !counted("vectors in a column", launch("shared_vectors", shared_vectors, 1, 32, 8192, 32), 0, 0, 0, 1, 4, 32) ||
            !counted("cp.async", launch("copy_async", copy_async, 1, 32, 512, in.p, 4), 1, 512, 512, 1, 4, 4) ||
            !counted("cp.async, half used", launch("copy_async", copy_async, 1, 32, 512, in.p, 8), 1, 512, 1024, 1, 4, 4))
            return 1;
    }
    launch("every_eighth", every_eighth, 1, 32, 0, in.p, out.p);
    const std::vector<Accesses> all = hostcuda::take_accesses();
    const bool named = all.size() == 1 && all[0].kernel == "every_eighth" && all[0].line.find("count.cu:" + std::to_string(EIGHTH) + " (every_eighth)") != std::string::npos;
    return !named && printf("%s: %s\n", all[0].kernel.c_str(), all[0].line.c_str());
}
