// Curves of metrics.jsonl as inline SVG. One scale a drawing; gaps in a field (held-out values come every eval_steps) are
// bridged by a line with dots.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "stage/report_parts.h"

enum { WIDTH = 640, HEIGHT = 240, LEFT = 64, RIGHT = 16, TOP = 28, BOTTOM = 28 };
static const char *const colours[] = {"#1f6fb4", "#c8501e", "#2a8f4a", "#7a4fb0"};

typedef struct Scale {
    double x0, x1, y0, y1;
    int64_t points;
} Scale;

static bool is_of(const json_t *row, const char *stage)
{
    const char *s = json_string_value(json_object_get(row, "stage"));
    return s && !strcmp(s, stage);
}

static bool point(const json_t *row, const char *stage, const char *field, double *x, double *y)
{
    const json_t *v = json_object_get(row, field), *step = json_object_get(row, "step");
    if (!is_of(row, stage) || !json_is_number(v) || !json_is_number(step)) return false;
    *x = json_number_value(step);
    *y = json_number_value(v);
    return isfinite(*y);
}

static Scale scale_of(const json_t *metrics, const char *stage, const char *const *fields, int n)
{
    Scale s = {.x0 = INFINITY, .x1 = -INFINITY, .y0 = INFINITY, .y1 = -INFINITY};
    size_t i;
    const json_t *row;
    double x, y;
    json_array_foreach((json_t *)metrics, i, row)
        for (int f = 0; f < n; f++)
            if (point(row, stage, fields[f], &x, &y)) {
                s.x0 = fmin(s.x0, x), s.x1 = fmax(s.x1, x), s.y0 = fmin(s.y0, y), s.y1 = fmax(s.y1, y);
                s.points++;
            }
    if (s.x1 <= s.x0) s.x1 = s.x0 + 1;
    double pad = s.y1 > s.y0 ? 0.05 * (s.y1 - s.y0) : fmax(1e-3, 0.05 * fabs(s.y0));
    s.y0 -= pad, s.y1 += pad;
    return s;
}

static double place_x(const Scale *s, double x) { return LEFT + (x - s->x0) / (s->x1 - s->x0) * (WIDTH - LEFT - RIGHT); }
static double place_y(const Scale *s, double y) { return HEIGHT - BOTTOM - (y - s->y0) / (s->y1 - s->y0) * (HEIGHT - TOP - BOTTOM); }

static Err grid(Str *out, const Scale *s)
{
    for (int i = 0; i <= 4; i++) {
        double v = s->y0 + (s->y1 - s->y0) * i / 4, y = place_y(s, v);
        TRY(str_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT, y, y));
        TRY(str_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>", LEFT - 6, y + 4, v));
    }
    TRY(str_printf(out, "<text x=\"%d\" y=\"%d\">step %.0f</text>", LEFT, HEIGHT - 8, s->x0));
    return str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">step %.0f</text>", WIDTH - RIGHT, HEIGHT - 8, s->x1);
}

static Err series(Str *out, const Scale *s, const json_t *metrics, const char *stage, const char *field, int index)
{
    size_t i;
    const json_t *row;
    double x, y;
    int64_t points = 0;
    TRY(str_printf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", colours[index]));
    json_array_foreach((json_t *)metrics, i, row) {
        if (!point(row, stage, field, &x, &y)) continue;
        TRY(str_printf(out, "%.1f,%.1f ", place_x(s, x), place_y(s, y)));
        points++;
    }
    TRY(str_puts(out, "\"/>"));
    if (points > 40) return OK;
    json_array_foreach((json_t *)metrics, i, row)
        if (point(row, stage, field, &x, &y))
            TRY(str_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>", place_x(s, x), place_y(s, y),
                           colours[index]));
    return OK;
}

Err report_curve(Str *out, const json_t *metrics, const char *stage, const char *title, const char *const *fields, int n)
{
    Scale s = scale_of(metrics, stage, fields, n);
    if (s.points == 0) return OK;
    TRY(str_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT));
    TRY(report_escape(out, title));
    TRY(str_puts(out, "\">"));
    TRY(str_printf(out, "<text class=\"title\" x=\"%d\" y=\"16\">", LEFT));
    TRY(report_escape(out, title));
    for (int f = 0; f < n; f++) TRY(str_printf(out, "<tspan dx=\"14\" fill=\"%s\">%s</tspan>", colours[f], fields[f]));
    TRY(str_puts(out, "</text>"));
    TRY(grid(out, &s));
    for (int f = 0; f < n; f++) TRY(series(out, &s, metrics, stage, fields[f], f));
    return str_puts(out, "</svg>\n");
}
