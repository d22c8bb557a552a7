// SPDX-License-Identifier: Apache-2.0
#include "train/tries.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 20, LIMIT = 1 << 20 };  // bytes of a line with its end, of the file

static int64_t line_step(const Str *text, int64_t i) { return strtoll(text->p + i * LINE, NULL, 10); }

static int64_t same_step(const Str *text)
{
    int64_t n = text->len / LINE, step;
    if (n < TRIES) return -1;
    step = line_step(text, n - 1);
    for (int64_t i = n - TRIES; i < n; i++)
        if (line_step(text, i) != step) return -1;
    return step > 0 ? step : -1;
}

static Err put_step(const Tries *t, int64_t step)
{
    char text[LINE + 1];
    snprintf(text, sizeof text, "%019lld\n", (long long)step);
    CHECK(pwrite(t->fd, text, LINE, (off_t)t->at) == LINE, ERR_IO, "cannot write %s: %s", t->path, strerror(errno));
    return OK;
}

static Err read_lines(Tries *t, bool ended, int64_t *stuck)
{
    Str text = {0};
    Err err = OK;
    if (io_exists(t->path)) TRY_DONE(io_read(t->path, &text, LIMIT));
    t->at = text.len / LINE * LINE;
    if (ended && t->at) text.len = t->at -= LINE;
    *stuck = t->at ? same_step(&text) : -1;
done:
    str_free(&text);
    return err;
}

Err tries_open(Tries *t, const char *dir, bool ended, int64_t *stuck)
{
    t->fd = -1;
    TRY(io_join(t->path, dir, "tries"));
    TRY(read_lines(t, ended, stuck));
    t->fd = open(t->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    CHECK(t->fd >= 0, ERR_CREATE, "cannot create %s: %s", t->path, strerror(errno));
    CHECK(ftruncate(t->fd, (off_t)t->at) == 0, ERR_IO, "cannot write %s: %s", t->path, strerror(errno));
    return put_step(t, 0);  // now there is room for it
}

void tries_step(Tries *t, int64_t step)
{
    if (t->fd >= 0) (void)!put_step(t, step);
}

void tries_close(Tries *t, Err err)
{
    if (t->fd < 0) return;
    if (err == OK || err == ERR_REQUEUE) unlink(t->path);
    else if (err != ERR_INTERNAL) (void)!ftruncate(t->fd, (off_t)t->at);
    close(t->fd);
    t->fd = -1;
}
