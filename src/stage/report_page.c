// SPDX-License-Identifier: Apache-2.0
// The page: style, head, contents, the run's identity and warnings, the sections of the other files, records and recipe. It
// has no script and forbids any; every text from a file is escaped. Colours: one blue, an orange for the second line of a
// drawing (told apart without colour too: it is dashed), greys.
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "stage/report_parts.h"

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n<title>imf report</title>\n<style>\n"
    ":root{--bg:#fff;--fg:#1a1e23;--dim:#57606a;--rule:#d5dae0;--soft:#f4f6f8;--blue:#0b61a4;--tint:#a5cbea;--orange:#b54e00;"
    "--mid:#7d8894;--pale:#cfd5db;--good:#0b61a4;--bad:#b54e00}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e7ea;--dim:#a3acb5;--rule:#363c43;--soft:#1d2125;--blue:#"
    "6cb4ef;"
    "--tint:#2c5b82;--orange:#f2a15c;--mid:#8b95a0;--pale:#444b53;--good:#6cb4ef;--bad:#f2a15c}}\n"
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}\n"
    "body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;max-width:62rem;margin:0 "
    "auto;"
    "padding:2rem 1rem 4rem;color:var(--fg);background:var(--bg);overflow-wrap:break-word}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.25rem;margin:0 0 "
    ".2rem}h3{font-size:1rem;margin:1.6rem 0 .4rem}"
    "h4{font-size:.85rem;margin:0 0 .3rem}\n"
    "section{border-top:1px solid var(--rule);margin-top:2.6rem;padding-top:1.3rem;scroll-margin-top:.5rem}\n"
    "a{color:var(--blue)}a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid "
    "var(--blue);outline-offset:2px}\n"
    ".dim,.note,figcaption{color:var(--dim)}h4 "
    ".dim{font-weight:400}.note,figcaption{max-width:46rem;font-size:.92rem;margin:.1rem 0 .9rem}\n"
    ".gap{color:var(--dim);border-left:3px solid var(--rule);padding:.2rem .8rem}figure{margin:1rem 0}\n"
    "nav ul,.tiles{list-style:none;display:flex;flex-wrap:wrap;padding:0;gap:.2rem 1.1rem;font-size:.92rem}\n"
    ".tiles{gap:.8rem;margin:1.4rem 0 .4rem}.tiles li{flex:1 1 8rem;background:var(--soft);border-radius:6px;padding:.7rem "
    ".9rem;"
    "border-bottom:3px solid transparent}.tiles li.last{border-color:var(--blue)}.tiles "
    "b{display:block;font-size:1.7rem;line-height:1.25;"
    "font-variant-numeric:tabular-nums}.tiles small{font-size:1rem;font-weight:400}.tiles span{font-size:.85rem}\n"
    ".facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1.2rem;font-size:.92rem;margin:1.2rem 0}"
    ".facts dt{color:var(--dim)}.facts dd{margin:0}\n"
    ".warn{border-left:3px solid var(--orange);background:var(--soft);padding:.6rem .9rem;margin:1rem 0;font-size:.92rem}"
    ".warn h2{font-size:1rem}.warn ul{margin:.2rem 0 0;padding-left:1.1rem}\n";
static const char style_parts[] =
    ".scroll{overflow-x:auto;margin:.5rem 0 1.2rem}table{border-collapse:collapse;font-size:.88rem}"
    "th,td{padding:.28rem 1.2rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}"
    "th:last-child,td:last-child{padding-right:0}"
    "th{font-weight:600;white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums "
    "lining-nums;white-space:nowrap}\n"
    "code,pre{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    "code{user-select:all;-webkit-user-select:all;font-weight:400;overflow-wrap:anywhere;color:var(--dim)}td "
    "code{overflow-wrap:normal}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:.6rem .8rem;margin:.2rem 0 "
    ".7rem;border-left:3px solid "
    "var(--rule);max-height:24rem;overflow-y:auto;unicode-bidi:isolate}\n"
    "pre.good{border-color:var(--good)}pre.bad{border-color:var(--bad);border-left-style:dashed}.about{margin:0 0 "
    ".3rem}.about,.role{margin-top:0;margin-bottom:.2rem;font-size:.85rem;"
    "color:var(--dim)}\n"
    "summary{cursor:pointer;color:var(--blue);font-size:.88rem;width:max-content}details{margin:.2rem 0}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,18.5rem),1fr));gap:1.1rem 1.8rem}"
    ".grid.two{grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}.grid>*{min-width:0}.grid>.chart{align-self:"
    "end}"
    ".chart{margin:0}.wide{max-width:22rem}article{margin:1.6rem 0 2.2rem}\n"
    "svg{width:100%;height:auto;display:block;overflow:visible;font:11px system-ui,-apple-system,'Segoe "
    "UI',Roboto,Arial,sans-serif;"
    "font-variant-numeric:tabular-nums}text{fill:var(--dim)}text.label{fill:var(--fg)}.strong{font-weight:600}\n"
    "line.grid{stroke:var(--rule)}.axis{stroke:var(--mid)}.mean{stroke:var(--orange);stroke-width:1.5}.whisker{stroke:var(--"
    "mid);"
    "stroke-width:2}.dot{fill:var(--mid)}.line{fill:none;stroke-width:1.7;stroke-linejoin:round}\n"
    ".s0{stroke:var(--blue)}.s1{stroke:var(--orange);stroke-dasharray:5 3}.f0{fill:var(--blue);background:var(--blue)}"
    ".f1{fill:var(--orange);background:var(--orange)}.tint{fill:var(--tint);background:var(--tint)}.mid{fill:var(--mid);"
    "background:var(--mid)}.pale{fill:var(--pale);background:var(--pale)}\n"
    ".legend{margin:0;font-size:.82rem;color:var(--dim)}.legend>span{white-space:nowrap;margin-right:.9em}.stroke{display:"
    "inline-block;"
    "width:1.3em;height:0;border-top:2px solid "
    "var(--blue);background:none;vertical-align:middle;margin-right:.35em}.stroke.f1{border-top:2px "
    "dashed var(--orange)}\n"
    ".key{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-left:.6em}figcaption "
    ".key:first-child{margin-left:0}\n"
    "@media screen and (max-width:40rem){.scroll table{width:max-content;max-width:46rem}}"
    "footer{margin-top:3rem;color:var(--dim);font-size:.85rem}\n"
    "@media "
    "print{:root{--bg:#fff;--fg:#000;--dim:#444;--rule:#bbb;--soft:#f4f4f4;--blue:#0b61a4;--tint:#a5cbea;--orange:#b54e00}"
    "body{font-size:11px;max-width:none;padding:0}nav{display:none}.scroll{overflow:visible}table{font-size:.8em}th,td,td.n,th."
    "n{white-space:normal;padding-right:.6em}td code{overflow-wrap:anywhere}pre{max-height:none}"
    ".chart,tr,.tiles{break-inside:avoid}h2,h3{break-after:avoid}}\n"
    "</style></head>\n<body>\n";

// ---- the run ---------------------------------------------------------------------------------------------------------

// Distinct values of a field, joined; at most 4.
static Err distinct(Str *out, const json_t *rows, const char *component, const char *field)
{
    json_t *seen = json_array(), *one;
    const json_t *row;
    size_t i;
    Err err = OK;
    json_array_foreach((json_t *)rows, i, row) if (!component || !strcmp(report_text(row, "component"), component))
        report_name(seen, report_text(row, field));
    json_array_foreach(seen, i, one) if (err == OK && i < 4) err = report_put(out, i ? "; " : "", json_string_value(one), "");
    if (err == OK && json_array_size(seen) > 4) err = str_printf(out, "; and %zu more", json_array_size(seen) - 4);
    if (err == OK && json_array_size(seen) == 0) err = str_puts(out, "not recorded");
    json_decref(seen);
    return err;
}

// Of the stages; before there was a profile.jsonl, the one that the prompts' header names.
static Err program(const Report *r, Str *out)
{
    const char *header = record_header(life_set(r->life, LIFE_PROMPTS));
    json_t *o = NULL;
    if (json_array_size(r->profile) == 0 && *header && json_parse(header, (int64_t)strlen(header), "header", &o) == OK) {
        Err err = report_put(out, "imf ", report_text(o, "program"), "");
        json_decref(o);
        return err;
    }
    if (json_array_size(r->profile)) TRY(str_puts(out, "imf "));
    return distinct(out, r->profile, NULL, "program");
}

static Err facts(const Report *r, Str *out)
{
    char recipe[ID_TEXT];
    id_print(deck_hash(r->deck), recipe);
    TRY(str_printf(
        out, "<dl class=\"facts\"><dt>recipe</dt><dd><code>%s</code></dd>\n<dt>seed</dt><dd>%lld</dd>\n<dt>program</dt><dd>",
        recipe, (long long)deck_i64(r->deck, "seed")));
    TRY(program(r, out));
    TRY(str_puts(out, "</dd>\n<dt>machine</dt><dd>"));
    TRY(distinct(out, r->log, "cpu", "text"));
    TRY(str_puts(out, "</dd>\n<dt>stages ended</dt><dd>"));
    size_t n = json_array_size(r->profile);
    if (n == 0) TRY(str_puts(out, "not recorded"));
    else {
        TRY(report_escape(out, report_text(json_array_get(r->profile, 0), "time")));
        TRY(report_put(out, " to ", report_text(json_array_get(r->profile, n - 1), "time"), ""));
    }
    return str_puts(out, "</dd></dl>\n");
}

static Err warnings(const Report *r, Str *out)
{
    enum { MOST = 50 };
    const json_t *row;
    const char *file;
    json_t *n;
    size_t i, shown = 0;
    Str list = {0};
    Err err = OK;
    json_array_foreach(r->log, i, row)
    {
        if (strcmp(report_text(row, "level"), "warn") || ++shown > MOST) continue;
        TRY_DONE(report_put(&list, "<li>", report_text(row, "component"), ": "));
        TRY_DONE(report_put(&list, "", report_text(row, "text"), "</li>\n"));
    }
    if (shown > MOST) TRY_DONE(str_printf(&list, "<li>and %zu more in log.jsonl</li>\n", shown - MOST));
    json_object_foreach(r->torn, file, n)
        TRY_DONE(str_printf(&list, "<li>%s: %lld lines could not be read and are not shown</li>\n", file,
                            (long long)json_integer_value(n)));
    if (list.len == 0) TRY_DONE(str_puts(out, "<p class=\"note\" id=\"warnings\">No warnings.</p>\n"));
    else {
        TRY_DONE(str_puts(out, "<div class=\"warn\" id=\"warnings\"><h2>Warnings</h2>\n<ul>"));
        TRY_DONE(str_add(out, list.p, list.len));
        TRY_DONE(str_puts(out, "</ul></div>\n"));
    }
done:
    str_free(&list);
    return err;
}

static const char contents[] =
    "<nav aria-label=\"sections\"><ul><li><a href=\"#results\">Results</a></li><li><a href=\"#flow\">In and out</a></li>"
    "<li><a href=\"#dropped\">Left out</a></li><li><a href=\"#samples\">Samples</a></li><li><a href=\"#wins\">Whose "
    "answers</a></li>"
    "<li><a href=\"#training\">Training</a></li><li><a href=\"#lives\">Ten answers</a></li><li><a href=\"#answers\">Before and "
    "after</a></li>"
    "<li><a href=\"#time\">Time</a></li><li><a href=\"#records\">Records</a></li></ul></nav>\n";

static Err top(const Report *r, Str *out)
{
    TRY(report_put(out, "<header>\n<h1><span class=\"dim\">imf report</span> ", r->run_dir, "</h1>\n"));
    TRY(str_puts(
        out,
        "<p class=\"note\">A run of implicit model fusion: several source models answer prompts, their answers are scored and "
        "checked, and a small target model learns from the best of them (SFT) and from best against worst (DPO).</p>\n"));
    TRY(report_headline(r, out));
    TRY(facts(r, out));
    TRY(warnings(r, out));
    TRY(str_puts(out, contents));
    return str_puts(out, "</header>\n<main>\n");
}

// ---- records and recipe ----------------------------------------------------------------------------------------------

static Err records(const Report *r, Str *out)
{
    size_t i;
    const json_t *set;
    TRY(report_section(
        out, "records", "Records",
        "What the stages left in the run directory; two runs with the same digests hold the same data, bit for bit."));
    TRY(report_table(out, "records"));
    TRY(str_puts(out, "<tr><th>record set</th><th class=\"n\">records</th><th>digest</th>"));
    json_array_foreach(r->sets, i, set)
    {
        TRY(str_puts(out, "<tr>"));
        TRY(report_cell(out, "td", report_text(set, "name")));
        TRY(report_cell_value(out, json_object_get(set, "count")));
        TRY(report_put(out, "<td><code>", report_text(set, "digest"), "</code></td>"));
    }
    return report_table_end(out);
}

static Err recipe(const Report *r, Str *out)
{
    Str text = {0};
    Err err = deck_print(r->deck, &text);
    if (err == OK) err = str_puts(out, "<details><summary>The resolved recipe</summary>");
    if (err == OK) err = report_put(out, "<pre>", str_text(&text), "</pre></details>\n");
    str_free(&text);
    return err;
}

Err report_page(const Report *r, Str *out)
{
    TRY(str_puts(out, head));
    TRY(str_puts(out, style_parts));
    TRY(top(r, out));
    TRY(report_results(r, out));
    TRY(report_sets(r, out));
    TRY(report_training(r, out));
    TRY(report_lives(r, out));
    TRY(report_phases(r, out));
    TRY(records(r, out));
    TRY(recipe(r, out));
    TRY(report_end(out));
    return str_printf(out, "</main>\n<footer>Written by imf %s; times are UTC.</footer>\n</body></html>\n", imf_version);
}
