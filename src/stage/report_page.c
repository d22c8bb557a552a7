// The page: results, what the pair stage made of the samples, curves, examples, times, digests. Every text from a file is
// escaped.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "stage/report_parts.h"

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n"
    "<title>imf report</title>\n<style>\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\n"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}\n"
    "th{border-bottom:1px solid #889}td{border-bottom:1px solid #e3e5e8}td.n,th.n{text-align:right}td.n{font-variant-numeric:tabular-nums}\n"
    "pre{white-space:pre-wrap;background:#f5f6f8;padding:.5rem .7rem;margin:.2rem 0 .8rem;border-left:3px solid #ccd}\n"
    "svg{width:100%;max-width:40rem;font:11px sans-serif;display:block;margin:.6rem 0}.grid{stroke:#e3e5e8}.title{font-weight:600}\n"
    ".good{border-left-color:#2a8f4a}.bad{border-left-color:#c8501e}.note{color:#57606a}\n</style>\n";

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

Err report_escape(Str *out, const char *s)
{
    for (; *s; s++) {
        const char *as = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '"' ? "&quot;" : NULL;
        TRY(as ? str_puts(out, as) : str_add(out, s, 1));
    }
    return OK;
}

static Err cell(Str *out, const char *tag, const char *content)
{
    TRY(str_printf(out, "<%s>", tag));
    TRY(report_escape(out, content));
    return str_printf(out, "</%.2s>", tag);
}

static Err cell_value(Str *out, const json_t *v)
{
    char number[32] = "-";
    if (json_is_integer(v)) snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v)) snprintf(number, sizeof number, "%.4g", json_real_value(v));
    if (json_is_string(v)) return cell(out, "td", json_string_value(v));
    return cell(out, "td class=\"n\"", number);
}

// A table of the given fields of every row.
static Err table(Str *out, const json_t *rows, const char *const *fields, const char *const *names, int n)
{
    size_t i;
    const json_t *row;
    TRY(str_puts(out, "<table><tr>"));
    for (int f = 0; f < n; f++) TRY(cell(out, "th", names[f]));
    json_array_foreach((json_t *)rows, i, row) {
        TRY(str_puts(out, "<tr>"));
        for (int f = 0; f < n; f++) TRY(cell_value(out, json_object_get(row, fields[f])));
    }
    return str_puts(out, "</table>\n");
}

// ---- results ---------------------------------------------------------------------------------------------------------

static Err result_row(Str *out, const json_t *rows, const json_t *models, const json_t *group)
{
    size_t m;
    const json_t *model;
    char content[64];
    TRY(str_puts(out, "<tr>"));
    TRY(cell(out, "td", text(group, "set")));
    TRY(cell(out, "td", text(group, "kind")));
    TRY(cell_value(out, json_object_get(group, "n")));
    json_array_foreach((json_t *)models, m, model) {
        report_interval(report_row(rows, json_string_value(model), text(group, "set"), text(group, "kind")), "mean", content);
        TRY(cell(out, "td class=\"n\"", content));
    }
    return OK;
}

static Err result_table(Str *out, const json_t *rows, const json_t *models, const json_t *groups)
{
    size_t i;
    const json_t *v;
    TRY(str_puts(out, "<table><tr><th>set<th>kind<th>n"));
    json_array_foreach((json_t *)models, i, v) TRY(cell(out, "th", json_string_value(v)));
    json_array_foreach((json_t *)groups, i, v) TRY(result_row(out, rows, models, v));
    return str_puts(out, "</table>\n");
}

static Err difference_row(Str *out, const json_t *eval, const json_t *a, const json_t *b, const json_t *groups)
{
    size_t i;
    const json_t *group;
    char content[64];
    snprintf(content, sizeof content, "%.28s \xe2\x88\x92 %.28s", json_string_value(b), json_string_value(a));
    TRY(str_puts(out, "<tr>"));
    TRY(cell(out, "td", content));
    json_array_foreach((json_t *)groups, i, group) {
        report_interval(report_pair(json_object_get(eval, "paired"), a, b, group), "diff", content);
        TRY(cell(out, "td class=\"n\"", content));
    }
    return OK;
}

static Err difference_table(Str *out, const json_t *eval, const json_t *models, const json_t *groups)
{
    size_t i, n = json_array_size(models);
    const json_t *group;
    char title[128];
    if (n < 2) return OK;
    TRY(str_puts(out, "<p class=\"note\">Differences on the same prompts, in points [95 % paired bootstrap interval].</p>\n"
                      "<table><tr><th>difference"));
    json_array_foreach((json_t *)groups, i, group) {
        snprintf(title, sizeof title, "%.60s, %.20s", text(group, "set"), text(group, "kind"));
        TRY(cell(out, "th class=\"n\"", title));
    }
    for (size_t b = 1; b < n; b++)
        for (size_t a = 0; a < b; a++)
            if (report_shows(a, b, n))
                TRY(difference_row(out, eval, json_array_get(models, a), json_array_get(models, b), groups));
    return str_puts(out, "</table>\n");
}

// The reward model's mean and three rates of every model and group.
static Err rate_table(Str *out, const json_t *rows)
{
    static const char *const rates[] = {"truncated", "no_answer", "undecided"};
    size_t i;
    const json_t *row;
    char content[32];
    TRY(str_puts(out, "<table><tr><th>model<th>set<th>kind<th class=\"n\">mean reward<th class=\"n\">cut"
                      "<th class=\"n\">no answer<th class=\"n\">undecided"));
    json_array_foreach((json_t *)rows, i, row) {
        TRY(str_puts(out, "<tr>"));
        TRY(cell(out, "td", text(row, "model")));
        TRY(cell(out, "td", text(row, "set")));
        TRY(cell(out, "td", text(row, "kind")));
        TRY(cell_value(out, json_object_get(row, "reward_mean")));
        for (int r = 0; r < 3; r++) {
            snprintf(content, sizeof content, "%.1f %%", 100 * json_number_value(json_object_get(row, rates[r])));
            TRY(cell(out, "td class=\"n\"", content));
        }
    }
    return str_puts(out, "</table>\n");
}

static Err results(const Report *r, Str *out)
{
    TRY(str_puts(out, "<h2>Held-out results</h2>\n"));
    if (!r->eval) return str_puts(out, "<p class=\"note\">The eval stage has not run.</p>\n");
    const json_t *rows = json_object_get(r->eval, "rows");
    json_t *models = report_models(rows), *groups = report_groups(rows);
    TRY(str_puts(out, "<p class=\"note\">Share of right answers, or of conditions met, in % [95 % interval].</p>\n"));
    Err err = result_table(out, rows, models, groups);
    if (err == OK) err = difference_table(out, r->eval, models, groups);
    json_decref(models);
    json_decref(groups);
    TRY(err);
    TRY(str_puts(out, "<p class=\"note\">Mean score by the reward model (which chose the pairs: not a result), and how many "
                      "answers were cut, held no answer, or were undecided.</p>\n"));
    return rate_table(out, rows);
}

// ---- samples and pairs -----------------------------------------------------------------------------------------------

static Err reasons(Str *out, const json_t *kind, const char *key, const char *what)
{
    const char *reason;
    json_t *n;
    json_object_foreach(json_object_get(kind, key), reason, n) {
        TRY(str_printf(out, "<tr><td>%s<td>%s<td class=\"n\">%" JSON_INTEGER_FORMAT "<td>", text(kind, "kind"), what,
                       json_integer_value(n)));
        TRY(report_escape(out, reason));
    }
    return OK;
}

static Err data_section(const Report *r, Str *out)
{
    static const char *const kind_fields[] = {"kind", "prompts", "with_pair", "sft_rows", "pairs"};
    static const char *const kind_names[] = {"kind", "prompts", "with a valid pair", "SFT rows", "pairs"};
    static const char *const fields[] = {"kind", "source", "samples", "right", "wrong", "undecided", "unscored", "prompts",
                                         "with_pair"};
    static const char *const names[] = {"kind", "source", "samples", "right", "wrong", "undecided", "unscored", "prompts",
                                        "with a pair of its own"};
    size_t i;
    const json_t *kind;
    TRY(str_puts(out, "<h2>From samples to pairs</h2>\n"));
    if (!r->pair) return str_puts(out, "<p class=\"note\">The pair stage has not run.</p>\n");
    TRY(table(out, json_object_get(r->pair, "kinds"), kind_fields, kind_names, 5));
    TRY(table(out, json_object_get(r->pair, "sources"), fields, names, 9));
    TRY(str_puts(out, "<p>What was left out, and why (each listed by id in dropped/):</p>\n"
                      "<table><tr><th>kind<th>what<th>n<th>reason"));
    json_array_foreach(json_object_get(r->pair, "kinds"), i, kind) {
        TRY(reasons(out, kind, "dropped_prompts", "prompts"));
        TRY(reasons(out, kind, "left_out_samples", "samples"));
    }
    return str_puts(out, "</table>\n");
}

// ---- training --------------------------------------------------------------------------------------------------------

static Err curves(const Report *r, Str *out)
{
    static const char *const loss[] = {"loss", "eval_loss"}, *const margin[] = {"rewards/margins", "eval_rewards/margins"},
                      *const accuracy[] = {"rewards/accuracies", "eval_rewards/accuracies"},
                      *const tokens[] = {"mean_token_accuracy", "eval_mean_token_accuracy"}, *const logps[] = {"logps/chosen", "logps/rejected"};
    TRY(str_puts(out, "<h2>Training</h2>\n"));
    if (json_array_size(r->metrics) == 0) return str_puts(out, "<p class=\"note\">Nothing was trained.</p>\n");
    TRY(report_curve(out, r->metrics, "sft", "SFT: loss", loss, 2));
    TRY(report_curve(out, r->metrics, "sft", "SFT: token accuracy", tokens, 2));
    TRY(report_curve(out, r->metrics, "dpo", "DPO: loss", loss, 2));
    TRY(report_curve(out, r->metrics, "dpo", "DPO: reward margin", margin, 2));
    TRY(report_curve(out, r->metrics, "dpo", "DPO: reward accuracy", accuracy, 2));
    TRY(report_curve(out, r->metrics, "dpo", "DPO: log-probabilities", logps, 2));
    TRY(report_curve(out, r->metrics, "sft_more", "SFT continued on chosen answers: loss", loss, 2));
    return report_curve(out, r->metrics, "reward", "Reward model: loss", loss, 2);
}

// ---- examples --------------------------------------------------------------------------------------------------------

static Err block(Str *out, const char *class, const char *content)
{
    TRY(str_printf(out, "<pre class=\"%s\">", class));
    TRY(report_escape(out, content));
    return str_puts(out, "</pre>\n");
}

static Err side(Str *out, const json_t *pair, const char *name, const char *class)
{
    const json_t *answer = json_object_get(pair, name);
    TRY(str_printf(out, "<p>%s, score %.4f, sample %s</p>\n", name, json_number_value(json_object_get(answer, "score")),
                   text(answer, "sample")));
    return block(out, class, text(answer, "answer"));
}

static Err pair_examples(const Report *r, Str *out)
{
    size_t i, m;
    const json_t *line, *message;
    TRY(str_puts(out, "<h2>Pairs, traced</h2>\n<p class=\"note\">imf trace RECIPE ID prints the rest.</p>\n"));
    json_array_foreach((json_t *)r->examples, i, line) {
        const json_t *pair = json_object_get(line, "data");
        TRY(str_printf(out, "<h3>%s, pair %s</h3>\n<p>source ", text(pair, "kind"), text(line, "id")));
        TRY(report_escape(out, text(pair, "source")));
        TRY(str_printf(out, ", margin %.4f</p>\n", json_number_value(json_object_get(pair, "margin"))));
        json_array_foreach(json_object_get(pair, "messages"), m, message) TRY(block(out, "", text(message, "content")));
        TRY(side(out, pair, "chosen", "good"));
        TRY(side(out, pair, "rejected", "bad"));
    }
    return OK;
}

static Err one_answer(Str *out, const json_t *a)
{
    TRY(str_puts(out, "<p>"));
    TRY(report_escape(out, text(a, "model")));
    TRY(str_printf(out, ": grade %.2f, %s</p>\n", json_number_value(json_object_get(a, "grade")), text(a, "outcome")));
    return block(out, "", text(a, "text"));
}

// Has a prompt of an earlier entry?
static bool was_shown(const json_t *answers, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (!strcmp(text(json_array_get(answers, i), "prompt"), text(json_array_get(answers, at), "prompt"))) return true;
    return false;
}

static Err answer_examples(const Report *r, Str *out)
{
    size_t i, k;
    const json_t *a, *b, *m;
    if (json_array_size(r->answers) == 0) return OK;
    TRY(str_puts(out, "<h2>The same held-out prompts before and after</h2>\n"));
    json_array_foreach((json_t *)r->answers, i, a) {
        if (was_shown(r->answers, i)) continue;
        TRY(str_printf(out, "<h3>%s, prompt %s</h3>\n", text(a, "kind"), text(a, "prompt")));
        json_array_foreach(json_object_get(r->asked, text(a, "prompt")), k, m) TRY(block(out, "good", text(m, "content")));
        json_array_foreach((json_t *)r->answers, k, b)
            if (!strcmp(text(a, "prompt"), text(b, "prompt"))) TRY(one_answer(out, b));
    }
    return OK;
}

Err report_page(const Report *r, Str *out)
{
    static const char *const fields[] = {"name", "count", "digest"}, *const names[] = {"record set", "records", "digest"};
    TRY(str_puts(out, head));
    TRY(str_puts(out, "<h1>imf: "));
    TRY(report_escape(out, r->run_dir));
    TRY(str_puts(out, "</h1>\n"));
    TRY(results(r, out));
    TRY(data_section(r, out));
    TRY(curves(r, out));
    TRY(pair_examples(r, out));
    TRY(answer_examples(r, out));
    TRY(report_phases(out, r->profile));
    TRY(str_puts(out, "<h2>Records</h2>\n"));
    TRY(table(out, r->sets, fields, names, 3));
    return str_printf(out, "<p class=\"note\">imf %s</p>\n</html>\n", imf_version);
}
