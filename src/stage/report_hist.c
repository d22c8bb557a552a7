// SPDX-License-Identifier: Apache-2.0
// Histograms of scores and lengths by source: one drawing a source, all with the same axes, and the counts as a table.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "stage/report_parts.h"

enum { WIDTH = 300, HEIGHT = 126, LEFT = 38, RIGHT = 282, TOP = 8, BOTTOM = 92 };

typedef struct HistView {
    const ReportHist *h;
    const ReportTally *t;
    const char *id, *title, *unit;
    const int64_t *n;  // by source
    const double *sum;
    double top;  // largest share of a bin
    bool scores;
} HistView;

static double place(const HistView *v, double x) { return LEFT + (x - v->h->lo) / (v->h->step * v->h->bins) * (RIGHT - LEFT); }

static double share(const HistView *v, int s, int b) { return v->n[s] ? (double)v->h->count[s][b] / (double)v->n[s] : 0; }

static Err bars(Str *out, const HistView *v, int s)
{
    double width = (double)(RIGHT - LEFT) / v->h->bins;
    for (int b = 0; b < v->h->bins; b++) {
        double from = v->h->lo + b * v->h->step, high = share(v, s, b) / v->top * (BOTTOM - TOP);
        if (v->h->count[s][b] == 0) continue;
        TRY(str_printf(out,
                       "<rect class=\"f0\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%.6g to %.6g: %" PRId64
                       " answers</title></rect>",
                       LEFT + b * width + 0.5, BOTTOM - high, width - 1, high, from, from + v->h->step, v->h->count[s][b]));
    }
    return OK;
}

static Err axes(Str *out, const HistView *v)
{
    double range = v->h->step * v->h->bins, every = report_nice(range / 3);
    char text[40];
    TRY(str_printf(out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>", LEFT, RIGHT, BOTTOM, BOTTOM));
    TRY(str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.0f %%</text>", LEFT - 5, TOP + 8, 100 * v->top));
    TRY(str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">0</text>", LEFT - 5, BOTTOM));
    for (int64_t k = (int64_t)(v->h->lo / every) - 1; every * (double)k <= v->h->lo + range * 1.000001; k++) {
        double x = every * (double)k;
        if (x < v->h->lo - 1e-9 * range) continue;
        TRY(str_printf(out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", place(v, x), place(v, x),
                       BOTTOM, BOTTOM + 4));
        report_tick(x == 0 ? 0.0 : x, text);
        TRY(str_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", place(v, x), BOTTOM + 16, text));
    }
    return str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", RIGHT, BOTTOM + 32, v->unit);
}

static Err one_source(Str *out, const HistView *v, int s)
{
    const char *name = json_string_value(json_array_get(v->t->sources, (size_t)s));
    double mean = v->sum[s] / (double)v->n[s];
    char n[32], about[40];
    report_tick(mean, about);
    TRY(report_put(out, "<div class=\"chart\"><h4>", name, ""));
    report_count(v->n[s], n);
    TRY(str_printf(out, " <span class=\"dim\">n = %s, mean %s", n, about));
    if (!v->scores && v->t->cut[s]) TRY(str_printf(out, ", %" PRId64 " cut by length", v->t->cut[s]));
    TRY(str_printf(out, "</span></h4><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s of ", WIDTH, HEIGHT, v->title));
    TRY(report_put(out, "", name, ": the counts are in the table below\">"));
    TRY(bars(out, v, s));
    TRY(axes(out, v));
    TRY(str_printf(out, "<line class=\"mean\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", place(v, mean), place(v, mean),
                   TOP, BOTTOM));
    return str_puts(out, "</svg></div>\n");
}

static Err counts(Str *out, const HistView *v, int sources)
{
    TRY(str_printf(out, "<details id=\"counts-%s\"><summary>The counts</summary>\n", v->id));
    TRY(report_table(out, v->title));
    TRY(str_printf(out, "<tr><th class=\"n\">from</th><th class=\"n\">to under</th>"));
    for (int s = 0; s < sources; s++)
        TRY(report_cell(out, "th class=\"n\"", json_string_value(json_array_get(v->t->sources, (size_t)s))));
    for (int b = 0; b < v->h->bins; b++) {
        double from = v->h->lo + b * v->h->step;
        TRY(str_printf(out, "\n<tr><td class=\"n\">%.6g</td><td class=\"n\">%.6g</td>", from, from + v->h->step));
        for (int s = 0; s < sources; s++) TRY(report_cell_count(out, v->h->count[s][b]));
    }
    TRY(report_table_end(out));
    return str_puts(out, "</details>\n");
}

static Err figure(Str *out, HistView *v)
{
    int sources = (int)json_array_size(v->t->sources);
    for (int s = 0; s < sources; s++)
        for (int b = 0; b < v->h->bins; b++)
            if (share(v, s, b) > v->top) v->top = share(v, s, b);
    TRY(str_printf(
        out,
        "<figure id=\"fig-%s\"><figcaption><b>%s.</b> Share of a source's answers; the orange line is their mean.</figcaption>"
        "<div class=\"grid\">\n",
        v->id, v->title));
    for (int s = 0; s < sources; s++)
        if (v->n[s]) TRY(one_source(out, v, s));
    TRY(str_puts(out, "</div>"));
    TRY(counts(out, v, sources));
    return str_puts(out, "</figure>\n");
}

Err report_hists(const Report *r, Str *out)
{
    const ReportTally *t = &r->tally;
    HistView score = {.h = &t->score,
                      .t = t,
                      .id = "scores",
                      .title = "Scores",
                      .unit = "score by the reward model",
                      .n = t->scored,
                      .sum = t->score_sum,
                      .scores = true};
    HistView length = {.h = &t->length,
                       .t = t,
                       .id = "lengths",
                       .title = "Lengths",
                       .n = t->samples,
                       .sum = t->length_sum,
                       .unit = t->tokens ? "tokens of the source's tokenizer" : "characters"};
    TRY(report_section(
        out, "samples", "What the sources answered",
        "How good the reward model finds each source's answers, and how long they are; all sources share one scale."));
    if (t->length.bins == 0)
        return str_puts(out, "<p class=\"gap\">There are no samples: the sample stage has not run.</p>\n</section>\n");
    if (t->score.bins == 0) TRY(str_puts(out, "<p class=\"gap\">There are no scores: the score stage has not run.</p>\n"));
    else TRY(figure(out, &score));
    TRY(figure(out, &length));
    return report_end(out);
}
