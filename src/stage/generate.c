#include "stage/stage.h"

Err stage_generate(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf generate is not built yet");
}
