#include "stage/stage.h"

Err stage_dpo(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf dpo is not built yet");
}
