// SPDX-License-Identifier: Apache-2.0
// Which tensor a damaged byte of a checkpoint belongs to. A file whose bytes do not match is never opened by HDF5, so the
// manifest says where in the file each tile lies, and the tile is read and summed as plain bytes.
#ifndef IMF_TRAIN_CHECKPOINT_DAMAGE_H
#define IMF_TRAIN_CHECKPOINT_DAMAGE_H

#include "train/checkpoint_manifest.h"

// Local. Where the rank's tiles lie in the file that was just written and closed, into sums[].at; 0: unknown (a build without
// HDF5's own header). ERR_IO when the file cannot be read.
Err checkpoint_locate(const char *path, const Model *model, const TileSource *src, TileSum *sums) ERR_MUST_CHECK;

// Local. Bytes [from, to) of file f do not match, or are not there: what that means for whom, in words, appended; nothing when
// the manifest does not know where tiles lie.
Err checkpoint_name_damage(const Manifest *m, const char *path, int64_t f, int64_t from, int64_t to, Str *out) ERR_MUST_CHECK;

#endif
