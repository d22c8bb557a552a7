// SPDX-License-Identifier: Apache-2.0
// The two Python servers of the code judge as text in the program, so that nothing has to be found at run time.
#include "judge/code_python.h"

#define EMBED(name, file)                                                                                    \
    __asm__(".section .rodata\n.global " #name "\n" #name ":\n.incbin \"" file "\"\n.byte 0\n.previous\n")

EMBED(code_zygote_text, "src/judge/zygote.py");
EMBED(code_referee_text, "src/judge/referee.py");
