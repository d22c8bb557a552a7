# SPDX-License-Identifier: Apache-2.0
"""tensors.py DIR DIR: are the tensors of two model.safetensors the same bytes under the same names? Exit 1 with what differs."""
import json
import sys


def tensors(path):
    with open(path + "/model.safetensors", "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        start = f.tell()
        header.pop("__metadata__", None)
        for name, t in header.items():
            f.seek(start + t["data_offsets"][0])
            yield name, (t["dtype"], t["shape"], f.read(t["data_offsets"][1] - t["data_offsets"][0]))


a, b = (dict(tensors(path)) for path in sys.argv[1:])
wrong = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
print(f"{len(wrong)} of {len(a)} tensors differ: {wrong[:5]}")
sys.exit(1 if wrong else 0)
