// SPDX-License-Identifier: Apache-2.0
// What the evaluation found: a drawing of every set and kind, the table of it, differences, rates; and the few numbers at the
// top of the page.
#include <stdio.h>
#include <string.h>

#include "stage/report_parts.h"

enum { WIDTH = 300, LEFT = 60, RIGHT = 164, ROW = 22, TOP = 6 };  // of a drawing; numbers stand right of RIGHT

// ---- drawings --------------------------------------------------------------------------------------------------------

static double place(double share) { return LEFT + share * (RIGHT - LEFT); }

static Err axis(Str *out, int bottom)
{
    for (int p = 0; p <= 100; p += 50) {
        TRY(str_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", place(p / 100.0),
                       place(p / 100.0), TOP, bottom));
        TRY(str_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d%s</text>", place(p / 100.0), bottom + 14, p,
                       p == 100 ? " %" : ""));
    }
    return OK;
}

static Err dot(Str *out, const json_t *row, const char *model, int y, bool last)
{
    char text[64];
    TRY(str_printf(out, "<text class=\"label%s\" x=\"0\" y=\"%d\">", last ? " strong" : "", y + 4));
    TRY(report_label(out, model, 9));
    TRY(str_puts(out, "</text>"));
    report_interval(row, "mean", text);
    TRY(str_printf(out, "<text class=\"label%s\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", last ? " strong" : "", WIDTH,
                   y + 4, text));
    if (!row) return OK;
    TRY(str_printf(out, "<line class=\"whisker%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", last ? " s0" : "",
                   place(report_number(row, "lo")), place(report_number(row, "hi")), y, y));
    return str_printf(out, "<circle class=\"dot%s\" cx=\"%.1f\" cy=\"%d\" r=\"3\"/>", last ? " f0" : "",
                      place(report_number(row, "mean")), y);
}

static void group_title(const json_t *group, char out[160])
{
    bool mean = !strcmp(report_text(group, "kind"), "mean");
    if (mean) snprintf(out, 160, "mean of the kinds");
    else if (!strcmp(report_text(group, "set"), report_text(group, "kind")))
        snprintf(out, 160, "%.100s", report_text(group, "kind"));
    else snprintf(out, 160, "%.100s, %.40s", report_text(group, "set"), report_text(group, "kind"));
}

static Err drawing(Str *out, const json_t *rows, const json_t *models, const json_t *group)
{
    size_t m, n = json_array_size(models);
    const json_t *model;
    char title[160];
    int bottom = TOP + ROW * (int)n;
    group_title(group, title);
    TRY(report_put(out, "<div class=\"chart\"><h4>", title, ""));
    TRY(str_printf(out, " <span class=\"dim\">n = %.0f</span></h4>", report_number(group, "n")));
    TRY(str_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, bottom + 20));
    TRY(report_put(out, "", title, ": the numbers are in the table below\">"));
    TRY(axis(out, bottom));
    json_array_foreach((json_t *)models, m, model)
    {
        const char *name = json_string_value(model);
        const json_t *row = report_row(rows, name, report_text(group, "set"), report_text(group, "kind"));
        TRY(dot(out, row, name, TOP + ROW / 2 + ROW * (int)m, m == n - 1));
    }
    return str_puts(out, "</svg></div>\n");
}

static Err drawings(Str *out, const json_t *rows, const json_t *models, const json_t *groups)
{
    size_t i;
    const json_t *group;
    TRY(str_puts(out, "<figure id=\"fig-results\"><figcaption>Dots are means, lines their 95 % intervals; the last model is "
                      "blue.</figcaption><div class=\"grid\">\n"));
    json_array_foreach((json_t *)groups, i, group) TRY(drawing(out, rows, models, group));
    return str_puts(out, "</div></figure>\n");
}

// ---- tables ----------------------------------------------------------------------------------------------------------

static Err result_row(Str *out, const json_t *rows, const json_t *models, const json_t *group)
{
    size_t m;
    const json_t *model;
    char content[64];
    TRY(str_puts(out, "<tr>"));
    TRY(report_cell(out, "td", report_text(group, "set")));
    TRY(report_cell(out, "td", report_text(group, "kind")));
    TRY(report_cell_value(out, json_object_get(group, "n")));
    json_array_foreach((json_t *)models, m, model)
    {
        report_interval(report_row(rows, json_string_value(model), report_text(group, "set"), report_text(group, "kind")),
                        "mean", content);
        TRY(report_cell(out, "td class=\"n\"", content));
    }
    return OK;
}

static Err result_table(Str *out, const json_t *rows, const json_t *models, const json_t *groups)
{
    size_t i;
    const json_t *v;
    TRY(report_table(out, "results"));
    TRY(str_puts(out, "<tr><th>set</th><th>kind</th><th class=\"n\">n</th>"));
    json_array_foreach((json_t *)models, i, v) TRY(report_cell(out, "th class=\"n\"", json_string_value(v)));
    json_array_foreach((json_t *)groups, i, v) TRY(result_row(out, rows, models, v));
    return report_table_end(out);
}

// With a minus sign instead of a hyphen.
static Err signed_cell(Str *out, const char *content)
{
    TRY(str_puts(out, "<td class=\"n\">"));
    for (const char *p = content; *p; p++) TRY(*p == '-' && p[1] ? str_puts(out, "\xe2\x88\x92") : str_add(out, p, 1));
    return str_puts(out, "</td>");
}

static Err difference_row(Str *out, const json_t *eval, const json_t *a, const json_t *b, const json_t *groups)
{
    size_t i;
    const json_t *group;
    char content[64];
    snprintf(content, sizeof content, "%.28s \xe2\x88\x92 %.28s", json_string_value(b), json_string_value(a));
    TRY(str_puts(out, "<tr>"));
    TRY(report_cell(out, "td", content));
    json_array_foreach((json_t *)groups, i, group)
    {
        report_interval(report_pair(json_object_get(eval, "paired"), a, b, group), "diff", content);
        TRY(signed_cell(out, content));
    }
    return OK;
}

static Err difference_table(Str *out, const json_t *eval, const json_t *models, const json_t *groups)
{
    size_t i, n = json_array_size(models);
    const json_t *group;
    char title[160];
    if (n < 2) return OK;
    TRY(str_puts(
        out,
        "<h3>Differences</h3>\n<p class=\"note\">On the same prompts, in points [95 % paired bootstrap interval]; an interval "
        "without 0 is a difference that chance does not explain.</p>\n"));
    TRY(report_table(out, "differences"));
    TRY(str_puts(out, "<tr><th>difference</th>"));
    json_array_foreach((json_t *)groups, i, group)
    {
        group_title(group, title);
        TRY(report_cell(out, "th class=\"n\"", title));
    }
    for (size_t b = 1; b < n; b++)
        for (size_t a = 0; a < b; a++)
            if (report_shows(a, b, n))
                TRY(difference_row(out, eval, json_array_get(models, a), json_array_get(models, b), groups));
    return report_table_end(out);
}

// The mean length, the reward model's mean and three rates of every model and group.
static Err rate_table(Str *out, const json_t *rows)
{
    static const char *const rates[] = {"truncated", "no_answer", "undecided"};
    size_t i;
    const json_t *row;
    char content[32];
    TRY(report_table(out, "lengths and rates"));
    TRY(str_puts(out,
                 "<tr><th>model</th><th>set</th><th>kind</th><th class=\"n\">mean tokens</th><th class=\"n\">mean reward</th>"
                 "<th class=\"n\">cut</th><th class=\"n\">no answer</th><th class=\"n\">undecided</th>"));
    json_array_foreach((json_t *)rows, i, row)
    {
        const json_t *tokens = json_object_get(row, "tokens_mean");
        TRY(str_puts(out, "<tr>"));
        TRY(report_cell(out, "td", report_text(row, "model")));
        TRY(report_cell(out, "td", report_text(row, "set")));
        TRY(report_cell(out, "td", report_text(row, "kind")));
        snprintf(content, sizeof content, json_is_number(tokens) ? "%.1f" : "-", json_number_value(tokens));
        TRY(report_cell(out, "td class=\"n\"", content));
        TRY(report_cell_value(out, json_object_get(row, "reward_mean")));
        for (int r = 0; r < 3; r++) {
            snprintf(content, sizeof content, "%.1f %%", 100 * report_number(row, rates[r]));
            TRY(report_cell(out, "td class=\"n\"", content));
        }
    }
    return report_table_end(out);
}

static Err put_results(const Report *r, Str *out, const json_t *rows, const json_t *models, const json_t *groups)
{
    TRY(drawings(out, rows, models, groups));
    TRY(result_table(out, rows, models, groups));
    TRY(difference_table(out, r->eval, models, groups));
    TRY(str_puts(
        out,
        "<h3>Lengths and rates</h3>\n<p class=\"note\">How long the answers are, their mean score by the reward model (which "
        "chose the pairs: not a result), and how many were cut by length, held no answer, or could not be judged.</p>\n"));
    return rate_table(out, rows);
}

Err report_results(const Report *r, Str *out)
{
    TRY(report_section(
        out, "results", "Held-out results",
        "How each model does on prompts that no training saw: share of right answers (math, code) or of conditions met (if: "
        "instructions), in %, with its 95 % interval."));
    if (!r->eval) return str_puts(out, "<p class=\"gap\">The eval stage has not run.</p>\n</section>\n");
    const json_t *rows = json_object_get(r->eval, "rows");
    json_t *models = report_models(rows), *groups = report_groups(rows);
    Err err = put_results(r, out, rows, models, groups);
    json_decref(models);
    json_decref(groups);
    TRY(err);
    return report_end(out);
}

// ---- at the top ------------------------------------------------------------------------------------------------------

// The last group is the mean of the kinds, where there are several.
static Err put_headline(Str *out, const json_t *rows, const json_t *models, const json_t *group)
{
    size_t m, n = json_array_size(models);
    const json_t *model;
    char title[160];
    group_title(group, title);
    TRY(str_puts(out, "<ul class=\"tiles\">"));
    json_array_foreach((json_t *)models, m, model)
    {
        const char *name = json_string_value(model);
        const json_t *row = report_row(rows, name, report_text(group, "set"), report_text(group, "kind"));
        if (!row) continue;
        TRY(str_printf(out, "<li%s>", m == n - 1 ? " class=\"last\"" : ""));
        TRY(report_put(out, "<span class=\"dim\">", name, "</span>"));
        TRY(str_printf(out, "<b>%.1f<small> %%</small></b><span class=\"dim\">%.1f to %.1f</span></li>",
                       100 * report_number(row, "mean"), 100 * report_number(row, "lo"), 100 * report_number(row, "hi")));
    }
    TRY(report_put(out, "</ul>\n<p class=\"note\">Held-out prompts answered rightly: ", title, ", with 95 % intervals.</p>\n"));
    return OK;
}

Err report_headline(const Report *r, Str *out)
{
    const json_t *rows = json_object_get(r->eval, "rows");
    if (json_array_size(rows) == 0) return OK;
    json_t *models = report_models(rows), *groups = report_groups(rows);
    Err err = put_headline(out, rows, models, json_array_get(groups, json_array_size(groups) - 1));
    json_decref(models);
    json_decref(groups);
    return err;
}
