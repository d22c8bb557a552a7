// SPDX-License-Identifier: Apache-2.0
#include "train/events.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "events.out.tfevents."  // TensorBoard looks for "tfevents" in names

// --- records -----------------------------------------------------------------------------------------------------------

// Castagnoli's polynomial, bits reflected, four bits at a time: a table of 16 is enough for a few hundred bytes a line.
static uint32_t crc32c(const char *p, int64_t n)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    uint32_t crc = 0xffffffff;
    for (int64_t i = 0; i < n; i++) {
        crc ^= (uint8_t)p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

// Masked, as sums of data that hold sums themselves are weak.
static uint32_t masked_crc(const char *p, int64_t n)
{
    const uint32_t crc = crc32c(p, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static Err put_number(Str *s, uint64_t v, int bytes)
{
    char b[8];
    for (int i = 0; i < bytes; i++) b[i] = (char)(v >> 8 * i);
    return str_add(s, b, bytes);
}

// One write a record, so that a reader meanwhile sees it whole.
static Err write_record(const Events *e, const Str *event)
{
    Str r = {0};
    Err err = OK;
    TRY_DONE(put_number(&r, (uint64_t)event->len, 8));
    TRY_DONE(put_number(&r, masked_crc(r.p, 8), 4));
    TRY_DONE(str_add(&r, event->p, event->len));
    TRY_DONE(put_number(&r, masked_crc(event->p, event->len), 4));
    TRY_DONE(io_write_all(e->fd, e->path, r.p, r.len));
done:
    str_free(&r);
    return err;
}

// --- protocol buffers: a key (number << 3 | wire type), then the value ---------------------------------------------------

enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };  // wire types
enum { EVENT_WALL_TIME = 1, EVENT_STEP, EVENT_FILE_VERSION, EVENT_SUMMARY = 5, EVENT_SESSION_LOG = 7 };
enum { SUMMARY_VALUE = 1 };
enum { VALUE_TAG = 1, VALUE_SIMPLE_VALUE };
enum { SESSION_LOG_STATUS = 1 };
enum { STATUS_START = 1 };

static Err put_varint(Str *s, uint64_t v)
{
    for (; v >= 128; v >>= 7) TRY(put_number(s, (v & 127) | 128, 1));
    return put_number(s, v, 1);
}

static Err put_key(Str *s, int number, int type) { return put_varint(s, (uint64_t)(number << 3 | type)); }

static Err put_whole(Str *s, int number, int64_t v)
{
    TRY(put_key(s, number, VARINT));
    return put_varint(s, (uint64_t)v);
}

static Err put_double(Str *s, int number, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    TRY(put_key(s, number, FIXED64));
    return put_number(s, bits, 8);
}

static Err put_float(Str *s, int number, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    TRY(put_key(s, number, FIXED32));
    return put_number(s, bits, 4);
}

static Err put_bytes(Str *s, int number, const char *p, int64_t n)
{
    TRY(put_key(s, number, BYTES));
    TRY(put_varint(s, (uint64_t)n));
    return str_add(s, p, n);
}

// --- events --------------------------------------------------------------------------------------------------------------

static Err add_value(Str *summary, const char *stage, const Scalar *scalar)
{
    char tag[128];
    Str v = {0};
    Err err = OK;
    if (!(fabs(scalar->value) <= FLT_MAX)) return OK;  // NaN compares with nothing
    snprintf(tag, sizeof tag, "%s/%s", stage, scalar->name);
    TRY_DONE(put_bytes(&v, VALUE_TAG, tag, (int64_t)strlen(tag)));
    TRY_DONE(put_float(&v, VALUE_SIMPLE_VALUE, (float)scalar->value));
    TRY_DONE(put_bytes(summary, SUMMARY_VALUE, v.p, v.len));
done:
    str_free(&v);
    return err;
}

// An Event of now with one field of bytes besides.
static Err write_event(const Events *e, int64_t step, int field, const char *p, int64_t n)
{
    struct timespec now;
    Str event = {0};
    Err err = OK;
    clock_gettime(CLOCK_REALTIME, &now);
    TRY_DONE(put_double(&event, EVENT_WALL_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec));
    TRY_DONE(put_whole(&event, EVENT_STEP, step));
    TRY_DONE(put_bytes(&event, field, p, n));
    TRY_DONE(write_record(e, &event));
done:
    str_free(&event);
    return err;
}

Err events_add(const Events *e, int64_t step, const Scalar *s, int n)
{
    Str summary = {0};
    Err err = OK;
    if (e->fd < 0) return OK;
    for (int i = 0; i < n; i++) TRY_DONE(add_value(&summary, e->stage, &s[i]));
    if (summary.len) TRY_DONE(write_event(e, step, EVENT_SUMMARY, summary.p, summary.len));
done:
    str_free(&summary);
    return err;
}

static Err write_head(const Events *e, int64_t step)
{
    static const char version[] = "brain.Event:2";  // from version 2 on TensorBoard heeds START
    Str start = {0};
    Err err = OK;
    TRY_DONE(write_event(e, 0, EVENT_FILE_VERSION, version, (int64_t)strlen(version)));
    TRY_DONE(put_whole(&start, SESSION_LOG_STATUS, STATUS_START));
    TRY_DONE(write_event(e, step, EVENT_SESSION_LOG, start.p, start.len));
done:
    str_free(&start);
    return err;
}

// TensorBoard reads the files of a directory by name and never goes back to one: the name of a new one is behind all others, even
// when two starts share a second or this machine's clock is behind that of the one before.
static Err next_time(const char *dir, int64_t *out)
{
    char **name = NULL;
    int64_t n = 0;
    *out = (int64_t)time(NULL);
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++) {
        if (!str_starts(name[i], PREFIX)) continue;
        const int64_t at = strtoll(name[i] + strlen(PREFIX), NULL, 10);
        if (at >= *out && at < INT64_MAX) *out = at + 1;
    }
    io_list_free(name, n);
    return OK;
}

Err events_open(Events *e, const char *run_dir, const char *stage, int64_t step)
{
    char dir[IO_PATH], host[65] = "", name[160];
    int64_t seconds;
    *e = (Events){.fd = -1, .stage = stage};
    TRY(io_join(dir, run_dir, stage));
    TRY(next_time(dir, &seconds));
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, PREFIX "%010lld.%s.%ld", (long long)seconds, host, (long)getpid());
    TRY(io_join(e->path, dir, name));
    e->fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    CHECK(e->fd >= 0, ERR_CREATE, "cannot create %s: %s%s", e->path, strerror(errno), io_advice(errno));
    return write_head(e, step);
}

Err events_sync(const Events *e)
{
    CHECK(e->fd < 0 || fdatasync(e->fd) == 0, ERR_IO, "cannot sync %s: %s%s", e->path, strerror(errno), io_advice(errno));
    return OK;
}

void events_close(Events *e)
{
    if (e->fd >= 0) close(e->fd);
    e->fd = -1;
}
