// SPDX-License-Identifier: Apache-2.0
// imf trace RECIPE ID: the life of a prompt, a sample, an SFT row or a pair; of a row of a user's own file why training
// dropped or cut it. The beginning of an id is enough if it is the only one. Rank 0 reads and prints; nothing is written.
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "par/par.h"
#include "stage/life.h"
#include "stage/stage.h"

static Err print_life(Life *l, const char *prefix)
{
    Str out = {0};
    int what;
    Id id;
    TRY(life_find(l, prefix, &what, &id));
    Err err = life_tell(l, what, id, &out);
    if (err == OK) fputs(str_text(&out), stdout);
    str_free(&out);
    return err;
}

Err stage_trace(const Job *job)
{
    Life *l;
    char prefix[ID_TEXT] = "";
    CHECK(job->argc == 1 && *job->argv[0] && strlen(job->argv[0]) < ID_TEXT, ERR_USAGE,
          "imf trace wants one id (or its beginning): imf trace RECIPE.yaml ID");
    for (int i = 0; job->argv[0][i]; i++) prefix[i] = (char)tolower((unsigned char)job->argv[0][i]);
    TRY(life_open(&l, job->run_dir));
    Err err = par_rank() == 0 ? print_life(l, prefix) : OK;
    life_free(l);
    return err;
}
