#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The CUDA runtime of hostcuda: lazy streams, events, graphs, limits and sticky failures.
exec timeout 60 "$1/tests/hostcuda/streams"
