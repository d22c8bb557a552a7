// SPDX-License-Identifier: Apache-2.0
// cuDNN's causal attention, forward and backward, as yardstick for ours: the same tensors, one segment of T tokens, bf16.
// cudnn_sdpa.c has it; where cuDNN is not found no_cudnn.c is linked in its place, on hostcuda cudnn_stand_in.c.
//
// Source: NVIDIA's cuDNN backend API (graphs of operations, cudnn_graph.h); which graph cuDNN's fused kernels know is told by NVIDIA's
// cudnn-frontend (composite attention nodes), version 1.x for cuDNN 9.
#ifndef IMF_TESTS_CUDNN_SDPA_H
#define IMF_TESTS_CUDNN_SDPA_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct CudnnSdpa CudnnSdpa;

typedef struct CudnnSdpaShape {
    int64_t T, N, K, D;  // tokens, heads, kv heads, head size
    float scale;
    bool backward;
    bool ordered;  // backward: dQ comes from one product of dS and K that cuDNN sums in a fixed order (its deterministic mode), for a workspace of
                   // T x T x N bf16; else it is added up atomically
} CudnnSdpaShape;

// What is read and written; token-major [T][heads][D], lse fp32 [N][T]. The forward pass uses the first five.
typedef struct CudnnSdpaTensors {
    void *q, *k, *v, *o, *lse, *dout, *dq, *dk, *dv;
} CudnnSdpaTensors;

// The first of the heuristic's kernels that can be built for the current device, or, with `device` (cuDNN's description of a device
// as JSON), for that one: it cannot be run then. ERR_UNAVAILABLE: cuDNN refuses, says its last message.
Err cudnn_sdpa_plan(const CudnnSdpaShape *shape, const char *device, CudnnSdpa **out) ERR_MUST_CHECK;
int64_t cudnn_sdpa_workspace(const CudnnSdpa *s);  // bytes of device memory
Err cudnn_sdpa_bind(CudnnSdpa *s, const CudnnSdpaTensors *t, void *workspace, void *stream) ERR_MUST_CHECK;
Err cudnn_sdpa_run(CudnnSdpa *s) ERR_MUST_CHECK;  // into the stream; what was bound stays until it has run
void cudnn_sdpa_free(CudnnSdpa *s);               // NULL: nothing
const char *cudnn_sdpa_version(void);             // NULL: this program was built without cuDNN

#endif
