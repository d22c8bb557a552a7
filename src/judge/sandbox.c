#include "judge/judge.h"
// placeholder until the real one lands
Err sandbox_start(void) { return OK; }
Err sandbox_stop(void) { return OK; }
