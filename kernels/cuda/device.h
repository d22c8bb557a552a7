// SPDX-License-Identifier: Apache-2.0
// The ops of kernels/ops.h on an NVIDIA GPU: cuda_x is op_x, with the same arguments, for models in bf16.
//
// Contract, beyond that of kernels/ops.h
//   - Every pointer in the arguments, tables included, is memory that the device reaches; it stays until device_wait.
//   - Work is put into the device's stream, in order; an error of the device is told by device_wait or by a later op.
//   - Weights are [out][in] in bf16, not packed. Workspaces are cuda_x_workspace(args) bytes, which differ from op_x_workspace, and do for every
//     device: a plan is made where none is.
//   - Attention and log-probabilities have a form for Hopper (compute capability 9.0) and one for others; which one runs depends on the device
//     alone, so a step's forward and backward logits come from one form.
//   - Types are those of bf16 in kernels/ops.h; others are ERR_INTERNAL. Attention: head sizes 64, 128 and 256, else ERR_RECIPE.
#ifndef IMF_CUDA_DEVICE_H
#define IMF_CUDA_DEVICE_H

#include "base/arena.h"
#include "kernels/ops.h"
#include "kernels/sample.h"

typedef struct Device Device;

// Device number `index` of this machine (a rank's number among those of its node) and a stream of its own. ERR_UNAVAILABLE, with
// what to do, where there is no driver, no device, no such device or one of an architecture that the program has no code for.
Err device_open(int index, Device **out) ERR_MUST_CHECK;
void device_close(Device *d);  // NULL: nothing
int64_t device_peak(const Device *d);  // most bytes that were allocated at once
int device_architecture(const Device *d);  // 10 x major + minor of its compute capability: 90 are Hopper's

// One that stands for a device where sizes are asked for (op_x_workspace): for plans, on machines without any. Nothing can run on it;
// not closed. ERR_UNAVAILABLE in a program without CUDA.
Err device_plan(Device **out) ERR_MUST_CHECK;

// Until all that was put into the stream has run.
Err device_wait(Device *d) ERR_MUST_CHECK;

Err device_ready(Device *d, bool *ready) ERR_MUST_CHECK;  // has it run? does not wait

// Memory of the device, not zeroed. ERR_UNAVAILABLE, naming the size.
Err device_alloc(Device *d, void *pp, int64_t bytes) ERR_MUST_CHECK;
// Memory that host and device reach; the host only what nothing that runs uses.
Err device_alloc_managed(Device *d, void *pp, int64_t bytes) ERR_MUST_CHECK;
void device_free(Device *d, void *p);  // of either kind; NULL: nothing
MemSource device_managed(Device *d);   // for arenas

// Copies from and to memory of the host, in the stream's order; done when they return.
Err device_put(Device *d, void *to, const void *from, int64_t bytes) ERR_MUST_CHECK;
Err device_get(Device *d, void *to, const void *from, int64_t bytes) ERR_MUST_CHECK;
// Within the device's memory, in the stream's order, not waited for.
Err device_copy(Device *d, void *to, const void *from, int64_t bytes) ERR_MUST_CHECK;
Err device_zero(Device *d, void *p, int64_t bytes) ERR_MUST_CHECK;

// A second stream of the same GPU, for copies and collectives beside the ops of `d`: what it is given comes first where both could run.
// No op runs on it and no memory is taken there. Closed before d is.
Err device_beside(Device *d, Device **out) ERR_MUST_CHECK;

// A place in a stream. device_after: what d is given from now on waits for the last place that was marked. *m NULL: none yet.
typedef struct DeviceMark DeviceMark;
Err device_mark(Device *d, DeviceMark **m) ERR_MUST_CHECK;
Err device_after(Device *d, const DeviceMark *m) ERR_MUST_CHECK;
void device_mark_free(DeviceMark *m);

// Ops that run again and again with the same arguments, launched with one call (a CUDA graph). Between device_record and device_recorded ops are
// taken down and do not run; nothing may be waited for, and no memory taken or given back. What they point to must be there
// at every replay. An op must have run once before it is recorded (its code is loaded then).
typedef struct DeviceGraph DeviceGraph;
Err device_record(Device *d) ERR_MUST_CHECK;
Err device_recorded(Device *d, DeviceGraph **out) ERR_MUST_CHECK;  // also behind an op that failed: NULL then, with this call's error
Err device_replay(Device *d, DeviceGraph *g) ERR_MUST_CHECK;       // into the stream
void device_graph_free(DeviceGraph *g);                            // NULL: nothing

// A name on the host's timeline for profilers (NVTX), for what is put into the streams until its end; ranges nest. RANGE_ON: the rest of the
// enclosing block, when ctx has a device; once a block.
bool device_range(const char *name);        // true, which device_range_end wants
void device_range_end(const bool *begun);
#define RANGE_ON(ctx, name) __attribute__((cleanup(device_range_end), unused)) const bool range_ = (ctx)->device && device_range(name)

void *device_stream(Device *d);  // its cudaStream_t, for libraries

// bf16 operands; `add` only where y is fp32; `row` is read by the host, when the op is called.
Err cuda_gemm_fwd(Ctx *ctx, const GemmArgs *a) ERR_MUST_CHECK;
Err cuda_gemm_bwd_x(Ctx *ctx, const GemmDxArgs *a) ERR_MUST_CHECK;
Err cuda_gemm_bwd_w(Ctx *ctx, const GemmDwArgs *a) ERR_MUST_CHECK;

Err cuda_linear_f64(Ctx *ctx, const LinearF64Args *a) ERR_MUST_CHECK;
Err cuda_round(Ctx *ctx, const RoundArgs *a) ERR_MUST_CHECK;
Err cuda_add(Ctx *ctx, const AddArgs *a) ERR_MUST_CHECK;
Err cuda_rmsnorm_fwd(Ctx *ctx, const RmsNormArgs *a) ERR_MUST_CHECK;
Err cuda_rmsnorm_bwd(Ctx *ctx, const RmsNormBwdArgs *a) ERR_MUST_CHECK;
Err cuda_rope(Ctx *ctx, const RopeArgs *a) ERR_MUST_CHECK;
Err cuda_swiglu_fwd(Ctx *ctx, const SwigluArgs *a) ERR_MUST_CHECK;
Err cuda_swiglu_bwd(Ctx *ctx, const SwigluBwdArgs *a) ERR_MUST_CHECK;
Err cuda_geglu_fwd(Ctx *ctx, const GegluArgs *a) ERR_MUST_CHECK;
Err cuda_geglu_bwd(Ctx *ctx, const GegluBwdArgs *a) ERR_MUST_CHECK;
Err cuda_embed_fwd(Ctx *ctx, const EmbedArgs *a) ERR_MUST_CHECK;
Err cuda_embed_bwd(Ctx *ctx, const EmbedBwdArgs *a) ERR_MUST_CHECK;
Err cuda_adamw(Ctx *ctx, const AdamWArgs *a) ERR_MUST_CHECK;
Err cuda_sqnorm(Ctx *ctx, const SqNormArgs *a) ERR_MUST_CHECK;
Err cuda_fixed_add(Ctx *ctx, const FixedAddArgs *a) ERR_MUST_CHECK;
Err cuda_fixed_get(Ctx *ctx, const FixedGetArgs *a) ERR_MUST_CHECK;

int64_t cuda_attn_bwd_workspace(const AttnBwdArgs *a);
Err cuda_attn_fwd(Ctx *ctx, const AttnArgs *a) ERR_MUST_CHECK;  // without workspace
Err cuda_attn_bwd(Ctx *ctx, const AttnBwdArgs *a) ERR_MUST_CHECK;

// Pages are of the device's own form; N / K <= 8.
int64_t cuda_kv_page_bytes(int64_t K, int64_t D);
int64_t cuda_attn_decode_workspace(const DecodeAttnArgs *a);
Err cuda_kv_store(Ctx *ctx, const KvStoreArgs *a) ERR_MUST_CHECK;
Err cuda_attn_decode(Ctx *ctx, const DecodeAttnArgs *a) ERR_MUST_CHECK;

// One token a row (src/decode/sampler.h); the answers are there after device_wait.
Err cuda_sample(Ctx *ctx, const SampleArgs *a) ERR_MUST_CHECK;

int64_t cuda_logprob_fwd_workspace(const LogprobArgs *a);
int64_t cuda_logprob_bwd_workspace(const LogprobBwdArgs *a);
Err cuda_logprob_fwd(Ctx *ctx, const LogprobArgs *a) ERR_MUST_CHECK;     // `target` is read by the host, when it is called
Err cuda_logprob_bwd(Ctx *ctx, const LogprobBwdArgs *a) ERR_MUST_CHECK;  // `row` and `target` are read by the host, when it is called

#endif
