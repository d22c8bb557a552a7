#include "stage/stage.h"

Err stage_trace(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf trace is not built yet");
}
