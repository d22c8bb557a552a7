// SPDX-License-Identifier: Apache-2.0
// Where the time went: profile.jsonl as a drawing and a table, a row a stage. A stage that ran several times (stopped and
// resumed, or started again after its end) has the sum of all.
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/profile.h"
#include "stage/report_parts.h"

static const char *stage_of(const json_t *line) { return report_text(line, "stage"); }

static bool was_before(const json_t *lines, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (!strcmp(stage_of(json_array_get(lines, i)), stage_of(json_array_get(lines, at)))) return true;
    return false;
}

// Sums over the lines of a stage: milliseconds, and how many lines.
static int64_t sum_stage(const json_t *lines, const char *stage, double *wall, double phase[PHASES])
{
    size_t i;
    const json_t *line;
    int64_t n = 0;
    *wall = 0;
    for (int p = 0; p < PHASES; p++) phase[p] = 0;
    json_array_foreach((json_t *)lines, i, line) {
        if (strcmp(stage_of(line), stage)) continue;
        const json_t *mean = json_object_get(line, "mean_ms");
        *wall += json_number_value(json_object_get(line, "wall_ms"));
        for (int p = 0; p < PHASES; p++) phase[p] += json_number_value(json_object_get(mean, profile_name((ProfilePhase)p)));
        n++;
    }
    return n;
}

// ---- drawing ---------------------------------------------------------------------------------------------------------

enum { WIDTH = 300, LEFT = 48, RIGHT = 240, ROW = 20 };

// What the phases are drawn as.
enum { COMPUTE, TALK, DISK, REST, PARTS };
static const char *const part_class[PARTS] = {"f0", "f1", "mid", "pale"};
static const char *const part_name[PARTS] = {"computing", "communication and waiting", "reading and writing", "other"};

static int part_of(int phase)
{
    switch ((ProfilePhase)phase) {
    case PHASE_COMM:
    case PHASE_WAIT:
        return TALK;
    case PHASE_IO:
        return DISK;
    case PHASE_OTHER:
        return REST;
    default:
        return COMPUTE;
    }
}

static Err bar(Str *out, const json_t *lines, const char *stage, double most, int y)
{
    double wall, phase[PHASES], part[PARTS] = {0}, x = LEFT;
    char text[32];
    sum_stage(lines, stage, &wall, phase);
    for (int p = 0; p < PHASES; p++) part[part_of(p)] += phase[p];
    TRY(str_printf(out, "<text class=\"label\" x=\"0\" y=\"%d\">", y + 13));
    TRY(report_label(out, stage, 7));
    TRY(str_puts(out, "</text>"));
    for (int p = 0; p < PARTS; p++) {
        double width = part[p] / most * (RIGHT - LEFT);
        time_span(1e-3 * part[p], text);
        TRY(str_printf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"12\"><title>%s: %s</title></rect>",
                       part_class[p], x, y + 3, width, part_name[p], text));
        x += width;
    }
    time_span(1e-3 * wall, text);
    return str_printf(out, "<text class=\"label\" x=\"%.1f\" y=\"%d\">%s</text>", x + 5, y + 13, text);
}

static Err drawing(Str *out, const json_t *lines)
{
    size_t i;
    const json_t *line;
    double most = 1, wall, phase[PHASES];
    int rows = 0, y = 0;
    json_array_foreach((json_t *)lines, i, line)
    {
        if (was_before(lines, i)) continue;
        sum_stage(lines, stage_of(line), &wall, phase);
        if (wall > most) most = wall;
        rows++;
    }
    TRY(str_puts(out, "<figure class=\"chart wide\" id=\"fig-time\"><figcaption>"));
    for (int p = 0; p < PARTS; p++) TRY(str_printf(out, "<span class=\"key %s\"></span> %s ", part_class[p], part_name[p]));
    TRY(str_printf(out, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"time of every stage\">", WIDTH,
                   ROW * rows + 2));
    json_array_foreach((json_t *)lines, i, line)
    {
        if (was_before(lines, i)) continue;
        TRY(bar(out, lines, stage_of(line), most, y));
        y += ROW;
    }
    return str_puts(out, "</svg></figure>\n");
}

// ---- table -----------------------------------------------------------------------------------------------------------

static Err stage_row(Str *out, const json_t *lines, const json_t *line)
{
    double wall, phase[PHASES];
    int64_t runs = sum_stage(lines, stage_of(line), &wall, phase);
    TRY(str_puts(out, "<tr><td>"));
    TRY(report_escape(out, stage_of(line)));
    TRY(str_printf(out, "<td class=\"n\">%lld<td class=\"n\">%.1f s", (long long)runs, 1e-3 * wall));
    for (int p = 1; p <= PHASES; p++)  // other: last
        TRY(str_printf(out, "<td class=\"n\">%.1f", wall > 0 ? 100 * phase[p % PHASES] / wall : 0));
    return OK;
}

static Err table(Str *out, const json_t *lines)
{
    size_t i;
    const json_t *line;
    TRY(str_puts(out, "<h3>Shares</h3>\n<p class=\"note\">Share of a stage's time in % (mean over its ranks).</p>\n"));
    TRY(report_table(out, "times"));
    TRY(str_puts(out, "<tr><th>stage<th class=\"n\">runs<th class=\"n\">time"));
    for (int p = 1; p <= PHASES; p++) TRY(str_printf(out, "<th class=\"n\">%s", profile_name((ProfilePhase)(p % PHASES))));
    json_array_foreach((json_t *)lines, i, line)
        if (!was_before(lines, i)) TRY(stage_row(out, lines, line));
    return report_table_end(out);
}

Err report_phases(const Report *r, Str *out)
{
    TRY(report_section(
        out, "time", "Where the time went",
        "How long every stage took, and what its ranks did in that time; a stage that ran several times has the sum."));
    if (json_array_size(r->profile) == 0)
        return str_puts(out, "<p class=\"gap\">There is no profile.jsonl: no stage has ended, or an earlier version ran "
                             "them.</p>\n</section>\n");
    TRY(drawing(out, r->profile));
    TRY(table(out, r->profile));
    return report_end(out);
}
