// SPDX-License-Identifier: Apache-2.0
// What this program is: it is written into every file that the program writes.
#ifndef IMF_BASE_VERSION_H
#define IMF_BASE_VERSION_H

extern const char imf_version[];   // "0.1.0+1a2b3c4": release and commit
extern const char imf_compiler[];  // "gcc 12.2.0"
extern const char imf_date[];      // "January 2, 2026", of the commit

#endif
