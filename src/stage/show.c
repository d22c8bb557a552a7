#include "stage/stage.h"

Err stage_show(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf show is not built yet");
}
