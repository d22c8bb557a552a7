// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[4096];
static _Thread_local char trace[4096];

// A message quotes what files say: control characters would reach the reader's terminal.
static void plain(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if ((*p < 0x20 && *p != '\n') || *p == 0x7f) *p = '?';
}

Err err_raise(Err code, const char *func, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    plain(message);
    trace[0] = '\0';
    return err_frame(code, func, file, line);
}

Err err_frame(Err code, const char *func, const char *file, int line)
{
    size_t used = strlen(trace);
    snprintf(trace + used, sizeof trace - used, "  at %s (%s:%d)\n", func, file, line);
    return code;
}

Err err_context(Err code, const char *fmt, ...)
{
    char head[1024], tail[sizeof message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, message, sizeof tail);
    snprintf(message, sizeof message, "%s: %.3000s", head, tail);
    return code;
}

Err err_add(Err code, const char *text)
{
    size_t n = strlen(message);
    snprintf(message + n, sizeof message - n, "%s", text);
    return code;
}

const char *err_message(void) { return message; }
const char *err_trace(void) { return trace; }

void err_set_message(const char *text) { snprintf(message, sizeof message, "%s", text); }
