// Placeholder: nothing is found, nothing is saved.
#include "train/checkpoint.h"

Err checkpoint_save(const char *dir, const Model *model, const float *m, const float *v, const TrainState *state)
{
    (void)dir, (void)model, (void)m, (void)v, (void)state;
    return OK;
}
Err checkpoint_find(const char *dir, int64_t *step)
{
    (void)dir;
    *step = -1;
    return OK;
}
Err checkpoint_load(const char *dir, int64_t step, Model *model, float *m, float *v, TrainState *state)
{
    (void)dir, (void)step, (void)model, (void)m, (void)v, (void)state;
    FAIL(ERR_UNAVAILABLE, "checkpoints are not built yet");
}
Err checkpoint_show(const char *path, Str *out)
{
    (void)path, (void)out;
    FAIL(ERR_UNAVAILABLE, "checkpoints are not built yet");
}
Err checkpoint_prune(const char *dir, int keep)
{
    (void)dir, (void)keep;
    return OK;
}
