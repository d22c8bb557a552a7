// SPDX-License-Identifier: Apache-2.0
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

Err str_add(Str *s, const char *bytes, int64_t n)
{
    TRY(MEM_GROW(&s->p, s->len, &s->cap, s->len + n + 1));
    if (n > 0) memcpy(s->p + s->len, bytes, (size_t)n);
    s->len += n;
    s->p[s->len] = '\0';
    return OK;
}

Err str_puts(Str *s, const char *text) { return str_add(s, text, (int64_t)strlen(text)); }

Err str_printf(Str *s, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    Err err = n < 0 ? ERR_INTERNAL : MEM_GROW(&s->p, s->len, &s->cap, s->len + n + 1);
    if (err == OK) {
        vsnprintf(s->p + s->len, (size_t)n + 1, fmt, again);
        s->len += n;
    }
    va_end(again);
    return err;
}

void str_clear(Str *s)
{
    s->len = 0;
    if (s->p) s->p[0] = '\0';
}

void str_free(Str *s)
{
    mem_free(s->p);
    *s = (Str){0};
}

const char *str_text(const Str *s) { return s->p ? s->p : ""; }

bool str_starts(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

int str_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[LONGEST + 1], n = (int)strlen(b);
    if (n > LONGEST) return LONGEST;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[n];
}
