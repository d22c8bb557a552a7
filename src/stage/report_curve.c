// SPDX-License-Identifier: Apache-2.0
// Curves of metrics.jsonl and speed.jsonl as inline SVG, a drawing a quantity and stage. Series of more than 400 points are
// drawn as means over neighbours. Held-out values come every eval_steps: a dashed line with dots.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "stage/report_parts.h"

enum { WIDTH = 300, HEIGHT = 172, LEFT = 44, RIGHT = 284, TOP = 8, BOTTOM = 138, POINTS = 400 };

typedef struct Curve {
    const char *id, *title, *unit;
    const char *field[2], *name[2];  // field[1] NULL: one line
} Curve;

static const Curve curves[] = {
    {"loss", "Loss", "nats", {"loss", "eval_loss"}, {"training", "held out (eval_loss)"}},
    {"accuracy",
     "Reward accuracy",
     "share of pairs",
     {"rewards/accuracies", "eval_rewards/accuracies"},
     {"training", "held out"}},
    {"margin", "Reward margin", "chosen minus rejected", {"rewards/margins", "eval_rewards/margins"}, {"training", "held out"}},
    {"rewards", "Rewards", "beta x log-ratio", {"rewards/chosen", "rewards/rejected"}, {"chosen", "rejected"}},
    {"logps", "Log-probabilities", "nats", {"logps/chosen", "logps/rejected"}, {"chosen", "rejected"}},
    {"token-accuracy",
     "Token accuracy",
     "share of tokens",
     {"mean_token_accuracy", "eval_mean_token_accuracy"},
     {"training", "held out"}},
    {"lr", "Learning rate", "", {"learning_rate", NULL}, {"", ""}},
    {"grad-norm", "Gradient norm", "", {"grad_norm", NULL}, {"", ""}},
    {"speed", "Speed", "tokens/s", {"tokens_per_s", NULL}, {"", ""}},
};

typedef struct Scale {
    double x0, x1, y0, y1;
    int64_t points[2];
} Scale;

static bool point(const json_t *row, const char *stage, const char *field, double *x, double *y)
{
    const json_t *v = json_object_get(row, field), *step = json_object_get(row, "step");
    if (strcmp(report_text(row, "stage"), stage) || !json_is_number(v) || !json_is_number(step)) return false;
    *x = json_number_value(step);
    *y = json_number_value(v);
    return isfinite(*y);
}

static Scale scale_of(const json_t *rows, const char *stage, const Curve *c)
{
    Scale s = {.x0 = INFINITY, .x1 = -INFINITY, .y0 = INFINITY, .y1 = -INFINITY};
    size_t i;
    const json_t *row;
    double x, y;
    json_array_foreach((json_t *)rows, i, row) for (int f = 0; f < 2 && c->field[f];
                                                    f++) if (point(row, stage, c->field[f], &x, &y))
    {
        s.x0 = fmin(s.x0, x), s.x1 = fmax(s.x1, x), s.y0 = fmin(s.y0, y), s.y1 = fmax(s.y1, y);
        s.points[f]++;
    }
    if (s.x1 <= s.x0) s.x1 = s.x0 + 1;
    double pad = s.y1 > s.y0 ? 0.05 * (s.y1 - s.y0) : fmax(1e-3, 0.05 * fabs(s.y0));
    s.y0 -= s.y0 >= 0 && s.y0 < pad ? s.y0 : pad, s.y1 += pad;
    return s;
}

static double place_x(const Scale *s, double x) { return LEFT + (x - s->x0) / (s->x1 - s->x0) * (RIGHT - LEFT); }
static double place_y(const Scale *s, double y) { return BOTTOM - (y - s->y0) / (s->y1 - s->y0) * (BOTTOM - TOP); }

static Err axes(Str *out, const Scale *s)
{
    char text[40];
    double every = report_nice((s->y1 - s->y0) / 2.5), steps = fmax(1, report_nice((s->x1 - s->x0) / 2.5));
    for (double k = ceil(s->y0 / every); k * every <= s->y1; k++) {
        double y = place_y(s, k * every);
        TRY(str_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, RIGHT, y, y));
        report_tick(k == 0 ? 0.0 : k * every, text);
        TRY(str_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", LEFT - 6, y + 4, text));
    }
    TRY(str_printf(out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>", LEFT, RIGHT, BOTTOM, BOTTOM));
    for (double k = ceil(s->x0 / steps); k * steps <= s->x1; k++)
        TRY(str_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>", place_x(s, k * steps), BOTTOM + 15,
                       k * steps));
    return str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">optimiser step</text>", RIGHT, BOTTOM + 31);
}

static Err series(Str *out, const Scale *s, const json_t *rows, const char *stage, const Curve *c, int f)
{
    size_t i;
    const json_t *row;
    double x, y, sx = 0, sy = 0;
    int64_t per = (s->points[f] + POINTS - 1) / POINTS, n = 0, left = s->points[f];
    TRY(str_printf(out, "<polyline class=\"line s%d\" points=\"", f));
    json_array_foreach((json_t *)rows, i, row)
    {
        if (!point(row, stage, c->field[f], &x, &y)) continue;
        sx += x, sy += y, n++, left--;
        if (n < per && left > 0) continue;
        TRY(str_printf(out, "%.1f,%.1f ", place_x(s, sx / (double)n), place_y(s, sy / (double)n)));
        sx = sy = 0, n = 0;
    }
    TRY(str_puts(out, "\"/>"));
    if (s->points[f] > 25) return OK;
    json_array_foreach((json_t *)rows, i, row) if (point(row, stage, c->field[f], &x, &y))
        TRY(str_printf(out, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2\"/>", f, place_x(s, x), place_y(s, y)));
    return OK;
}

static Err legend(Str *out, const Curve *c, const Scale *s)
{
    if (!*c->name[0]) return OK;
    TRY(str_puts(out, "<p class=\"legend\">"));
    for (int f = 0; f < 2; f++)
        if (s->points[f]) TRY(str_printf(out, "<span><span class=\"stroke f%d\"></span>%s</span> ", f, c->name[f]));
    return str_puts(out, "</p>");
}

// Nothing when no line has the field.
static Err drawing(Str *out, const json_t *rows, const char *stage, const Curve *c)
{
    Scale s = scale_of(rows, stage, c);
    if (s.points[0] + s.points[1] == 0) return OK;
    TRY(str_printf(out, "<figure class=\"chart\" id=\"fig-"));
    TRY(report_escape(out, stage));
    TRY(str_printf(out, "-%s\"><h4>%s <span class=\"dim\">%s</span>", c->id, c->title, c->unit));
    TRY(str_puts(out, "</h4>"));
    TRY(legend(out, c, &s));
    TRY(str_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s against the optimiser step\">", WIDTH, HEIGHT,
                   c->title));
    TRY(axes(out, &s));
    for (int f = 1; f >= 0; f--)
        if (s.points[f]) TRY(series(out, &s, rows, stage, c, f));
    return str_puts(out, "</svg></figure>\n");
}

static Err stage_curves(const Report *r, Str *out, const char *stage)
{
    const char *title = !strcmp(stage, "sft") ? "SFT" : !strcmp(stage, "dpo") ? "DPO" : stage;
    TRY(report_put(out, "<h3>", title, "</h3>\n<div class=\"grid\">\n"));
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        bool speed = !strcmp(curves[i].id, "speed");
        TRY(drawing(out, speed ? r->speed : r->metrics, stage, &curves[i]));
    }
    return str_puts(out, "</div>\n");
}

static Err all_stages(const Report *r, Str *out)
{
    json_t *stages = json_array(), *stage;
    const json_t *row;
    size_t i;
    Err err = OK;
    json_array_foreach(r->metrics, i, row) report_name(stages, report_text(row, "stage"));
    json_array_foreach(stages, i, stage) if (err == OK) err = stage_curves(r, out, json_string_value(stage));
    json_decref(stages);
    return err;
}

Err report_training(const Report *r, Str *out)
{
    TRY(report_section(
        out, "training", "Training",
        "How loss, rewards and step size moved while the target learned; points are means over a logging interval, long "
        "curves are means over neighbouring points."));
    if (json_array_size(r->metrics) == 0) return str_puts(out, "<p class=\"gap\">Nothing was trained.</p>\n</section>\n");
    TRY(all_stages(r, out));
    if (json_array_size(r->speed) == 0)
        TRY(str_puts(out, "<p class=\"gap\">There is no curve of tokens a second: this run has no speed.jsonl.</p>\n"));
    return report_end(out);
}
