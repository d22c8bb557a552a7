// SPDX-License-Identifier: Apache-2.0
// Collectives over the memory of GPUs, by NCCL: put into the device's stream, in the same order on all ranks. With one rank nothing
// is done. A program without CUDA has par_no_device.c in place of nccl/par_nccl.c.
#ifndef IMF_PAR_PAR_DEVICE_H
#define IMF_PAR_PAR_DEVICE_H

#include "kernels/cuda/device.h"

typedef struct ParRange {  // elements [begin, end)
    int64_t begin, end;
} ParRange;

// Collective. One communicator a process. ERR_UNAVAILABLE with NCCL's words, from all that waits or begins after it was given up.
Err par_device_open(Device *d) ERR_MUST_CHECK;
void par_device_close(void);  // not opened: nothing

// x[of[r]] on rank r becomes the sum over all ranks, exactly; elsewhere x is as it was.
Err par_device_sum_i64(Device *d, int64_t *x, const ParRange *of) ERR_MUST_CHECK;
// Elements of `size` bytes: x[of[r]] is sent from rank r to all.
Err par_device_share(Device *d, void *x, int64_t size, const ParRange *of) ERR_MUST_CHECK;

// As device_wait, but looks after the others meanwhile: ERR_UNAVAILABLE when one of them has failed (its own error wins the next par_agree),
// when NCCL has, or after DEVICE_PATIENCE seconds. A thread of its own does so too, for a host that waits in a call of CUDA.
enum { DEVICE_PATIENCE = 600 };
Err par_device_wait(Device *d) ERR_MUST_CHECK;

#endif
