// SPDX-License-Identifier: Apache-2.0
// What confines candidates, and the start of the two Python processes under it. Used by the supervisor process alone.
//
//   layer            who sets it, when                                    what it takes away
//   namespaces       zygote's parent, before exec; where allowed (T0)     other processes, network, IPC
//   user id          before exec, when started as root                    root
//   no_new_privs     before exec                                          set-uid programs
//   Landlock         before exec                                          every file but the interpreter's, TCP, signals
//   rlimits          in the child, per run                                CPU, memory, written bytes, descriptors, core
//   seccomp          in the child, last                                   every call that is not on the allow list
#ifndef IMF_JUDGE_SANDBOX_POLICY_H
#define IMF_JUDGE_SANDBOX_POLICY_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

enum { SANDBOX_UID = 65534 };  // nobody: what candidates run as when imf is started as root

typedef struct SandboxPolicy {
    int landlock;          // ABI version, 0: the kernel has none
    bool namespaces;       // pid, net, ipc, mount (and user, when not root)
    char python[512];      // interpreter
    char version[64];      // "3.11.2"
    char library[512];     // directory of its standard library
    Str filter;            // seccomp program (struct sock_filter[])
} SandboxPolicy;

typedef struct SandboxChild {
    pid_t pid;      // 0: not started
    int in, out;    // frames to and from it
} SandboxChild;

// Probes the machine. ERR_UNAVAILABLE, naming what is missing, when no tier is possible. For tests: IMF_SANDBOX=t1 leaves
// namespaces out, userns leaves Landlock out, none pretends that the kernel has neither. IMF_PYTHON names another interpreter.
Err sandbox_probe(SandboxPolicy *p) ERR_MUST_CHECK;
void sandbox_policy_free(SandboxPolicy *p);

// Starts python with `program` (text of the server); the zygote also gets the seccomp program as an open file.
Err sandbox_spawn(const SandboxPolicy *p, const char *program, bool zygote, SandboxChild *out) ERR_MUST_CHECK;
void sandbox_end(SandboxChild *c);  // kills and reaps it

#endif
