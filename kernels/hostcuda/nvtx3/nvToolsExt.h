// SPDX-License-Identifier: Apache-2.0
// The part of NVTX that imf uses, on the CPU: names and meanings are NVIDIA's (NVTX 3). Nobody profiles here; what is wrong would be a range that
// is closed twice or never opened.
#ifndef IMF_HOSTCUDA_NVTX3_H
#define IMF_HOSTCUDA_NVTX3_H

#ifdef __cplusplus
extern "C" {
#endif

int nvtxRangePushA(const char *name);  // how many are open around it
int nvtxRangePop(void);                // the same of the one that it closes; negative: none was open

#ifdef __cplusplus
}
#endif
#endif
