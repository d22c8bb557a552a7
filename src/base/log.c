// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/lease.h"

#define KEEP_SECONDS 5.0

static struct {
    int rank;
    char host[64];
    FILE *file;  // run_dir/log.jsonl, rank 0 only
    bool quiet;
    char progress[IO_PATH];  // run_dir/progress.json, rank 0 only
    char stage[32];          // that runs; "" when none does
} g;

void log_open(int rank, const char *host)
{
    g.rank = rank;
    snprintf(g.host, sizeof g.host, "%s", host);
}

Err log_to(const char *run_dir)
{
    if (g.rank != 0) return OK;
    char path[IO_PATH];
    TRY(io_join(path, run_dir, "log.jsonl"));
    TRY(io_join(g.progress, run_dir, "progress.json"));
    unlink(g.progress);  // of a job that was killed
    if (g.file) fclose(g.file);
    g.file = fopen(path, "ae");
    CHECK(g.file, ERR_CREATE, "cannot append to %s", path);
    return OK;
}

void log_close(void)
{
    if (g.file) fclose(g.file);
    g.file = NULL;
}

void log_quiet(bool quiet) { g.quiet = quiet; }

double time_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void time_text(char buf[32])
{
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void put_json_text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c < 0x20) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

// A line of log.jsonl.
static void put_file(const char *level, const char *component, const char *text)
{
    char when[32];
    if (!g.file) return;
    time_text(when);
    fprintf(g.file, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":", when, level);
    put_json_text(g.file, component);  // a progress names what the recipe calls a source
    fputs(",\"text\":", g.file);
    put_json_text(g.file, text);
    fputs("}\n", g.file);
    fflush(g.file);
}

static void put(const char *level, const char *component, const char *text)
{
    lease_renew();
    if (g.rank == 0 && (!g.quiet || strcmp(level, "info") != 0))
        fprintf(stderr, "%s%s: %s\n", strcmp(level, "warn") ? "" : "warning: ", component, text);
    put_file(level, component, text);
}

void log_info(const char *component, const char *fmt, ...)
{
    char text[4000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put("info", component, text);
}

void log_warn(const char *component, const char *fmt, ...)
{
    char text[4000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put("warn", component, text);
}

static double time_left(const Progress *p, int64_t done, double spent)
{
    double left = done > p->first ? spent * (double)(p->total - done) / (double)(done - p->first) : 0;
    return left > 0 ? left : 0;
}

// For other processes (imf status). A file that cannot be written is no reason to stop.
static void keep(Progress *p, int64_t done, int64_t tokens)
{
    char fresh[IO_PATH + 8], when[32];
    double spent = time_now() - p->started;
    if (!*g.progress || !*g.stage) return;
    p->kept = time_now();
    snprintf(fresh, sizeof fresh, "%s.tmp", g.progress);
    FILE *f = fopen(fresh, "we");
    if (!f) return;
    time_text(when);
    fprintf(f, "{\"stage\":\"%s\",\"what\":", g.stage);
    put_json_text(f, p->what);
    fprintf(f, ",\"unit\":\"%s\",\"done\":%" PRId64 ",\"total\":%" PRId64 ",\"tokens_per_s\":%.1f,\"spent_s\":%.1f,\"left_s\":%.1f,"
            "\"time\":\"%s\"}\n", p->unit, done, p->total, tokens > 0 && spent > 0 ? (double)tokens / spent : 0, spent,
            time_left(p, done, spent), when);
    int failed = ferror(f) | fclose(f);
    if (failed || rename(fresh, g.progress) != 0) unlink(fresh);
}

void progress_start(Progress *p, const char *what, int64_t total, const char *unit)
{
    double now = time_now();
    *p = (Progress){.what = what, .unit = unit, .total = total, .started = now, .shown = now};
    keep(p, 0, 0);
}

void log_stage(const char *stage)
{
    Progress begun = {.what = stage, .unit = "", .started = time_now()};
    snprintf(g.stage, sizeof g.stage, "%s", stage ? stage : "");
    if (stage) keep(&begun, 0, 0);
    else if (*g.progress) unlink(g.progress);
}

void progress_note(Progress *p, int64_t done, int64_t tokens)
{
    lease_renew();
    if (time_now() - p->kept >= KEEP_SECONDS) keep(p, done, tokens);
}

void time_span(double s, char buf[32])
{
    int64_t t = (int64_t)(s + 0.5);
    if (s < 9.95) snprintf(buf, 32, "%.1f s", s > 0 ? s : 0);
    else if (t < 100) snprintf(buf, 32, "%d s", (int)t);
    else if (t < 3600) snprintf(buf, 32, "%d min %02d s", (int)(t / 60), (int)(t % 60));
    else snprintf(buf, 32, "%d h %02d min", (int)(t / 3600), (int)(t % 3600 / 60));
}

// "12/64 samples (19 %), 199 tokens/s, 2 min 05 s left"; at the end ".., in 3 min 10 s".
static void progress_text(const Progress *p, int64_t done, int64_t tokens, bool end, char out[256])
{
    double spent = time_now() - p->started;
    char rate[64] = "", span[32] = "";
    if (tokens > 0 && spent > 0) snprintf(rate, sizeof rate, ", %.0f tokens/s", (double)tokens / spent);
    time_span(end ? spent : time_left(p, done, spent), span);
    snprintf(out, 256, "%" PRId64 "/%" PRId64 " %s (%.0f %%)%s, %s%s%s", done, p->total, p->unit,
             p->total > 0 ? 100.0 * (double)done / (double)p->total : 100.0, rate, end ? "in " : "", span, end ? "" : " left");
}

void progress_show(Progress *p, int64_t done, int64_t tokens)
{
    bool terminal = isatty(STDERR_FILENO);
    double now = time_now();
    progress_note(p, done, tokens);
    if (g.rank != 0 || g.quiet || now - p->shown < (terminal ? 1.0 : 10.0)) return;
    p->shown = now;
    char text[256];
    progress_text(p, done, tokens, false, text);
    fprintf(stderr, terminal ? "\r%s: %s\033[K" : "%s: %s\n", p->what, text);
}

void progress_end(Progress *p, int64_t done, int64_t tokens)
{
    keep(p, done, tokens);
    if (g.rank != 0) return;
    char text[256];
    progress_text(p, done, tokens, true, text);
    if (!g.quiet) fprintf(stderr, isatty(STDERR_FILENO) ? "\r%s: %s\033[K\n" : "%s: %s\n", p->what, text);
    put_file("info", p->what, text);
}
