# SPDX-License-Identifier: Apache-2.0
"""Mutants of the CUDA kernels: does the suite on hostcuda notice when a kernel is broken?

    python3 tools/mutate.py [--build build] [--seed N --count 40] [--list] KERNEL.cuh:TEST ...

KERNEL is a file of kernels/cuda, TEST a program of tests/hostcuda that includes it. A mutant is one change of one place: a call that
synchronises or waits deleted; a wait deeper or shallower by one; a comparison off by one; a shuffle, a row or a column exchanged. All of them are
built and run, or --count chosen by --seed. Killed: the build fails, the test fails, or it takes more than ten times its usual time.
stdout: a line for each survivor and the counts; exit 1 when fewer than 95 % are killed. Survivors that change nothing are listed with
the reason in tests/hostcuda/equivalent.txt (KERNEL: the changed line, exactly; then "  # why") and do not count.
"""
import argparse
import glob
import os
import random
import re
import shutil
import subprocess
import sys
import time

CALLS = ("__syncthreads", "__syncwarp", "bar_sync", "bar_arrive", "mbar_init", "mbar_arrive", "mbar_wait", "cp_async_commit", "cp_async_wait",
         "spin_until", "st_release")


def changes(line):
    """(what, the changed line) of every mutant of a line of code."""
    code = line.split("//")[0]
    for call in CALLS:
        for m in re.finditer(r"\b%s(<[^>]*>)?\([^;]*\);" % call, code):
            yield f"{call} deleted", line[:m.start()] + ";" + line[m.end():]
    for m in re.finditer(r"cp_async_wait<(\d+)>", code):
        yield "waits for one fewer", line[:m.start(1)] + str(int(m.group(1)) + 1) + line[m.end(1):]
    for m in re.finditer(r" (<=|>=|<|>) ", code):
        other = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}[m.group(1)]
        if "for (" not in code[:m.start()] or code.count(";", 0, m.start()) == 1:
            yield f"{m.group(1)} became {other}", line[:m.start(1)] + other + line[m.end(1):]
    for m in re.finditer(r"__shfl_xor_sync\(~0u, (\w+(?:\[\w+\])?), (\d)\)", code):
        yield "shuffle left out", line[:m.start()] + m.group(1) + line[m.end():]
    for m in re.finditer(r" \^ ", code):
        yield "^ became +", line[:m.start()] + " + " + line[m.end():]


def mutants(path):
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    for i, line in enumerate(lines):
        if line.lstrip().startswith(("#", "//")):
            continue
        for what, changed in changes(line):
            yield {"path": path, "line": i + 1, "what": what, "old": line, "text": "\n".join(lines[:i] + [changed] + lines[i + 1:]), "new": changed}


def build_and_run(m, test, work, build, limit):
    """'' when the mutant lives, else what killed it."""
    where = os.path.join(work, "kernels/cuda")
    shutil.copytree("kernels/cuda", where, dirs_exist_ok=True)
    with open(os.path.join(where, os.path.basename(m["path"])), "w", encoding="utf-8") as f:
        f.write(m["text"])
    program = os.path.join(work, "test")
    compile_line = ["g++", "-std=c++17", "-O2", "-g", "-w", "-fsanitize=thread,bounds", "-fsanitize-undefined-trap-on-error",
                    "-fstack-reuse=none", "-ffp-contract=off", f"-I{work}", "-Isrc", "-I.", "-Ikernels/hostcuda",
                    "-x", "c++", "-c", f"tests/hostcuda/{test}.cu", "-o", program + ".o"]
    if subprocess.run(compile_line, capture_output=True).returncode:
        return "build"
    objects = sorted(glob.glob(f"{build}/kernels/hostcuda/*.o"))
    subprocess.run(["g++", "-o", program, program + ".o"] + objects + [f"{build}/libimf.a", "-lboost_context", "-lbacktrace"], check=True, capture_output=True)
    try:
        run = subprocess.run([program], capture_output=True, timeout=limit, text=True)
    except subprocess.TimeoutExpired:
        return "time"
    return "" if run.returncode == 0 else (run.stdout.strip().split("\n") or [""])[0][:100] or "exit"


def equivalents():
    try:
        with open("tests/hostcuda/equivalent.txt", encoding="utf-8") as f:
            return {line.rstrip("\n").rsplit("  # ", 1)[0].split(": ", 1)[-1] for line in f if "  # " in line}
    except FileNotFoundError:
        return set()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default="build")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=0)
    p.add_argument("--list", action="store_true")
    p.add_argument("pairs", nargs="+")
    a = p.parse_args()
    same = equivalents()
    all_of = [(m, test) for pair in a.pairs for name, test in [pair.split(":")] for m in mutants(f"kernels/cuda/{name}") if m["new"].strip() not in same]
    if a.count:
        all_of = random.Random(a.seed).sample(all_of, min(a.count, len(all_of)))
    work = os.path.join(a.build, "mutants")
    os.makedirs(work, exist_ok=True)
    killed = 0
    usual = {}
    for m, test in all_of:
        if a.list:
            print(f"{m['path']}:{m['line']}: {m['what']}: {m['new'].strip()}")
            continue
        if test not in usual:
            start = time.time()
            subprocess.run([f"{a.build}/tests/hostcuda/{test}"], check=True, capture_output=True)
            usual[test] = time.time() - start
        how = build_and_run(m, test, work, a.build, 10 * usual[test] + 5)
        killed += how != ""
        print(f"{'killed' if how else 'LIVES'} {m['path']}:{m['line']}: {m['what']}: {m['new'].strip()}{' (' + how + ')' if how else ''}", flush=True)
    if not a.list:
        print(f"{killed} of {len(all_of)} mutants killed")
        sys.exit(killed < 0.95 * len(all_of))


main()
