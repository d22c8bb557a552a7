#!/bin/sh
# R-GEO1, law 1: four layouts, one digest (`make check-law1` tries all 36).
exec sh tests/lib/law1.sh "$1" 1:1:0 2:2:7 3:4:0:2 4:1:9
