#include "stage/stage.h"

Err stage_verify(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf verify is not built yet");
}
