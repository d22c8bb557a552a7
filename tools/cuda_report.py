# SPDX-License-Identifier: Apache-2.0
"""What the machine code of the CUDA kernels can reach: counts of their main loops, without a GPU.

    python3 tools/cuda_report.py --nvcc NVCC --cuobjdump CUOBJDUMP [--check FILE | --write FILE]

Every kernel of KERNELS is compiled for sm_80 and sm_90a (those for Hopper for sm_90a) and disassembled. A row is a loop with tensor instructions, for one warp and one turn:
  T  cycles of the tensor cores (m16n8k16: 8 on sm_80, 4 on sm_90; measured speed of mma.sync on sm_90 is lower; wgmma of n columns: n / 2)
  M  8 x MUFU        I  instructions        A  2 x integer and logic        S  cycles in which shared memory delivers the operands of 4 warps
     (wgmma: of a warpgroup; a in registers costs none)
  overlap T / max(T, M, I, A, S)     everything hidden behind everything else: what no code exceeds
  serial  T / (T + max(M, I, A))     nothing hidden behind the tensor cores
Neither is a speed. An inner loop counts once in the row of the loop around it. docs/cuda.md says how FlashAttention-3's own kernels read so.

A ptxas line with a (C75xx) code, a spilled register, and LDL or STL in such a loop are errors. --check compares with a table that --write
made: more than 2 % more instructions, or a lower bound, is an error (and a better row asks for --write); another nvcc than the table's only prints.
Exit 0, or 1 with what is wrong on stderr.
"""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile

KERNELS = [  # (file, instances)
    ("attn_fwd", ["attn_fwd<%d, %s>(attn::Fwd)" % (d, c) for c in ("false", "true") for d in (64, 128, 256)]),
    ("attn_fwd_sm90", ["attn_fwd_sm90<%d, %s>(const __grid_constant__ attn_sm90::Fwd)" % (d, c) for c in ("false", "true") for d in (64, 128, 256)]),
    ("attn_bwd", ["attn_bwd_main<%d, %s>(attn_bwd::Bwd)" % (d, c) for c in ("false", "true") for d in (64, 128, 256)]),
    ("decode", ["decode_chunks<%d, %s>(decode::Decode)" % (d, c) for c in ("false", "true") for d in (64, 128, 256)]),
    ("attn_bwd_sm90", ["attn_bwd_sm90_main<%d, %s>(const __grid_constant__ attn_bwd_sm90::Bwd)" % (d, c) for c in ("false", "true") for d in (64, 128, 256)]),
    ("logprob", []),
    ("logprob_sm90", []),
]
ARCHS = ("80", "90a")
BARS = {  # of the loops without mask: (least serial bound, most instructions); masked ones may have 1.35 times as many
    "attn_fwd_sm90<64>": (0.47, 475),
    "attn_fwd_sm90<128>": (0.64, 520),
    "attn_fwd_sm90<256>": (0.70, 500),
}
SPECIAL = {  # weights that a lane's loop makes: of the special function unit at most one operation each and four, with a soft-cap twice that
    "attn_fwd_sm90<64>": 64, "attn_fwd_sm90<128>": 64, "attn_fwd_sm90<256>": 40,
    "attn_fwd_sm90<64, cap>": 128, "attn_fwd_sm90<128, cap>": 128, "attn_fwd_sm90<256, cap>": 80,
}
MASKED = 1.35
CYCLES = {"80": 8, "90a": 4}
ALU = {"FMNMX", "FMNMX3", "FSETP", "FSEL", "F2FP", "ISETP", "LOP3", "IADD3", "SHF", "SEL", "PRMT", "LEA", "IMNMX", "VIMNMX", "PLOP3", "MOV", "VIADD",
       "IABS", "R2P", "P2R"}
COLUMNS = ("T", "M", "I", "A", "S", "overlap", "serial")


def compile_kernel(nvcc, name, instances, arch, folder):
    """Path of the cubin; what ptxas said."""
    source, cubin = os.path.join(folder, name + ".cu"), os.path.join(folder, f"{name}.{arch}.cubin")
    with open(source, "w", encoding="utf-8") as f:
        f.write(f'#include "kernels/cuda/{name}.cuh"\n' + "".join(f"template __global__ void {i};\n" for i in instances))
    run = subprocess.run([nvcc, "-std=c++17", "-I.", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-Xptxas", "-v", "-cubin", "-o", cubin, source],
                         capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{name} for sm_{arch}: {run.stderr}")
    return cubin, run.stderr


def functions(cuobjdump, cubin):
    """{kernel: [(address, instruction)]}"""
    text = subprocess.run([cuobjdump, "-sass", cubin], capture_output=True, text=True, check=True).stdout
    found, current = {}, None
    for line in text.split("\n"):
        name = re.match(r"\s*Function : (\S+)", line)
        code = re.match(r"\s*/\*([0-9a-f]{4,6})\*/\s+(.*?);", line)
        if name:
            current = found.setdefault(plain_name(name.group(1)), [])
        elif code and current is not None:
            current.append((int(code.group(1), 16), code.group(2).strip()))
    return found


def plain_name(mangled):
    m = re.match(r"_Z(\d+)(.*)", mangled)
    name, rest = m.group(2)[:int(m.group(1))], m.group(2)[int(m.group(1)):]
    size, cap = re.match(r"ILi(\d+)E", rest), "Lb1E" in rest
    return name + (f"<{size.group(1)}{', cap' if cap else ''}>" if size else "")


def opcode(instruction):
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]


def loops(code):
    """(first, last) index of every backward branch's range."""
    index = {address: i for i, (address, _) in enumerate(code)}
    for i, (address, text) in enumerate(code):
        to = re.search(r"\bBRA\S*\s+(?:!?U?P\w+,\s*)?0x([0-9a-f]+)", text)
        if to and int(to.group(1), 16) < address and int(to.group(1), 16) in index:
            yield index[int(to.group(1), 16)], i


def with_products(code, found, main_only):
    """The loops with tensor instructions, shortest first; main_only: without those around others, and without the ends of kernels, to which waits branch back."""
    kept = []
    for first, last in sorted(found, key=lambda l: (l[1] - l[0], l)):
        body = [text for _, text in code[first:last + 1]]
        if not any(re.search("HG?MMA", t) for t in body):
            continue
        if main_only and (any("EXIT" in t for t in body) or any(first <= f and l <= last for f, l in kept)):
            continue
        kept.append((first, last))
    return kept


def wgmma_cycles(op):
    """Of the tensor cores, of a warp; of shared memory, of its warpgroup: n rows of 32 bytes, and 64 of a where the name says no register."""
    n = int(re.search(r"64x(\d+)x16", op).group(1))
    return n // 2, n * 32 // 128


def is_narrow(op, text):
    """Operands of a wgmma cost more than its product hides: n below 128 with a in shared memory, below 64 with a in registers."""
    return wgmma_cycles(op)[0] * 2 < (64 if in_registers(text) else 128)


def in_registers(text):
    return re.search(r"HGMMA\S* R\d+, R\d+", text)


def row_of(body, arch):
    ops = [opcode(text) for _, text in body]
    base = collections.Counter(o.split(".")[0] for o in ops)
    products = [(o, text) for o, text in ((opcode(text), text) for _, text in body) if o.startswith("HGMMA")]
    t = CYCLES[arch] * base["HMMA"] + sum(wgmma_cycles(o)[0] for o, _ in products)
    m, n, a = 8 * base["MUFU"], len(ops), 2 * sum(base[x] for x in ALU)
    s = sum(4 * (int(o.rsplit(".", 1)[1]) if o.rsplit(".", 1)[1].isdigit() else 1) for o in ops if o.startswith("LDSM"))
    s += sum(wgmma_cycles(o)[1] + (0 if in_registers(text) else 64 * 32 // 128) for o, text in products)
    row = {"T": t, "M": m, "I": n, "A": a, "S": s, "overlap": t / max(t, m, n, a, s), "serial": t / (t + max(m, n, a))}
    return row, base["LDL"] + base["STL"]


def report(a):
    rows, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, instances in KERNELS:
            for arch in ARCHS[1:] if name.endswith("_sm90") else ARCHS:
                cubin, said = compile_kernel(a.nvcc, name, instances, arch, folder)
                wrong += [f"{name} sm_{arch}: {line}" for line in said.split("\n") if re.search(r"\(C75\d+\)|[1-9]\d* bytes (stack|spill)", line)]
                for kernel, code in sorted(functions(a.cuobjdump, cubin).items()):
                    for number, (first, last) in enumerate(with_products(code, set(loops(code)), name.endswith("_sm90"))):
                        row, local = row_of(code[first:last + 1], arch)
                        rows[f"{kernel} sm_{arch} loop {number + 1}"] = row
                        if name == "attn_bwd_sm90" and any(is_narrow(opcode(text), text) for _, text in code[first:last + 1] if "HGMMA" in text):
                            wrong.append(f"{kernel} sm_{arch}: a wgmma too narrow for its operands")
                        if local:
                            wrong.append(f"{kernel} sm_{arch}: {local} accesses to local memory in a loop with tensor instructions")
    return rows, wrong


OPERANDS = {  # most I / T, most S / T
    "logprob_slices_sm90": (0.1, 0.7), "logprob_gradient_sm90": (0.1, 0.7),
    **{f"attn_bwd_sm90_main<{kind}>": (2, 0.8) for kind in ("64", "64, cap", "128", "128, cap", "256", "256, cap")},
}


def missed_bars(rows):
    """The first loop of a kernel of BARS is the one without mask, the shortest, the second the one with a diagonal."""
    for kernel, (serial, most) in BARS.items():
        plain, masked = rows[f"{kernel} sm_90a loop 1"], rows[f"{kernel} sm_90a loop 2"]
        if plain["serial"] < serial or plain["I"] > most:
            yield f"{kernel}: {text_of(plain)}: not {serial} serial with at most {most} instructions"
        if masked["I"] > MASKED * plain["I"]:
            yield f"{kernel}: {masked['I']} instructions with a mask, more than {MASKED} x {plain['I']}"
    for kernel, weights in SPECIAL.items():
        for name, row in rows.items():
            if name.startswith(f"{kernel} sm_90a") and row["M"] > 8 * (weights + (8 if "cap" in kernel else 4)):
                yield f"{name}: {text_of(row)}: M above 8 x {weights} and its rest"
    for kernel, (instructions, operands) in OPERANDS.items():
        for name, row in rows.items():
            if name.startswith(f"{kernel} sm_90a") and (row["I"] > instructions * row["T"] or row["S"] > operands * row["T"]):
                yield f"{name}: {text_of(row)}: I above {instructions} T, or S above {operands} T"


def text_of(row):
    return "\t".join("%.2f" % row[c] if c in ("overlap", "serial") else str(row[c]) for c in COLUMNS)


def compare(rows, path, version):
    """Differences from the table at `path` that count as worse, or as news."""
    with open(path, encoding="utf-8") as f:
        lines = [line.rstrip("\n").split("\t") for line in f if line.strip()]
    if lines[0][0] != version:
        print(f"({path} was made by {lines[0][0]}, this is {version}: not compared)")
        return []
    wrong, old = [], {line[0]: dict(zip(COLUMNS, line[1:])) for line in lines[2:]}
    for name in sorted(old.keys() | rows.keys()):
        if name not in rows or name not in old:
            wrong.append(f"{name} is {'gone' if name in old else 'new'}: --write {path}")
        elif rows[name]["I"] > 1.02 * int(old[name]["I"]) or any(round(rows[name][c], 2) < float(old[name][c]) for c in ("overlap", "serial")):
            wrong.append(f"{name} became worse: {text_of(rows[name])}, not {' '.join(old[name].values())}")
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--nvcc", required=True)
    p.add_argument("--cuobjdump", required=True)
    p.add_argument("--check")
    p.add_argument("--write")
    a = p.parse_args()
    version = subprocess.run([a.nvcc, "--version"], capture_output=True, text=True, check=True).stdout.strip().split("\n")[-1]
    rows, wrong = report(a)
    wrong += missed_bars(rows)
    table = [version, "\t".join(("loop",) + COLUMNS)] + [f"{name}\t{text_of(row)}" for name, row in sorted(rows.items())]
    print("\n".join(table))
    if a.write:
        with open(a.write, "w", encoding="utf-8") as f:
            f.write("\n".join(table) + "\n")
    if a.check:
        wrong += compare(rows, a.check, version)
    if wrong:
        sys.exit("\n".join(wrong))


main()
