// SPDX-License-Identifier: Apache-2.0
// Where a rank's time goes: one timer that always runs for exactly one phase.
//
// Entering a phase charges the time since the last change to the phase that was running, so phases exclude each other and
// their sum is the wall time, whatever is nested in what. Drawbacks: one clock reading (about 25 ns) a change, none when the
// phase stays the same; only a rank's main thread may change phases: a team's threads work inside the op that started them.
#ifndef IMF_BASE_PROFILE_H
#define IMF_BASE_PROFILE_H

#include <stdint.h>

typedef enum ProfilePhase {
    PHASE_OTHER = 0,    // whatever says nothing: text, JSON, packing, start of the program
    PHASE_GEMM,         // products with weights, also those inside the log-probabilities
    PHASE_ATTENTION,
    PHASE_ELEMENTWISE,  // norms, RoPE, SwiGLU, embedding, softmax part of the log-probabilities
    PHASE_OPTIM,        // AdamW, gradient norm, sums of chains
    PHASE_COMM,         // data moves between ranks; what a message's receiver waits for its late sender counts here too
    PHASE_WAIT,         // for other ranks (barriers, agreements, the queue), for candidate programs and for a GPU
    PHASE_IO,           // weights, records, checkpoints, other files
    PHASE_DRAW,         // logits to a token
    PHASES
} ProfilePhase;

const char *profile_name(ProfilePhase p);  // as tables and files have it: "gemm", "elementwise", ...

// What was running, and how deep; made by profile_enter and given back to profile_leave in the reverse order.
typedef struct ProfileMark {
    ProfilePhase before;
    int32_t depth;
} ProfileMark;

ProfileMark profile_enter(ProfilePhase p);
// Goes back to the phase that ran before the mark. A mark left out of order is counted (ProfileTimes.misnested).
void profile_leave(const ProfileMark *mark);

// The rest of the enclosing block belongs to `phase`, however the block is left. Once a block.
#define PROFILE(phase) __attribute__((cleanup(profile_leave), unused)) ProfileMark profile_mark_ = profile_enter(phase)

typedef struct ProfileTimes {
    int64_t ns[PHASES];  // nanoseconds since the start or the last take
    int64_t misnested;   // marks left out of order: our bug, times went to the wrong phase
} ProfileTimes;

void profile_start(void);              // forgets everything; PHASE_OTHER runs
void profile_take(ProfileTimes *out);  // what was measured so far; measuring goes on from zero in the running phase

#endif
