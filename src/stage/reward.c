#include "stage/stage.h"

Err stage_reward(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf reward is not built yet");
}
