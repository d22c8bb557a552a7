// SPDX-License-Identifier: Apache-2.0
// Text of zygote.py (the warm parent that forks candidates) and referee.py (takes tests apart, judges results).
#ifndef IMF_JUDGE_CODE_PYTHON_H
#define IMF_JUDGE_CODE_PYTHON_H

extern const char code_zygote_text[];   // NUL-terminated
extern const char code_referee_text[];

#endif
