// Where the time went: profile.jsonl as a table, a row a stage. A stage that ran several times (stopped and resumed, or started
// again after its end) has the sum of all.
#include <stdio.h>
#include <string.h>

#include "base/profile.h"
#include "stage/report_parts.h"

static const char *stage_of(const json_t *line)
{
    const char *s = json_string_value(json_object_get(line, "stage"));
    return s ? s : "";
}

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

Err report_phases(Str *out, const json_t *lines)
{
    size_t i;
    const json_t *line;
    if (json_array_size(lines) == 0) return OK;
    TRY(str_puts(out,
                 "<h2>Where the time went</h2>\n<p class=\"note\">Share of a stage's time in % (mean over its ranks).</p>\n"
                 "<table><tr><th>stage<th class=\"n\">runs<th class=\"n\">time"));
    for (int p = 1; p <= PHASES; p++) TRY(str_printf(out, "<th class=\"n\">%s", profile_name((ProfilePhase)(p % PHASES))));
    json_array_foreach((json_t *)lines, i, line)
        if (!was_before(lines, i)) TRY(stage_row(out, lines, line));
    return str_puts(out, "</table>\n");
}
