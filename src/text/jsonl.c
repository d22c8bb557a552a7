// SPDX-License-Identifier: Apache-2.0
// Rows of a user's file or of standard input: JSON Lines, or one JSON array. Read in blocks, a row at a time, so memory is that
// of the longest row; a file without line ends (a disk image, a minified dump) is refused at JSONL_ROW bytes instead of filling
// the memory.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/profile.h"
#include "text/record.h"

enum { BLOCK = 1 << 16 };

typedef struct Lines {
    int fd;
    const char *name;
    Str text;     // bytes read and not yet consumed
    int64_t at;   // of the current row in text
    bool ended;   // nothing more to read
    JsonlFn f;
    void *user;
} Lines;

// Adds a block behind what is there, and drops what was consumed.
static Err fill(Lines *l)
{
    PROFILE(PHASE_IO);
    char block[BLOCK];
    if (l->at > 0) {
        memmove(l->text.p, l->text.p + l->at, (size_t)(l->text.len - l->at) + 1);
        l->text.len -= l->at;
        l->at = 0;
    }
    ssize_t n = read(l->fd, block, sizeof block);
    if (n < 0 && errno == EINTR) return OK;
    CHECK(n >= 0, ERR_IO, "cannot read %s: %s%s", l->name, strerror(errno), io_advice(errno));
    l->ended = n == 0;
    return str_add(&l->text, block, n);
}

// How a row is told from the next one.
typedef struct Scan {
    int64_t n;       // bytes of the row looked at so far
    int depth;       // of brackets; array only
    bool string, escape;
} Scan;

static Err too_long(const char *where)
{
    FAIL(ERR_DATA, "%s: this row is longer than %d MiB, the most that is taken; put one JSON row on a line", where,
         JSONL_ROW >> 20);
}

static Err give(Lines *l, int64_t n, const char *where)
{
    json_t *row;
    TRY(json_parse(l->text.p + l->at, n, where, &row));
    Err err = l->f(l->user, row, where);
    json_decref(row);
    return err;
}

// ---- a row a line ------------------------------------------------------------------------------------------------------

// *n: bytes up to the line feed, or to the end of the file.
static Err find_line(Lines *l, const char *where, int64_t *n)
{
    for (int64_t seen = 0;;) {
        const char *row = l->text.p + l->at, *newline = memchr(row + seen, '\n', (size_t)(l->text.len - l->at - seen));
        seen = l->text.len - l->at;
        *n = newline ? newline - row : seen;
        if (*n > JSONL_ROW) return too_long(where);
        if (newline || l->ended) return OK;
        TRY(fill(l));
    }
}

static bool blank(const char *p, int64_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) p++, n--;
    return n == 0;
}

static Err lines_each(Lines *l)
{
    char where[IO_PATH + 32];
    for (int64_t number = 1;; number++) {
        int64_t n;
        snprintf(where, sizeof where, "%s:%" PRId64, l->name, number);
        TRY(find_line(l, where, &n));
        if (!blank(l->text.p + l->at, n)) TRY(give(l, n, where));
        l->at += n + 1;
        if (l->at > l->text.len) return OK;  // that line had no line feed: the last one
    }
}

// ---- an array ----------------------------------------------------------------------------------------------------------

// One more byte of an entry; true when it is the ',' or ']' behind it.
static bool entry_ends(Scan *s, char c)
{
    if (s->escape) {
        s->escape = false;
    } else if (s->string) {
        s->escape = c == '\\';
        s->string = c != '"';
    } else if (c == '"') {
        s->string = true;
    } else if (c == '[' || c == '{') {
        s->depth++;
    } else if (s->depth == 0 && (c == ',' || c == ']')) {
        return true;
    } else if (c == ']' || c == '}') {
        s->depth--;
    }
    return false;
}

static Err find_entry(Lines *l, const char *where, int64_t *n)
{
    Scan s = {0};
    *n = 0;
    for (;;) {
        for (; s.n < l->text.len - l->at; s.n++) {
            *n = s.n;
            if (entry_ends(&s, l->text.p[l->at + s.n])) return OK;
        }
        if (s.n > JSONL_ROW) return too_long(where);
        CHECK(!l->ended, ERR_DATA, "%s: the file ends inside of its array; was it cut off?", where);
        TRY(fill(l));
    }
}

static Err skip_space(Lines *l)
{
    for (;;) {
        while (l->at < l->text.len && isspace((unsigned char)l->text.p[l->at])) l->at++;
        if (l->at < l->text.len || l->ended) return OK;
        TRY(fill(l));
    }
}

static Err array_each(Lines *l)
{
    char where[IO_PATH + 48], end = ',';
    l->at++;  // '['
    TRY(skip_space(l));
    bool empty = l->at < l->text.len && l->text.p[l->at] == ']';
    l->at += empty;
    for (int64_t number = 1; !empty && end == ','; number++) {
        int64_t n;
        snprintf(where, sizeof where, "%s: entry %" PRId64, l->name, number);
        TRY(find_entry(l, where, &n));
        TRY(give(l, n, where));
        end = l->text.p[l->at + n];
        l->at += n + 1;
    }
    TRY(skip_space(l));
    CHECK(l->at == l->text.len, ERR_DATA, "%s: something stands behind the array; a file holds one array, or one row a line",
          l->name);
    return OK;
}

// ---- files -------------------------------------------------------------------------------------------------------------

static Err each(int fd, const char *name, JsonlFn f, void *user)
{
    Lines l = {.fd = fd, .name = name, .f = f, .user = user};
    Err err = OK;
    while (l.text.len < 3 && !l.ended) TRY_DONE(fill(&l));
    if (str_starts(str_text(&l.text), "\xef\xbb\xbf")) l.at = 3;
    int64_t begin = l.at;
    while (l.at < l.text.len && isspace((unsigned char)l.text.p[l.at])) l.at++;
    bool array = l.text.len && l.text.p[l.at] == '[';
    if (!array) l.at = begin;  // empty lines count
    if (l.text.len) TRY_DONE(array ? array_each(&l) : lines_each(&l));
done:
    str_free(&l.text);
    return err;
}

Err jsonl_each(const char *path, JsonlFn f, void *user)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(fd >= 0, ERR_NOINPUT, "cannot open %s: %s%s", path, strerror(errno), io_advice(errno));
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    Err err = regular ? each(fd, path, f, user) : OK;
    close(fd);
    CHECK(regular, ERR_NOINPUT, "cannot read %s: it is a directory or a pipe; name a regular file", path);
    return err;
}

Err jsonl_stdin(JsonlFn f, void *user) { return each(STDIN_FILENO, "standard input", f, user); }
