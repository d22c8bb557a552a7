# SPDX-License-Identifier: Apache-2.0
"""Mutants of the CUDA kernels: does the suite on hostcuda notice when a kernel is broken?

    python3 tools/mutate.py [--build build] [--jobs 1] [--seed N --count 40] [--list] [--table FILE] KERNEL.cuh:TEST[:FORM] ...

KERNEL is a file of kernels/cuda, TEST a program of tests/hostcuda that includes it, built for FORM alone (MMA, SM90). A mutant is one change of one
place: a call that synchronises, waits, copies, multiplies or fences deleted; a wait for one fewer, or for the other parity; a barrier's threads or
arrivals, a copy's expected bytes, a descriptor's stride or offset halved; a comparison off by one; a shuffle, a row or a column exchanged. All of them are
built and run, or --count chosen by --seed. Killed: the build fails, the test fails, or it takes more than PATIENCE times its usual processor time.
stdout: a line for each survivor and the counts; exit 1 when fewer than 95 % are killed. Survivors that change nothing are listed with
the reason in tests/hostcuda/equivalent.txt (KERNEL: the changed line as it is printed; then "  # why") and do not count. --table: the lines of these
kernels in FILE (tests/hostcuda/mutants.txt) are replaced, kernel by kernel, by what was found today; those of others stay.
"""
import argparse
import glob
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

CALLS = ("__syncthreads", "__syncwarp", "bar_sync", "bar_arrive", "mbar_init", "mbar_arrive", "mbar_arrive_expect", "mbar_wait", "fence_mbar_init",
         "fence_proxy_async", "cp_async16", "cp_async4", "cp_async_commit", "cp_async_wait", "tma_load_2d", "wgmma_fence", "wgmma_ss", "wgmma_rs",
         "wgmma_commit", "wgmma_wait", "registers_less", "registers_more", "give_back", "spin_until", "st_release")
PATIENCE = 4  # of a test's usual processor time
HALVED = {  # call: which of its arguments
    "bar_sync": [1], "bar_arrive": [1], "mbar_init": [1], "mbar_arrive_expect": [1], "operand": [1], "sm90::multiply_rows": [2, 4]}


def arguments(code, at):
    """(start, end) of the arguments of the call whose parenthesis opens at code[at]; nothing where it does not end in this line."""
    found, depth, start = [], 0, at + 1
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0 or (depth == 1 and code[i] == ","):
            found.append((start, i))
            start = i + 2
        if depth == 0:
            return found
    return []


def changed_arguments(line, code):
    """Parities flipped; counts, bytes and strides halved."""
    if code.startswith(("DEVICE", "template")) and not code.rstrip().endswith(";"):
        return  # a function's own parameters
    for m in re.finditer(r"(?:sm90::)?\b\w+(?=(?:<[^<>()]*>)?\()", code):
        places = arguments(code, code.index("(", m.end()))
        for i in HALVED.get(m.group(), []):
            if i < len(places):
                first, last = places[i]
                yield f"{m.group()}: half", line[:first] + f"({line[first:last]}) / 2" + line[last:]
        if m.group() == "mbar_wait" and len(places) == 2:
            first, last = places[1]
            yield "the other parity", line[:first] + f"({line[first:last]}) ^ 1" + line[last:]
    for m in re.finditer(r" >> 4\b", code):
        yield "a descriptor's field: half", line[:m.start()] + " / 2" + line[m.start():]


def changes(line):
    """(what, the changed line) of every mutant of a line of code."""
    code = line.split("//")[0]
    for call in CALLS:
        for m in re.finditer(r"\b%s(<[^>]*>)?\([^;]*\);" % call, code):
            yield f"{call} deleted", f"{line[:m.start()]}/* {m.group()} */;{line[m.end():]}"
    for m in re.finditer(r"(?:cp_async|wgmma)_wait<([^>]+)>", code):
        n = m.group(1)
        yield "waits for one fewer", line[:m.start(1)] + (str(int(n) + 1) if n.isdigit() else f"({n}) + 1") + line[m.end(1):]
    yield from changed_arguments(line, code)
    for m in re.finditer(r" (<=|>=|<|>) ", code):
        other = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}[m.group(1)]
        if "for (" not in code[:m.start()] or code.count(";", 0, m.start()) == 1:
            yield f"{m.group(1)} became {other}", line[:m.start(1)] + other + line[m.end(1):]
    for m in re.finditer(r"__shfl_xor_sync\(~0u, (\w+(?:\[\w+\])?), (\d)\)", code):
        yield "shuffle left out", line[:m.start()] + m.group(1) + line[m.end():]
    for m in re.finditer(r" \^ ", code):
        yield "^ became +", line[:m.start()] + " + " + line[m.end():]


def mutants(path):
    """Each with "new", its line: where that is nothing but a wait or a deleted call, the line behind it follows, to tell it from others."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    for i, line in enumerate(lines):
        if line.lstrip().startswith(("#", "//")):
            continue
        for what, changed in changes(line):
            new = changed.split("//")[0].strip()
            new = f"{new} {lines[i + 1].strip()}" if re.fullmatch(r"/\* .* \*/;|\w+_wait<.*>\(\);", new) else changed.strip()
            yield {"path": path, "line": i + 1, "what": what, "text": "\n".join(lines[:i] + [changed] + lines[i + 1:]), "new": new}


def run_limited(program, limit):
    """Its exit status (below 0: of a signal), its first line and its seconds; limit and result count the processor's, not those of a machine that does other things."""
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        run = subprocess.Popen(["sh", "-c", 'ulimit -S -t "$1"; exec "$0"', program, str(limit)], stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return run.returncode, out.readline().strip(), used.ru_utime + used.ru_stime


def build_and_run(kernel, text, command, build, limit):
    """('' when the test passes with this text as the kernel's, else what went wrong; its seconds). command: the test, and the form that it is built for."""
    with tempfile.TemporaryDirectory(dir=build) as work:
        where, program = os.path.join(work, "kernels/cuda"), os.path.join(work, "test")
        shutil.copytree("kernels/cuda", where)
        with open(os.path.join(where, kernel), "w", encoding="utf-8") as f:
            f.write(text)
        compile_line = ["g++", "-std=c++17", "-O1", "-g", "-w", "-fsanitize=thread,bounds", "-fsanitize-undefined-trap-on-error",
                        "-fstack-reuse=none", "-ffp-contract=off", f"-I{work}", "-Isrc", "-I.", "-Ikernels/hostcuda"]
        compile_line += [f"-DFORM={form}" for form in command[1:]] + ["-x", "c++", "-c", f"tests/hostcuda/{command[0]}.cu", "-o", program + ".o"]
        if subprocess.run(compile_line, capture_output=True).returncode:
            return "build", 0
        objects = sorted(glob.glob(f"{build}/kernels/hostcuda/*.o"))
        subprocess.run(["g++", "-o", program, program + ".o"] + objects + [f"{build}/libimf.a", "-lboost_context", "-lbacktrace"], check=True, capture_output=True)
        code, first, seconds = run_limited(program, limit)
        if code == -signal.SIGXCPU:
            return "time", seconds
        return "" if code == 0 else first.replace(work + "/", "")[:100] or "exit", seconds


def equivalents():
    """(kernel, line) of the mutants that change nothing."""
    with open("tests/hostcuda/equivalent.txt", encoding="utf-8") as f:
        return {tuple(line.rsplit("  # ", 1)[0].split(": ", 1)) for line in f if "  # " in line}


def usual_time(command, build):
    """Seconds of the test with nothing broken."""
    with open("kernels/cuda/ptx.cuh", encoding="utf-8") as f:
        how, seconds = build_and_run("ptx.cuh", f.read(), command, build, 600)
    if how:
        sys.exit(f"{' '.join(command)} fails with nothing broken: {how}")
    return seconds


def run_all(work, build, jobs):
    """For each kernel of work the lines of its mutants; jobs at a time, whichever kernel they are of."""
    commands = sorted({tuple(command) for _, command, found, _ in work if found})
    with ThreadPoolExecutor(jobs) as pool:
        usual = dict(zip(commands, pool.map(lambda command: usual_time(command, build), commands)))

        def run_one(command, m):
            how, _ = build_and_run(os.path.basename(m["path"]), m["text"], command, build, int(PATIENCE * usual[tuple(command)]) + 2)
            line = f"{'killed' if how else 'LIVES'} {m['path']}:{m['line']}: {m['what']}: {m['new']}{' (' + how + ')' if how else ''}"
            print(line, flush=True)
            return line

        running = [[pool.submit(run_one, command, m) for m in found] for _, command, found, _ in work]
        return [[r.result() for r in of] for of in running]


def update_table(path, kernel, summary, lines):
    """The summary of every kernel comes first, then its mutants, in the order of names."""
    parts = {}
    with open(path, encoding="utf-8") as f:
        for line in f.read().splitlines():
            name = re.match(r"(?:(?:killed|LIVES) kernels/cuda/)?(\w+\.cuh)", line).group(1)
            parts.setdefault(name, []).append(line)
    parts[kernel] = [summary] + lines
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join([parts[k][0] for k in sorted(parts)] + [line for k in sorted(parts) for line in parts[k][1:]]) + "\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default="build")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=0)
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--list", action="store_true")
    p.add_argument("--table")
    p.add_argument("pairs", nargs="+")
    a = p.parse_args()
    if a.table and (a.count or a.list):
        p.error("a table wants all mutants of a kernel")
    same = equivalents()
    work = []  # (kernel, the test's command, mutants that change something, how many do not)
    for kernel, *command in (pair.split(":") for pair in a.pairs):
        every = list(mutants(f"kernels/cuda/{kernel}"))
        found = [m for m in every if (kernel, m["new"]) not in same]
        stale = {line for k, line in same if k == kernel} - {m["new"] for m in every}
        if stale:
            sys.exit(f"tests/hostcuda/equivalent.txt: no mutant of {kernel} is " + "; ".join(sorted(stale)))
        work.append((kernel, command, found, len(every) - len(found)))
    if a.count:
        all_of = [m for _, _, found, _ in work for m in found]
        chosen = random.Random(a.seed).sample(range(len(all_of)), min(a.count, len(all_of)))
        keep = {id(all_of[i]) for i in chosen}
        work = [(kernel, command, [m for m in found if id(m) in keep], equal) for kernel, command, found, equal in work]
    if a.list:
        for m in (m for _, _, found, _ in work for m in found):
            print(f"{m['path']}:{m['line']}: {m['what']}: {m['new']}")
        return
    killed, total = 0, 0
    for (kernel, _, found, equal), lines in zip(work, run_all(work, a.build, a.jobs)):
        n = sum(line.startswith("killed") for line in lines)
        killed, total = killed + n, total + len(found)
        if a.table:
            update_table(a.table, kernel, f"{kernel}, {time.strftime('%F', time.gmtime())}: {n} of {len(found)} killed, {equal} more change no result", lines)
    print(f"{killed} of {total} mutants killed")
    sys.exit(killed < 0.95 * total)


main()
