#include "stage/stage.h"

Err stage_sft(const Job *job)
{
    (void)job;
    FAIL(ERR_UNAVAILABLE, "imf sft is not built yet");
}
