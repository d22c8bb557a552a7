#include "stage/stage.h"

Err stage_logprobs(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf logprobs is not built yet");
}
