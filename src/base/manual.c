// SPDX-License-Identifier: Apache-2.0
// The manual page in mdoc and the recipe reference in Markdown. Text is escaped here; the tables hold plain text.
#include "base/manual.h"

#include <string.h>

#include "base/deck.h"
#include "base/version.h"

typedef struct Item {
    const char *name, *text;
} Item;

static const Item options[] = {
    {"--set", "a.b=c: gives a key of the recipe another value; may be repeated, the last one wins"},
    {"--dtype", "float32 or bfloat16: number format of commands without a recipe"},
    {"--quiet", "no progress, only warnings and errors"},
    {"--profile", "every stage ends with a table of its time: gemm, attention, communication, wait and others"},
    {"--version", "release, commit, compiler and what this machine offers"},
    {"--help", "the commands; behind a command: its flags, rows and keys"},
};

static const Item environment[] = {
    {"IMF_ISA", "lowers the instruction set level: base, avx2, avx512, avx512bf16 or amx"},
    {"IMF_NODES", "pretends that the ranks lie on so many nodes; for tests"},
    {"IMF_IO_TIMEOUT", "seconds without progress after which writing a checkpoint gives up (1800)"},
    {"IMF_FAULT", "lets a call fail or a rank die at a given point; for tests"},
    {"IMF_TRACE", "any value: an error also prints the calls that led to it"},
    {"IMF_PYTHON", "the Python that the code judge runs, if it is not /usr/bin/python3 or the one of PATH"},
    {"IMF_SANDBOX", "t1: confine candidate programs by Landlock alone; userns: by namespaces alone; none: do not run any"},
    {"IMF_SANDBOX_STDERR", "any value: shows what candidate programs write on standard error"},
    {"SLURM_JOB_END_TIME", "when the batch system ends the job: training stops in time by itself"},
    {"SLURM_STEP_ID", "with SLURM_STEP_NUM_TASKS: a launch whose ranks do not know each other ends at once"},
    {"SLURM_STEP_NUM_TASKS", "see SLURM_STEP_ID"},
    {"SLURM_JOB_ID", "the job's id in names of record parts and in the lease"},
};

static const Item files[] = {
    {"share/doc/imf", "formats of files, the recipe as tables, how to add things, a glossary"},
    {"share/imf/input", "recipes, and the small models and data of the demo"},
};

static const Item exits[] = {
    {"0", "done"},
    {"1", "imf compare: A and B differ"},
    {"64", "wrong command line"},
    {"65", "a file or record is malformed or damaged"},
    {"66", "an input is not there or cannot be read"},
    {"69", "this machine lacks something"},
    {"70", "a fault of the program, or numbers that must not happen"},
    {"73", "an output cannot be created"},
    {"74", "reading or writing failed half-way"},
    {"75", "checkpointed on request: run it again"},
    {"78", "the recipe is wrong"},
};

#define COUNT(table) ((int)(sizeof table / sizeof table[0]))

// ---- mdoc ------------------------------------------------------------------------------------------------------------

// Backslashes and minus signs as characters; a dot or quote that begins a line is no request. Lines longer than `width` end at
// the next blank; 0: they stay.
static Err roff(Str *out, const char *text, int width)
{
    int column = 0;
    for (; *text; text++) {
        if (!column && strchr(".'", *text)) TRY(str_puts(out, "\\&"));
        bool end = *text == '\n' || (width && *text == ' ' && column >= width);
        if (end) TRY(str_puts(out, "\n"));
        else if (*text == '\\') TRY(str_puts(out, "\\e"));
        else if (*text == '-') TRY(str_puts(out, "\\-"));
        else TRY(str_add(out, text, 1));
        column = end ? 0 : column + 1;
    }
    return OK;
}

// On lines of its own, with its stop.
static Err sentence(Str *out, const char *text)
{
    TRY(roff(out, text, 60));
    return str_puts(out, ".\n");
}

static Err literal(Str *out, const char *text)
{
    TRY(str_puts(out, ".Bd -literal\n"));
    TRY(roff(out, text, 0));
    return str_puts(out, str_ends(text, "\n") ? ".Ed\n" : "\n.Ed\n");
}

static Err items(Str *out, const char *macro, const Item *item, int n)
{
    TRY(str_puts(out, ".Bl -tag -width Ds\n"));
    for (int i = 0; i < n; i++) {
        TRY(str_printf(out, ".It %s", macro));
        TRY(str_puts(out, *macro ? " " : ""));
        TRY(roff(out, item[i].name, 0));
        TRY(str_puts(out, "\n"));
        TRY(sentence(out, item[i].text));
    }
    return str_puts(out, ".El\n");
}

static Err page_head(Str *out)
{
    TRY(str_printf(out, ".Dd %s\n.Dt IMF 1\n.Os\n", imf_date));
    TRY(str_puts(out, ".Sh NAME\n.Nm imf\n.Nd implicit model fusion, from prompts to a fused model\n.Sh SYNOPSIS\n"
                      ".Nm\n.Ar command recipe.yaml\n.Op Fl \\-set Ar key=value\n.Op Fl \\-quiet\n.Op Fl \\-profile\n"
                      ".Nm\n.Ar command ...\n.Op Fl \\-dtype Ar format\n.Op Fl \\-quiet\n.Op Fl \\-profile\n"
                      ".Nm\n.Cm help\n.Op Ar command | Cm recipe\n.Sh DESCRIPTION\n"));
    TRY(sentence(out, "Takes prompts and several language models and gives back a small model that has learned from all of "
                      "them: it samples answers, scores and verifies them, builds rows and preference pairs, fine-tunes a "
                      "target model and evaluates it"));
    return str_puts(out, "Every stage is a command; the command\n.Cm run\ndoes all of them in order and skips those that have "
                         "ended.\n"
                         "Under\n.Ic mpirun\nthe ranks share every stage, and their number changes no result.\n.Pp\n"
                         "Options of every command:\n");
}

static Err page_commands(const ManualCommand *c, int n, Str *out)
{
    TRY(str_puts(out, ".Sh COMMANDS\n.Ss run\nEvery stage from select to eval, in order; ended stages are skipped.\n"));
    for (int i = 0; i < n; i++) {
        TRY(str_printf(out, ".Ss %s\n", c[i].name));
        TRY(sentence(out, c[i].help));
        if (*c[i].sections) TRY(str_printf(out, "Keys of the recipe: %s.\n", c[i].sections));
        if (c[i].usage) TRY(literal(out, c[i].usage));
    }
    return OK;
}

static Err page_key(Str *out, const DeckKey *k)
{
    Str values = {0};
    Err err = OK;
    TRY_DONE(deck_values(&values, k));
    TRY_DONE(str_printf(out, ".It Cm %s\n", k->path));
    TRY_DONE(str_puts(out, k->preset && *k->preset ? "Default " : ""));
    TRY_DONE(roff(out, deck_preset(k), 0));
    TRY_DONE(str_puts(out, "; "));
    TRY_DONE(sentence(out, str_text(&values)));
    TRY_DONE(sentence(out, k->help));
    TRY_DONE(str_puts(out, k->layout ? "Layout.\n" : ""));
done:
    str_free(&values);
    return err;
}

static Err page_recipe(Str *out)
{
    TRY(str_puts(out, ".Sh RECIPE\nA YAML file.\nBehind each key stand its default and its values.\nKeys that are marked "
                      "layout say where or how: they change no result.\n.Bl -tag -width Ds\n"));
    for (int i = 0; i < deck_schema_size; i++) TRY(page_key(out, &deck_schema[i]));
    return str_puts(out, ".El\n");
}

Err manual_page(const ManualCommand *commands, int n, Str *out)
{
    TRY(page_head(out));
    TRY(items(out, "", options, COUNT(options)));
    TRY(page_commands(commands, n, out));
    TRY(page_recipe(out));
    TRY(str_puts(out, ".Sh ENVIRONMENT\n"));
    TRY(items(out, "Ev", environment, COUNT(environment)));
    TRY(str_puts(out, ".Sh FILES\nBelow the place where imf is installed:\n"));
    TRY(items(out, "Pa", files, COUNT(files)));
    TRY(str_puts(out, ".Sh EXIT STATUS\nThe same on all ranks.\n"));
    TRY(items(out, "", exits, COUNT(exits)));
    TRY(str_puts(out, ".Sh EXAMPLES\nThe whole pipeline on four ranks:\n"));
    TRY(literal(out, "mpirun -n 4 imf run recipe.yaml"));
    TRY(str_puts(out, ".Pp\nQuestions answered by the model of a run:\n"));
    TRY(literal(out, "imf generate runs/mine/dpo/model --temperature 0.6 < questions.jsonl"));
    return OK;
}

// ---- Markdown --------------------------------------------------------------------------------------------------------

static Err escaped(Str *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("|*<", *text)) TRY(str_puts(out, "\\"));
        TRY(str_add(out, text, 1));
    }
    return OK;
}

// Length of the key's section: "sft" of sft.data, "prompts" of prompts[].path, nothing for a key of the top level.
static int section(const char *path)
{
    size_t n = strcspn(path, ".[");
    return path[n] ? (int)n : 0;
}

static Err section_head(Str *out, const char *path)
{
    int n = section(path);
    TRY(n ? str_printf(out, "\n## %.*s\n", n, path) : str_puts(out, "\n## The run\n"));
    return str_puts(out, "\n| Key | Default | Values | Meaning |\n|---|---|---|---|\n");
}

static Err key_line(Str *out, const DeckKey *k)
{
    Str values = {0};
    Err err = OK;
    TRY_DONE(deck_values(&values, k));
    TRY_DONE(str_printf(out, "| `%s` | ", k->path));
    TRY_DONE(escaped(out, deck_preset(k)));
    TRY_DONE(str_puts(out, " | "));
    TRY_DONE(escaped(out, str_text(&values)));
    TRY_DONE(str_puts(out, " | "));
    TRY_DONE(escaped(out, k->help));
    TRY_DONE(str_puts(out, k->layout ? " (layout) |\n" : " |\n"));
done:
    str_free(&values);
    return err;
}

Err manual_markdown(Str *out)
{
    TRY(str_puts(out, "# The recipe\n\nEvery key of a recipe, as `imf help recipe` prints it (`make docs` writes this page). A "
                      "recipe is YAML; `--set sft.max_steps=10`\non the command line takes the place of a key. An unknown key "
                      "ends with code 78 and names the nearest one. `prompts[].path`\nstands for the key `path` of every entry "
                      "of the list `prompts`. Keys marked (layout) say where or how: they change no result.\n"));
    const char *last = NULL;
    for (int i = 0; i < deck_schema_size; i++) {
        const char *path = deck_schema[i].path;
        int n = section(path);
        if (!last || section(last) != n || strncmp(last, path, (size_t)n)) TRY(section_head(out, path));
        TRY(key_line(out, &deck_schema[i]));
        last = path;
    }
    return OK;
}
