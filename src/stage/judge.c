#include "stage/stage.h"

Err stage_judge(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf judge is not built yet");
}
