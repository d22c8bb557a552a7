// SPDX-License-Identifier: Apache-2.0
// From prompts to pairs: what went into every stage and came out of it, what was left out and why, and whose answers were
// taken.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "stage/report_parts.h"
#include "stage/stage.h"

// ---- what went in and came out ---------------------------------------------------------------------------------------

static int64_t count(const Report *r, int set) { return record_count(life_set(r->life, set)); }

static int64_t sum(const int64_t *n)
{
    int64_t all = 0;
    for (int s = 0; s < REPORT_NAMES; s++) all += n[s];
    return all;
}

static int64_t outcomes(const ReportTally *t, int outcome)
{
    int64_t all = 0;
    for (int s = 0; s < REPORT_NAMES; s++) all += t->outcome[s][outcome];
    return all;
}

// Left out by a stage; NULL `what`: everything.
static int64_t left_out(const Report *r, const char *stage, const char *what)
{
    size_t i;
    const json_t *d;
    int64_t n = 0;
    json_array_foreach(r->drops, i,
                       d) if (!strcmp(report_text(d, "stage"), stage) && (!what || !strcmp(report_text(d, "what"), what))) n +=
        json_integer_value(json_object_get(d, "n"));
    return n;
}

static Err flow_row(Str *out, const char *stage, const char *in, const char *came, int64_t dropped, const char *state)
{
    TRY(str_printf(out, "<tr><td>%s</td>", stage));
    TRY(report_cell(out, "td", in));
    TRY(report_cell(out, "td", came));
    TRY(report_cell_count(out, dropped));
    return report_cell(out, "td", state);
}

static const char *state(const Report *r, const char *set)
{
    return record_done(r->run_dir, set, NULL, NULL) ? "ended" : "not ended";
}

static bool did_run(const Report *r, int set) { return *record_header(life_set(r->life, set)) != '\0'; }

// "8 520 samples": what is appended to a text of 160.
static void say(char out[160], const char *before, int64_t n, const char *after)
{
    char digits[32];
    size_t used = strlen(out);
    report_count(n, digits);
    snprintf(out + used, 160 - used, "%s%s%s", before, digits, after);
}

static Err flow_before_pairs(const Report *r, Str *out)
{
    const ReportTally *t = &r->tally;
    int64_t prompts = count(r, LIFE_PROMPTS), samples = count(r, LIFE_SAMPLES);
    char rows[160] = "", asked[160] = "", answered[160] = "", scored[160] = "", checked[160] = "", judged[160] = "";
    say(rows, "", prompts + left_out(r, "select", NULL), " rows");
    say(asked, "", prompts, " prompts");
    say(answered, "", samples, " samples");
    if (did_run(r, LIFE_PROMPTS)) TRY(flow_row(out, "select", rows, asked, left_out(r, "select", NULL), state(r, SET_PROMPTS)));
    say(scored, "", samples, " samples, ");
    say(scored, "", sum(t->cut), " of them cut by length");
    if (did_run(r, LIFE_SAMPLES))
        TRY(flow_row(out, "sample", asked, scored, left_out(r, "sample", NULL), state(r, SET_SAMPLES)));
    *scored = '\0';
    say(scored, "", sum(t->scored), " scores");
    if (did_run(r, LIFE_SCORES))
        TRY(flow_row(out, "score", answered, scored, left_out(r, "score", NULL), state(r, SET_SCORES)));
    say(checked, "", count(r, LIFE_VERDICTS), " samples that can be checked");
    say(judged, "", outcomes(t, REPORT_RIGHT), " right, ");
    say(judged, "", outcomes(t, REPORT_WRONG), " wrong");
    if (!did_run(r, LIFE_VERDICTS)) return OK;
    return flow_row(out, "verify", checked, judged, outcomes(t, REPORT_UNDECIDED), state(r, SET_VERDICTS));
}

static Err flow_pairs(const Report *r, Str *out)
{
    char in[160] = "", came[160] = "";
    if (!did_run(r, LIFE_PAIRS)) return OK;
    say(in, "", count(r, LIFE_PROMPTS), " prompts, ");
    say(in, "", count(r, LIFE_SAMPLES), " samples");
    say(came, "", count(r, LIFE_ROWS), " SFT rows, ");
    say(came, "", count(r, LIFE_PAIRS), " pairs");
    return flow_row(out, "pair", in, came, left_out(r, "pair", NULL), state(r, SET_PAIRS));
}

// Steps that a training stage wrote lines for.
static int64_t steps_of(const Report *r, const char *stage)
{
    size_t i;
    const json_t *row;
    int64_t steps = 0;
    json_array_foreach(r->metrics, i, row) if (!strcmp(report_text(row, "stage"), stage)) steps =
        json_integer_value(json_object_get(row, "step"));
    return steps;
}

static Err flow_training(const Report *r, Str *out, const char *stage, int set, const char *what)
{
    char in[160] = "", came[160] = "", dir[IO_PATH], done[IO_PATH];
    int64_t steps = steps_of(r, stage);
    if (steps == 0) return OK;
    if (count(r, set)) say(in, "", count(r, set), what);
    else snprintf(in, sizeof in, "a file of your own");
    TRY(io_join(dir, r->run_dir, stage));
    TRY(io_join(done, dir, "done.json"));
    bool ended = io_exists(done);
    say(came, ended ? "a model, after " : "nothing yet, after ", steps, " steps");
    return flow_row(out, stage, in, came, left_out(r, stage, NULL), ended ? "ended" : "not ended");
}

static Err flow_eval(const Report *r, Str *out)
{
    const json_t *rows = json_object_get(r->eval, "rows");
    char in[160] = "", came[160] = "";
    if (!r->eval) return OK;
    json_t *models = report_models(rows), *groups = report_groups(rows);
    int64_t prompts = (int64_t)report_number(json_array_get(groups, json_array_size(groups) - 1), "n");
    int64_t n = (int64_t)json_array_size(models);
    json_decref(models);
    json_decref(groups);
    say(in, "", n, " models, ");
    say(in, "", prompts, " held-out prompts");
    say(came, "", n * prompts, " judged answers");
    return flow_row(out, "eval", in, came, left_out(r, "eval", NULL), "ended");
}

static Err flow(const Report *r, Str *out)
{
    TRY(report_section(out, "flow", "What went in, what came out",
                       "Each stage's input, its output, and how much it left out; the next section says why."));
    TRY(report_table(out, "stages"));
    TRY(str_puts(out, "<tr><th>stage</th><th>in</th><th>out</th><th class=\"n\">left out</th><th>state</th>"));
    TRY(flow_before_pairs(r, out));
    TRY(flow_pairs(r, out));
    TRY(flow_training(r, out, "sft", LIFE_ROWS, " SFT rows"));
    TRY(flow_training(r, out, "dpo", LIFE_PAIRS, " pairs"));
    TRY(flow_eval(r, out));
    TRY(report_table_end(out));
    return report_end(out);
}

// ---- what was left out -----------------------------------------------------------------------------------------------

static Err drop_row(Str *out, const json_t *d)
{
    size_t i;
    const json_t *id, *ids = json_object_get(d, "ids");
    TRY(str_puts(out, "<tr>"));
    TRY(report_cell(out, "td", report_text(d, "stage")));
    TRY(report_cell(out, "td", report_text(d, "what")));
    TRY(report_cell(out, "td", report_text(d, "of")));
    TRY(report_cell_value(out, json_object_get(d, "n")));
    TRY(report_cell(out, "td", report_text(d, "reason")));
    TRY(str_puts(out, "<td>"));
    if (json_array_size(ids)) TRY(str_puts(out, "<details><summary>ids</summary>"));
    json_array_foreach((json_t *)ids, i, id) TRY(report_put(out, "<code>", json_string_value(id), "</code><br>"));
    return str_puts(out, json_array_size(ids) ? "</details></td>" : "</td>");
}

static Err drops(const Report *r, Str *out)
{
    size_t i;
    const json_t *d;
    TRY(report_section(
        out, "dropped", "What was left out, and why",
        "Nothing is dropped silently: counts by reason, with the first ids (a click selects one; imf trace tells its "
        "life). The directories dropped_prompts, dropped_samples and dropped, and the files dropped.jsonl, list every id."));
    if (json_array_size(r->drops) == 0) return str_puts(out, "<p class=\"gap\">Nothing was left out.</p>\n</section>\n");
    TRY(report_table(out, "left out"));
    TRY(str_puts(out, "<tr><th>stage</th><th>what</th><th>of</th><th class=\"n\">n</th><th>reason</th><th>ids</th>"));
    json_array_foreach(r->drops, i, d) TRY(drop_row(out, d));
    TRY(report_table_end(out));
    return report_end(out);
}

// ---- whose answers were taken ----------------------------------------------------------------------------------------

enum { WIDTH = 300, LEFT = 92, RIGHT = 236, ROW = 22 };

static Err win_bar(Str *out, const ReportTally *t, int d, int s, double most, int y)
{
    int64_t rows = t->rows[d][s], pairs = t->pairs[d][s];
    double scale = (RIGHT - LEFT) / most, first = scale * (double)rows, second = scale * (double)pairs;
    TRY(str_printf(out, "<text class=\"label\" x=\"0\" y=\"%d\">", y + 14));
    TRY(report_label(out, json_string_value(json_array_get(t->sources, (size_t)s)), 14));
    TRY(str_puts(out, "</text>"));
    TRY(str_printf(out,
                   "<rect class=\"f0\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\"><title>%" PRId64
                   " SFT rows</title></rect>",
                   LEFT, y + 3, first, rows));
    TRY(str_printf(out,
                   "<rect class=\"tint\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"14\"><title>%" PRId64
                   " pairs</title></rect>",
                   LEFT + first, y + 3, second, pairs));
    return str_printf(out, "<text class=\"label\" x=\"%.1f\" y=\"%d\">%" PRId64 " + %" PRId64 "</text>",
                      LEFT + first + second + 5, y + 14, rows, pairs);
}

static Err win_drawing(Str *out, const ReportTally *t, int d, double most)
{
    const char *name = json_string_value(json_array_get(t->datasets, (size_t)d));
    int sources = (int)json_array_size(t->sources), y = 0;
    if (sum(t->rows[d]) + sum(t->pairs[d]) == 0) return OK;
    TRY(report_put(out, "<div class=\"chart\"><h4>", name, "</h4>"));
    TRY(str_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, ROW * sources + 2));
    TRY(report_put(out, "whose answers were taken for ", name, "\">"));
    for (int s = 0; s < sources; s++, y += ROW) TRY(win_bar(out, t, d, s, most, y));
    return str_puts(out, "</svg></div>\n");
}

static Err win_table(Str *out, const ReportTally *t)
{
    TRY(str_puts(out, "<details id=\"counts-wins\"><summary>The counts</summary>\n"));
    TRY(report_table(out, "whose answers were taken"));
    TRY(str_puts(out, "<tr><th>data set</th><th>source</th><th class=\"n\">SFT rows</th><th class=\"n\">pairs</th>"));
    for (size_t d = 0; d < json_array_size(t->datasets); d++)
        for (size_t s = 0; s < json_array_size(t->sources); s++) {
            TRY(str_puts(out, "\n<tr>"));
            TRY(report_cell(out, "td", json_string_value(json_array_get(t->datasets, d))));
            TRY(report_cell(out, "td", json_string_value(json_array_get(t->sources, s))));
            TRY(report_cell_count(out, t->rows[d][s]));
            TRY(report_cell_count(out, t->pairs[d][s]));
        }
    TRY(report_table_end(out));
    return str_puts(out, "</details>\n");
}

// By kind and source: the pair stage's own numbers.
static Err source_table(const Report *r, Str *out)
{
    static const char *const fields[] = {"samples", "right", "wrong", "undecided", "unscored", "prompts", "with_pair"};
    size_t i;
    const json_t *row;
    TRY(str_puts(out, "<h3>By source and kind</h3>\n<p class=\"note\">What the checks said of each source's samples, and for "
                      "how many prompts "
                      "it could give a pair of its own.</p>\n"));
    TRY(report_table(out, "sources"));
    TRY(str_puts(out, "<tr><th>kind</th><th>source</th>"));
    for (int f = 0; f < 7; f++) TRY(report_cell(out, "th class=\"n\"", f == 6 ? "with a pair of its own" : fields[f]));
    json_array_foreach(json_object_get(r->pair, "sources"), i, row)
    {
        TRY(str_puts(out, "<tr>"));
        TRY(report_cell(out, "td", report_text(row, "kind")));
        TRY(report_cell(out, "td", report_text(row, "source")));
        for (int f = 0; f < 7; f++) TRY(report_cell_value(out, json_object_get(row, fields[f])));
    }
    return report_table_end(out);
}

static Err wins(const Report *r, Str *out)
{
    const ReportTally *t = &r->tally;
    double most = 1;
    TRY(report_section(
        out, "wins", "Whose answers were taken",
        "For each data set, how many SFT rows (best answer of all) and pairs (best against worst) have their chosen answer "
        "from each source."));
    if (count(r, LIFE_ROWS) + count(r, LIFE_PAIRS) == 0) {
        const char *why = did_run(r, LIFE_PAIRS) ? "no prompt gave any (see what was left out)" : "the pair stage has not run";
        return str_printf(out, "<p class=\"gap\">There are no rows and no pairs: %s.</p>\n</section>\n", why);
    }
    for (int d = 0; d < REPORT_NAMES; d++)
        for (int s = 0; s < REPORT_NAMES; s++)
            if ((double)(t->rows[d][s] + t->pairs[d][s]) > most) most = (double)(t->rows[d][s] + t->pairs[d][s]);
    TRY(str_puts(
        out,
        "<figure id=\"fig-wins\"><figcaption><span class=\"key f0\"></span> SFT rows <span class=\"key tint\"></span> pairs"
        "</figcaption><div class=\"grid\">\n"));
    for (int d = 0; d < (int)json_array_size(t->datasets); d++) TRY(win_drawing(out, t, d, most));
    TRY(str_puts(out, "</div>"));
    TRY(win_table(out, t));
    TRY(str_puts(out, "</figure>\n"));
    if (r->pair) TRY(source_table(r, out));
    return report_end(out);
}

Err report_sets(const Report *r, Str *out)
{
    TRY(flow(r, out));
    TRY(drops(r, out));
    TRY(report_hists(r, out));
    return wins(r, out);
}
