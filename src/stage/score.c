#include "stage/stage.h"

Err stage_score(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf score is not built yet");
}
