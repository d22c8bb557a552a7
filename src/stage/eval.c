#include "stage/stage.h"

Err stage_eval(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf eval is not built yet");
}
