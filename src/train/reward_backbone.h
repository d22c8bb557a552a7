// SPDX-License-Identifier: Apache-2.0
// Optional first part of reward training: the backbone itself, by Bradley-Terry and/or regression on linear heads over the
// last token's hidden state. The heads are thrown away.
#ifndef IMF_TRAIN_REWARD_BACKBONE_H
#define IMF_TRAIN_REWARD_BACKBONE_H

#include "train/compute.h"
#include "train/reward_data.h"

// Collective. Trains on->master in place, where `on` computes, on the pairs that are not held out (keys of section reward_train; backbone: none returns
// at once). Chains, tree and owners as in train/step.h and train/optim.h: layout changes nothing.
Err reward_backbone(Compute *on, const Deck *deck, const RewardData *d) ERR_MUST_CHECK;

#endif
