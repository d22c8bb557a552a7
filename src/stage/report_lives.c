// SPDX-License-Identifier: Apache-2.0
// Texts to read: the best and the worst answer to five prompts, with their lives as imf trace prints them, and the same
// held-out prompts answered before and after training.
#include <stdio.h>
#include <string.h>

#include "stage/report_parts.h"

static const char *const outcome_names[REPORT_OUTCOMES] = {"judged right", "judged wrong", "undecided", "not checked"};

static Err messages(Str *out, const json_t *list)
{
    size_t i;
    const json_t *m;
    json_array_foreach((json_t *)list, i, m)
    {
        TRY(report_put(out, "<p class=\"role\">", report_text(m, "role"), "</p>"));
        TRY(report_block(out, "asked", report_text(m, "content")));
    }
    return OK;
}

// ---- lives -----------------------------------------------------------------------------------------------------------

static Err life_details(const Report *r, Str *out, Id sample)
{
    Str life = {0};
    Err err = life_tell_answer(r->life, sample, &life);
    if (err == OK) err = str_puts(out, "<details><summary>Its life</summary>");
    if (err == OK) err = report_block(out, "life", str_text(&life));
    if (err == OK) err = str_puts(out, "</details>\n");
    str_free(&life);
    return err;
}

static Err one_end(const Report *r, Str *out, const ReportPick *p, int k)
{
    RecordSet *samples = life_set(r->life, LIFE_SAMPLES);
    char id[ID_TEXT];
    json_t *data;
    TRY(record_read(samples, record_find(samples, p->sample[k]), &data));
    id_print(p->sample[k], id);
    Err err = OK;
    TRY_DONE(report_put(out, k ? "<div><h4>Worst, by " : "<div><h4>Best, by ", report_text(data, "source"), "</h4>"));
    TRY_DONE(str_printf(out, "<p class=\"about\">score %.4f, %s, <code>%s</code></p>\n", p->score[k],
                        outcome_names[p->outcome[k]], id));
    TRY_DONE(report_block(out, k ? "bad" : "good", report_text(data, "text")));
    TRY_DONE(life_details(r, out, p->sample[k]));
    TRY_DONE(str_puts(out, "</div>\n"));
done:
    json_decref(data);
    return err;
}

static Err one_pick(const Report *r, Str *out, int number)
{
    const ReportPick *p = &r->tally.pick[number];
    RecordSet *prompts = life_set(r->life, LIFE_PROMPTS);
    char id[ID_TEXT];
    json_t *data;
    TRY(record_read(prompts, record_find(prompts, p->prompt), &data));
    id_print(p->prompt, id);
    Err err = OK;
    TRY_DONE(str_printf(out, "<article id=\"prompt-%d\">", number + 1));
    const char *set = report_text(data, "dataset");
    TRY_DONE(report_put(out, "<h3>", *set ? set : "(no name)", ", "));
    TRY_DONE(report_put(out, "", report_text(data, "kind"), ""));
    TRY_DONE(str_printf(out, " <code>%s</code></h3>\n", id));
    TRY_DONE(messages(out, json_object_get(data, "messages")));
    TRY_DONE(str_puts(out, "<div class=\"grid two\">\n"));
    for (int k = 0; k < 2; k++) TRY_DONE(one_end(r, out, p, k));
    TRY_DONE(str_puts(out, "</div></article>\n"));
done:
    json_decref(data);
    return err;
}

static Err lives(const Report *r, Str *out)
{
    TRY(report_section(
        out, "lives", "Ten answers to read",
        "The best and the worst answer, by score, to five prompts. No one chose them: the data sets take turns and give their "
        "prompts in the order of ids, which are hashes."));
    if (r->tally.picks == 0)
        TRY(str_puts(out, "<p class=\"gap\">There is no prompt with two answers of different scores.</p>\n"));
    for (int i = 0; i < r->tally.picks; i++) TRY(one_pick(r, out, i));
    return report_end(out);
}

// ---- before and after ------------------------------------------------------------------------------------------------

static Err one_answer(Str *out, const json_t *a)
{
    TRY(report_put(out, "<div><h4>", report_text(a, "model"), ""));
    TRY(str_printf(out, " <span class=\"dim\">grade %.2f, ", report_number(a, "grade")));
    TRY(report_put(out, "", report_text(a, "outcome"), "</span></h4>"));
    TRY(report_block(out, "", report_text(a, "text")));
    return str_puts(out, "</div>\n");
}

// Has a prompt of an earlier entry?
static bool was_shown(const json_t *answers, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (!strcmp(report_text(json_array_get(answers, i), "prompt"), report_text(json_array_get(answers, at), "prompt")))
            return true;
    return false;
}

static Err answers(const Report *r, Str *out)
{
    size_t i, k;
    const json_t *a, *b;
    TRY(report_section(
        out, "answers", "The same held-out prompts before and after",
        "The first held-out prompt of each kind, in the order of ids, answered by the target, after SFT and after DPO."));
    if (json_array_size(r->answers) == 0)
        return str_puts(out, "<p class=\"gap\">There are no answers: the eval stage has not run.</p>\n</section>\n");
    json_array_foreach((json_t *)r->answers, i, a)
    {
        if (was_shown(r->answers, i)) continue;
        TRY(report_put(out, "<article><h3>", report_text(a, "kind"), ""));
        TRY(report_put(out, " <code>", report_text(a, "prompt"), "</code></h3>\n"));
        TRY(messages(out, json_object_get(r->asked, report_text(a, "prompt"))));
        TRY(str_puts(out, "<div class=\"grid\">\n"));
        json_array_foreach((json_t *)r->answers, k, b) if (!strcmp(report_text(a, "prompt"), report_text(b, "prompt")))
            TRY(one_answer(out, b));
        TRY(str_puts(out, "</div></article>\n"));
    }
    return report_end(out);
}

Err report_lives(const Report *r, Str *out)
{
    TRY(lives(r, out));
    return answers(r, out);
}
