# SPDX-License-Identifier: Apache-2.0
"""Layouts of tensor core instructions as CuTe has them: writes tests/data/cuda/fragments.txt and operands.txt, which tests/hostcuda/cute.cu reads.

    python3 tools/reference/cute.py tests/data/cuda        (nvcc; CuTe's headers from PyPI, nvidia-cutlass 4.2.0, in a directory of their own)

The files' first lines say what is in them.
"""
import pathlib
import subprocess
import sys
import tempfile

VERSION = "4.2.0.0"
FRAGMENTS = f"""# Which lane holds element (row, column) of a fragment, and as which of its values (two to a register where they are bf16).
# From CuTe {VERSION} by tools/reference/cute.py. fragment NAME ROWS COLUMNS; an element's number is (of its row) xor (of its column).
# mma_a, mma_b, mma_c: mma.m16n8k16, b as [n][k]; ldmatrix: row = the lane that gives the address, x4; wgmma: 128 lanes, a in registers.
"""
OPERANDS = f"""# Where element (row, column) of a bf16 operand lies in shared memory with the 128-byte swizzle, and wgmma's descriptors of it.
# From CuTe {VERSION} by tools/reference/cute.py. operand k_major ROWS K: [row][k]; operand mn_major K N: [k][n].
# Byte offset = start of the column's panel of 64 + ((of the row) xor (of the column in its panel)).
# descriptor FIRST COUNT K START BITS: COUNT rows (k_major) or columns (mn_major) from FIRST on, 16 of k from K on; START: bytes from
# the tile's beginning; BITS: the descriptor with start address 0. swizzle: 16-byte column (of row r, written as column c) of a 128-byte row.
"""


def main():
    out = pathlib.Path(sys.argv[1])
    source = pathlib.Path(__file__).with_name("cute.cu")
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--no-deps", "--target", name, f"nvidia-cutlass=={VERSION}"], check=True)
        include, program = f"{name}/cutlass_library/source/include", f"{name}/cute"
        subprocess.run(["nvcc", "-std=c++17", "-w", "-arch=sm_90a", "-DCUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED", f"-I{include}", "-o", program, str(source)], check=True)
        for file, head, args in (("fragments.txt", FRAGMENTS, []), ("operands.txt", OPERANDS, ["operands"])):
            text = subprocess.run([program, *args], check=True, capture_output=True, text=True).stdout
            # On the host CuTe has no shared address; ours is left out of the descriptors anyway.
            lines = [line for line in text.splitlines() if not line.startswith("ERROR: cast_smem_ptr_to_uint")]
            (out / file).write_text(head + "\n".join(lines) + "\n")


main()
