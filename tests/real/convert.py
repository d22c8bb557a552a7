# SPDX-License-Identifier: Apache-2.0
"""convert.py CONVERTER ARGUMENTS...: runs convert_hf_to_gguf.py with Debian's torch, which has no float8: the converter lists
the two types' names and needs them for other models only."""
import runpy
import sys

import torch

for name in ("float8_e4m3fn", "float8_e5m2"):
    if not hasattr(torch, name):
        setattr(torch, name, None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
