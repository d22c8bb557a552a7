#include "stage/stage.h"

Err stage_tokens(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf tokens is not built yet");
}
