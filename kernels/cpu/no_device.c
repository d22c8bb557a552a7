// SPDX-License-Identifier: Apache-2.0
// kernels/cuda/device.h in a program without CUDA: device_open says so, and then nothing else is ever called.
#include <stddef.h>

#include "kernels/cuda/device.h"

static Err absent(void) { FAIL(ERR_UNAVAILABLE, "this imf was built without CUDA: build it with make CUDA=1, or set device: cpu"); }

Err device_open(int index, Device **out) { return (void)index, *out = NULL, absent(); }
Err device_plan(Device **out) { return *out = NULL, absent(); }
int64_t device_peak(const Device *d) { return (void)d, 0; }
int device_architecture(const Device *d) { return (void)d, 0; }

void device_close(Device *d) { (void)d; }

static Err never(void) { FAIL(ERR_INTERNAL, "an op on a device, in a program without"); }

Err device_wait(Device *d) { return (void)d, never(); }
Err device_ready(Device *d, bool *ready) { return (void)d, (void)ready, never(); }
Err device_alloc(Device *d, void *pp, int64_t bytes) { return (void)d, (void)pp, (void)bytes, never(); }
Err device_alloc_managed(Device *d, void *pp, int64_t bytes) { return (void)d, (void)pp, (void)bytes, never(); }
Err device_put(Device *d, void *to, const void *from, int64_t bytes) { return (void)d, (void)to, (void)from, (void)bytes, never(); }
Err device_get(Device *d, void *to, const void *from, int64_t bytes) { return (void)d, (void)to, (void)from, (void)bytes, never(); }
Err device_copy(Device *d, void *to, const void *from, int64_t bytes) { return (void)d, (void)to, (void)from, (void)bytes, never(); }
void *device_stream(Device *d) { return (void)d, NULL; }
Err device_zero(Device *d, void *p, int64_t bytes) { return (void)d, (void)p, (void)bytes, never(); }
Err device_beside(Device *d, Device **out) { return (void)d, (void)out, never(); }
Err device_mark(Device *d, DeviceMark **m) { return (void)d, (void)m, never(); }
Err device_after(Device *d, const DeviceMark *m) { return (void)d, (void)m, never(); }
void device_mark_free(DeviceMark *m) { (void)m; }
Err device_record(Device *d) { return (void)d, never(); }
Err device_recorded(Device *d, DeviceGraph **out) { return (void)d, (void)out, never(); }
Err device_replay(Device *d, DeviceGraph *g) { return (void)d, (void)g, never(); }
void device_graph_free(DeviceGraph *g) { (void)g; }
bool device_range(const char *name) { return (void)name, false; }
void device_range_end(const bool *begun) { (void)begun; }
MemSource device_managed(Device *d) { return (MemSource){NULL, NULL, d}; }
void device_free(Device *d, void *p) { (void)d, (void)p; }

#define ABSENT(op, Args) \
    Err cuda_##op(Ctx *ctx, const Args *a) { return (void)ctx, (void)a, never(); }
ABSENT(gemm_fwd, GemmArgs)
ABSENT(gemm_bwd_x, GemmDxArgs)
ABSENT(gemm_bwd_w, GemmDwArgs)
ABSENT(linear_f64, LinearF64Args)
ABSENT(round, RoundArgs)
ABSENT(add, AddArgs)
ABSENT(rmsnorm_fwd, RmsNormArgs)
ABSENT(rmsnorm_bwd, RmsNormBwdArgs)
ABSENT(rope, RopeArgs)
ABSENT(swiglu_fwd, SwigluArgs)
ABSENT(swiglu_bwd, SwigluBwdArgs)
ABSENT(geglu_fwd, GegluArgs)
ABSENT(geglu_bwd, GegluBwdArgs)
ABSENT(embed_fwd, EmbedArgs)
ABSENT(embed_bwd, EmbedBwdArgs)
ABSENT(adamw, AdamWArgs)
ABSENT(sqnorm, SqNormArgs)
ABSENT(fixed_add, FixedAddArgs)
ABSENT(fixed_get, FixedGetArgs)
ABSENT(attn_fwd, AttnArgs)
ABSENT(attn_bwd, AttnBwdArgs)
ABSENT(kv_store, KvStoreArgs)
ABSENT(attn_decode, DecodeAttnArgs)
ABSENT(sample, SampleArgs)
ABSENT(logprob_fwd, LogprobArgs)
ABSENT(logprob_bwd, LogprobBwdArgs)

#define NO_BYTES(op, Args) \
    int64_t cuda_##op##_workspace(const Args *a) { return (void)a, 0; }
NO_BYTES(attn_bwd, AttnBwdArgs)
NO_BYTES(attn_decode, DecodeAttnArgs)
NO_BYTES(logprob_fwd, LogprobArgs)
NO_BYTES(logprob_bwd, LogprobBwdArgs)
int64_t cuda_kv_page_bytes(int64_t K, int64_t D) { return (void)K, (void)D, 0; }
