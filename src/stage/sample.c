#include "stage/stage.h"

Err stage_sample(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf sample is not built yet");
}
