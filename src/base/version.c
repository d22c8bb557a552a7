// SPDX-License-Identifier: Apache-2.0
#include "base/version.h"

const char imf_version[] = IMF_VERSION;  // the Makefile's; compiled anew when it changes
const char imf_compiler[] = IMF_COMPILER " " __VERSION__;
const char imf_date[] = IMF_DATE;
