// SPDX-License-Identifier: Apache-2.0
// JUnit XML: one test suite, a test case for every check.
#include "stage/junit.h"

#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/str.h"
#include "text/utf8.h"

// Characters that XML 1.0 cannot hold become U+FFFD, as bytes do that are no UTF-8.
static bool is_xml(uint32_t c)
{
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0xfffe) || c >= 0x10000;
}

static Err add_escaped(Str *out, const char *p, int64_t left)
{
    uint32_t c;
    for (int n; left > 0; p += n, left -= n) {
        n = utf8_next(p, left, &c);
        if (c == '&') TRY(str_puts(out, "&amp;"));
        else if (c == '<') TRY(str_puts(out, "&lt;"));
        else if (c == '>') TRY(str_puts(out, "&gt;"));
        else if (c == '"') TRY(str_puts(out, "&quot;"));
        else if (!is_xml(c)) TRY(str_puts(out, "\xef\xbf\xbd"));
        else TRY(str_add(out, p, n));
    }
    return OK;
}

static Err add_text(Str *out, const char *before, const char *text, const char *after)
{
    Str valid = {0};
    Err err = OK;
    TRY_DONE(utf8_add_lossy(&valid, text, (int64_t)strlen(text)));
    TRY_DONE(str_puts(out, before));
    TRY_DONE(add_escaped(out, str_text(&valid), valid.len));
    TRY_DONE(str_puts(out, after));
done:
    str_free(&valid);
    return err;
}

static Err add_case(Str *out, const JunitCase *c)
{
    TRY(add_text(out, "  <testcase classname=\"", c->group, "\""));
    TRY(add_text(out, " name=\"", c->name, "\""));
    TRY(str_printf(out, " time=\"%.3f\">\n", c->seconds));
    if (c->failure) TRY(add_text(out, "    <failure>", c->failure, "</failure>\n"));
    else if (!c->ran) TRY(str_puts(out, "    <skipped message=\"not reached\"/>\n"));
    if (c->out) TRY(add_text(out, "    <system-out>", c->out, "</system-out>\n"));
    return str_puts(out, "  </testcase>\n");
}

static Err add_suite(Str *out, const char *suite, const JunitCase *cases, int n)
{
    int failures = 0, skipped = 0;
    double seconds = 0;
    for (int i = 0; i < n; i++) {
        failures += cases[i].failure != NULL;
        skipped += !cases[i].ran && !cases[i].failure;
        seconds += cases[i].seconds;
    }
    TRY(add_text(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"", suite, "\""));
    TRY(str_printf(out, " tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"%d\" time=\"%.3f\">\n", n, failures, skipped, seconds));
    for (int i = 0; i < n; i++) TRY(add_case(out, &cases[i]));
    return str_puts(out, "</testsuite>\n");
}

Err junit_write(const char *path, const char *suite, const JunitCase *cases, int n)
{
    struct stat st;
    Str text = {0};
    Err err = OK;
    CHECK(*path && (stat(path, &st) != 0 || S_ISREG(st.st_mode)), ERR_CREATE, "'%s' is no place for a file: it is %s", path,
          *path ? "there already, and no plain file" : "empty");
    TRY_DONE(add_suite(&text, suite, cases, n));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    return err;
}
