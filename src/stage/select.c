#include "stage/stage.h"

Err stage_select(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf select is not built yet");
}
