#include "stage/stage.h"

Err stage_report(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf report is not built yet");
}
