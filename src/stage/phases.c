// SPDX-License-Identifier: Apache-2.0
#include "stage/phases.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/profile.h"
#include "base/version.h"
#include "par/par.h"

static double started;  // time_now() at the start of the running stage

enum { WALL = PHASES, MISNESTED, MESSAGES, BYTES, COLLECTIVES, MEMORY, NUMBERS };

typedef struct Phases {
    int64_t sum[NUMBERS], max[NUMBERS];  // over ranks; nanoseconds but for MISNESTED and the counts behind it
} Phases;

void phases_start(void)
{
    started = time_now();
    profile_start();
}

static Err gather(Phases *p)
{
    ProfileTimes t;
    ParCounts c;
    double now = time_now();
    profile_take(&t);
    memcpy(p->sum, t.ns, sizeof t.ns);
    p->sum[WALL] = (int64_t)(1e9 * (now - started));
    p->sum[MISNESTED] = t.misnested;
    par_counts_take(&c);
    p->sum[MESSAGES] = c.messages, p->sum[BYTES] = c.bytes, p->sum[COLLECTIVES] = c.collectives;
    p->sum[MEMORY] = mem_peak();
    started = now;
    memcpy(p->max, p->sum, sizeof p->max);
    TRY(par_sum_i64(p->sum, NUMBERS));
    return par_max_i64(p->max, NUMBERS);
}

static double mean_ms(const Phases *p, int i) { return 1e-6 * (double)p->sum[i] / par_size(); }

static void print_row(const Phases *p, int i)
{
    fprintf(stderr, "  %-13s %14.3f %6.1f %14.3f\n", profile_name((ProfilePhase)i), mean_ms(p, i),
            100 * mean_ms(p, i) / mean_ms(p, WALL), 1e-6 * (double)p->max[i]);
}

static void print_table(const char *stage, const Phases *p)
{
    double all = 0;
    fprintf(stderr, "profile of %s: %.1f ms, %d rank%s\n  %-13s %14s %6s %14s\n", stage, mean_ms(p, WALL), par_size(),
            par_size() > 1 ? "s" : "", "phase", "mean ms", "%", "max ms");
    for (int i = 0; i < PHASES; i++) all += mean_ms(p, i);
    for (int i = 0; i < PHASES; i++)
        if (i != PHASE_OTHER) print_row(p, i);
    print_row(p, PHASE_OTHER);
    fprintf(stderr, "  %-13s %14.3f %6.1f\n", "sum", all, 100 * all / mean_ms(p, WALL));
}

static Err make_line(const char *stage, const Phases *p, Str *out)
{
    char when[32];
    time_text(when);
    TRY(str_printf(out, "{\"stage\":\"%s\",\"ranks\":%d,\"time\":\"%s\",\"program\":\"%s\",\"wall_ms\":%.3f,\"mean_ms\":",
                   stage, par_size(), when, imf_version, mean_ms(p, WALL)));
    for (int i = 0; i < PHASES; i++)
        TRY(str_printf(out, "%s\"%s\":%.3f", i ? "," : "{", profile_name((ProfilePhase)i), mean_ms(p, i)));
    TRY(str_puts(out, "},\"max_ms\":"));
    for (int i = 0; i < PHASES; i++)
        TRY(str_printf(out, "%s\"%s\":%.3f", i ? "," : "{", profile_name((ProfilePhase)i), 1e-6 * (double)p->max[i]));
    TRY(str_puts(out, "}"));
    static const char *const count[] = {"messages", "bytes", "collectives", "memory"};  // from MESSAGES on
    for (int i = 0; i < 4; i++)
        TRY(str_printf(out, ",\"%s\":{\"sum\":%" PRId64 ",\"max\":%" PRId64 "}", count[i], p->sum[MESSAGES + i], p->max[MESSAGES + i]));
    return str_puts(out, "}\n");
}

// Whole or not at all: a full disk leaves no torn line.
static Err add_line(const char *stage, const char *run_dir, const Phases *p)
{
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    TRY(io_join(path, run_dir, PHASES_FILE));
    if (io_exists(path)) TRY_DONE(io_read(path, &text, INT64_MAX));
    TRY_DONE(make_line(stage, p, &text));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    return err;
}

Err phases_end(const char *stage, const char *run_dir, bool print)
{
    Phases p;
    TRY(gather(&p));
    if (p.sum[MISNESTED])
        log_warn("profile", "%s: %" PRId64 " phases ended out of order, so times are in the wrong phase", stage,
                 p.sum[MISNESTED]);
    if (print && par_rank() == 0) print_table(stage, &p);
    return par_agree(run_dir && par_rank() == 0 ? add_line(stage, run_dir, &p) : OK);
}
