// SPDX-License-Identifier: Apache-2.0
// What this machine gives this process: cores and memory, as far as the system or its control groups limit them.
#ifndef IMF_BASE_MACHINE_H
#define IMF_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Cores {
    int online;      // of the machine
    int allowed;     // this process may run on them (affinity)
    double quota;    // CPU time per time that the control group gives, in cores; 0: no limit
} Cores;
Cores machine_cores(void);

// Fills core[max] with the numbers of the allowed cores; returns how many there are.
int machine_core_list(int *core, int max);

int64_t machine_memory(void);        // bytes of the machine
int64_t machine_memory_limit(void);  // the smallest limit of the control groups; 0: none
int64_t machine_memory_room(void);   // what a process can have: the smaller of the two
int64_t machine_memory_free(void);   // available now, by the kernel's own estimate (MemAvailable)

// Memory of this process now: its own, and pages of files (program, libraries) that all its like on a machine share, in full: what
// else runs here does not matter. 0 when /proc does not say.
typedef struct OwnMemory {
    int64_t own, files;
} OwnMemory;
OwnMemory machine_own_memory(void);

#endif
