// SPDX-License-Identifier: Apache-2.0
// The manual in two forms, made from the command table and the recipe's schema: imf(1) in mdoc, and docs/recipe.md.
#ifndef IMF_BASE_MANUAL_H
#define IMF_BASE_MANUAL_H

#include "base/err.h"
#include "base/str.h"

typedef struct ManualCommand {
    const char *name, *help;  // help: one line without a stop
    const char *usage;        // flags and rows as plain text, NULL: none
    const char *sections;     // of the recipe that it reads, space separated
} ManualCommand;

// Local. Appends the page to *out; `mandoc -T lint` has nothing to say about it.
Err manual_page(const ManualCommand *commands, int n, Str *out) ERR_MUST_CHECK;

// Local. Appends the recipe reference as Markdown, a table a section.
Err manual_markdown(Str *out) ERR_MUST_CHECK;

#endif
