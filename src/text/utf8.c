// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <string.h>

// Trail bytes of a lead byte and the range of the first of them (table 3-7); 0: not a lead byte.
static int trail_bytes(unsigned lead, unsigned *low, unsigned *high)
{
    *low = 0x80, *high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) return 1;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0) *low = 0xA0;   // no overlong forms
        if (lead == 0xED) *high = 0x9F;  // no surrogates
        return 2;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0) *low = 0x90;
        if (lead == 0xF4) *high = 0x8F;  // nothing above U+10FFFF
        return 3;
    }
    return 0;
}

int utf8_next(const char *p, int64_t n, uint32_t *cp)
{
    const unsigned char *b = (const unsigned char *)p;
    *cp = b[0];
    if (b[0] < 0x80) return 1;
    unsigned low, high;
    int trail = trail_bytes(b[0], &low, &high);
    if (trail == 0) return -1;
    *cp = b[0] & (0x3Fu >> trail);
    for (int i = 1; i <= trail; i++) {
        if (i >= n || b[i] < low || b[i] > high) return -i;
        *cp = *cp << 6 | (b[i] & 0x3Fu);
        low = 0x80, high = 0xBF;
    }
    return trail + 1;
}

int utf8_put(char buf[4], uint32_t cp)
{
    int trail = cp < 0x80 ? 0 : cp < 0x800 ? 1 : cp < 0x10000 ? 2 : 3;
    static const unsigned lead[] = {0, 0xC0, 0xE0, 0xF0};
    for (int i = trail; i > 0; i--, cp >>= 6) buf[i] = (char)(0x80 | (cp & 0x3F));
    buf[0] = (char)(lead[trail] | cp);
    return trail + 1;
}

int64_t utf8_check(const char *p, int64_t n)
{
    int64_t i = 0;
    while (i < n) {
        uint32_t cp;
        int len = (unsigned char)p[i] < 0x80 ? 1 : utf8_next(p + i, n - i, &cp);
        if (len < 0) return i;
        i += len;
    }
    return n;
}

Err utf8_add_lossy(Str *out, const char *p, int64_t n)
{
    while (n > 0) {
        int64_t good = utf8_check(p, n);
        TRY(str_add(out, p, good));
        p += good, n -= good;
        if (n == 0) break;
        uint32_t cp;
        int bad = -utf8_next(p, n, &cp);
        TRY(str_add(out, "\xEF\xBF\xBD", 3));
        p += bad, n -= bad;
    }
    return str_add(out, "", 0);
}

void utf8_blank_nul(Str *s)
{
    for (int64_t i = 0; i < s->len; i++)
        if (!s->p[i]) s->p[i] = ' ';
}

void utf8_copy(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size);
    if (n == size)
        for (n = size - 1; n > 0 && ((unsigned char)from[n] & 0xC0) == 0x80;) n--;
    memcpy(to, from, n);
    to[n] = '\0';
}

bool utf8_is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

void utf8_trim(const char **p, int64_t *n)
{
    uint32_t cp;
    int len;
    while (*n > 0 && (len = utf8_next(*p, *n, &cp)) > 0 && utf8_is_space(cp)) *p += len, *n -= len;
    while (*n > 0) {
        int64_t i = *n - 1;
        while (i > 0 && ((unsigned char)(*p)[i] & 0xC0) == 0x80) i--;
        len = utf8_next(*p + i, *n - i, &cp);
        if (len < 0 || !utf8_is_space(cp)) break;
        *n = i;
    }
}
