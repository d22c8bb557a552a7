// SPDX-License-Identifier: Apache-2.0
// Parts of a page: escaping, numbers as text, sections, tables.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stage/report_parts.h"

const char *report_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

double report_number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

// ---- escaping --------------------------------------------------------------------------------------------------------

// Controls but tab and newline, line and paragraph separators, marks of direction, byte order mark, zero width space. Joiners
// stay: scripts and emoji need them.
static bool is_hidden(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200b || c == 0x200e ||
           c == 0x200f || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || (c & 0xfffe) == 0xfffe;
}

// Code point of 1..4 bytes of valid UTF-8; *n: how many. A byte that begins none is itself.
static uint32_t decode(const char *s, int64_t *n)
{
    const unsigned char *u = (const unsigned char *)s;
    *n = u[0] < 0xc2 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    uint32_t c = *n == 1 ? u[0] : u[0] & (0x7fu >> *n);
    for (int64_t i = 1; i < *n; i++) {
        if ((u[i] & 0xc0) != 0x80) return *n = 1, 0xfffd;
        c = c << 6 | (u[i] & 0x3f);
    }
    return c;
}

Err report_escape(Str *out, const char *s)
{
    for (int64_t n; *s; s += n) {
        uint32_t c = decode(s, &n);
        const char *as = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '"'  ? "&quot;"
                         : c == '\'' ? "&#39;"
                                     : NULL;
        if (as) TRY(str_puts(out, as));
        else if (is_hidden(c)) TRY(str_printf(out, "[U+%04X]", (unsigned)c));
        else if (n == 1 && c >= 0x80) TRY(str_puts(out, "\xef\xbf\xbd"));
        else TRY(str_add(out, s, n));
    }
    return OK;
}

Err report_put(Str *out, const char *before, const char *text, const char *after)
{
    TRY(str_puts(out, before));
    TRY(report_escape(out, text));
    return str_puts(out, after);
}

Err report_label(Str *out, const char *s, int most)
{
    Str part = {0};
    const char *p = s;
    for (int n = 0; *p && n < most; p++) n += ((unsigned char)p[1] & 0xc0) != 0x80;
    Err err = str_add(&part, s, p - s);
    if (err == OK) err = report_escape(out, str_text(&part));
    str_free(&part);
    TRY(err);
    return *p ? str_puts(out, "\xe2\x80\xa6") : OK;
}

Err report_block(Str *out, const char *class, const char *content)
{
    enum { LONGEST = 12000 };  // bytes
    Str part = {0};
    int64_t n = (int64_t)strlen(content), keep = n;
    for (keep = n < LONGEST ? n : LONGEST; keep > 0 && keep < n && ((unsigned char)content[keep] & 0xc0) == 0x80;) keep--;
    TRY(str_printf(out, "<pre class=\"%s\" dir=\"auto\">", class));
    Err err = str_add(&part, content, keep);
    if (err == OK) err = report_escape(out, str_text(&part));
    str_free(&part);
    TRY(err);
    if (keep < n) TRY(str_printf(out, "\n[%" PRId64 " more bytes: imf trace prints them]", n - keep));
    return str_puts(out, "</pre>\n");
}

// ---- numbers ---------------------------------------------------------------------------------------------------------

double report_nice(double x)
{
    double p = pow(10, floor(log10(x))), m = x / p;
    return (m >= 5 ? 5 : m >= 2 ? 2 : 1) * p;
}

void report_count(int64_t n, char out[32])
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%" PRId64, n), w = 0;
    for (int i = 0; i < len && w < 28; i++) {
        if (i > 0 && (len - i) % 3 == 0 && digits[i - 1] != '-') out[w++] = '\xc2', out[w++] = '\xa0';
        out[w++] = digits[i];
    }
    out[w] = '\0';
}

void report_tick(double v, char out[40])
{
    char text[32];
    double a = fabs(v);
    snprintf(text, sizeof text, a >= 1000 ? "%.0f" : a > 0 && a < 0.001 ? "%.3e" : "%.4g", a);
    char *e = strstr(text, "e-");
    if (e) snprintf(text, sizeof text, "%.3ge-%d", strtod(text, NULL) * pow(10, atoi(e + 2)), atoi(e + 2));
    snprintf(out, 40, "%s%s", v < 0 ? "\xe2\x88\x92" : "", text);
}

// ---- sections and tables ---------------------------------------------------------------------------------------------

Err report_section(Str *out, const char *id, const char *title, const char *caption)
{
    TRY(str_printf(out, "<section id=\"%s\">\n<h2>%s</h2>\n", id, title));
    return *caption ? str_printf(out, "<p class=\"note\">%s</p>\n", caption) : OK;
}

Err report_end(Str *out) { return str_puts(out, "</section>\n"); }

Err report_table(Str *out, const char *label)
{
    return str_printf(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table>", label);
}

Err report_table_end(Str *out) { return str_puts(out, "</table></div>\n"); }

Err report_cell(Str *out, const char *tag, const char *content)
{
    TRY(str_printf(out, "<%s>", tag));
    TRY(report_escape(out, content));
    return str_printf(out, "</%.2s>", tag);
}

Err report_cell_count(Str *out, int64_t n)
{
    char text[32];
    report_count(n, text);
    return report_cell(out, "td class=\"n\"", text);
}

Err report_cell_value(Str *out, const json_t *v)
{
    char number[32] = "-";
    if (json_is_integer(v)) return report_cell_count(out, json_integer_value(v));
    if (json_is_real(v)) snprintf(number, sizeof number, "%.4g", json_real_value(v));
    if (json_is_string(v)) return report_cell(out, "td", json_string_value(v));
    return report_cell(out, "td class=\"n\"", number);
}
