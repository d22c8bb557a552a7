#include "stage/stage.h"

Err stage_pair(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf pair is not built yet");
}
