# SPDX-License-Identifier: Apache-2.0
"""Measured against planned memory: runs a stage in several layouts and prints a row of docs/plan.md for each.

    python3 tools/plan_measure.py --imf build/imf --work DIR --model DIR --data ROWS --stage sft [--layouts 1,2] [--dtypes float32,bfloat16]
        [--set KEY=VALUE ...]

ROWS: of sft and dpo their data; of sample prompts; of score (prompt, source, answer).

Measured: the peak of the sum over ranks of their proportional set sizes (/proc/PID/smaps_rollup), so that memory which ranks share
counts once, read every 50 ms until the program ends. Planned: what `imf plan` says of a node. stdout: | stage | format | ranks |
planned | measured | difference |, in MiB; exit 1 when a difference is larger than --tolerance percent.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench"))
from ours import MPI, descendants, pss_mb  # noqa: E402


def peak(argv):
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **MPI})
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(map(pss_mb, descendants(process.pid))))
        time.sleep(0.05)
    text = process.stderr.read()
    if process.returncode:
        sys.exit(f"{' '.join(argv)}: exit {process.returncode}\n{text}")
    return most


def planned(a, recipe, ranks, sets):
    argv = [a.imf, "plan", recipe, "--ranks", str(ranks), "--stage", a.stage, "--speed", "1000"] + sets
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  (?:all|while loading) +([0-9.]+) MiB +([0-9.]+) MiB", text, re.M)
    return max(float(node) for _, node in found)


def recipe_of(a, dtype):
    recipe = {"run_dir": f"{a.work}/run", "dtype": dtype, "seed": 42, "target": {"path": a.model}}
    if a.stage in ("sft", "dpo"):
        recipe[a.stage] = {"data": a.data}
    elif a.stage == "score":
        recipe.update(samples={"path": a.data}, reward={"path": a.model})
    else:
        recipe.update(prompts=[{"path": a.data, "kind": "if"}], sources=[{"path": a.model}])
    path = f"{a.work}/recipe.yaml"
    with open(path, "w", encoding="ascii") as f:
        json.dump(recipe, f)  # JSON is YAML
    return path


def row(a, dtype, ranks):
    shutil.rmtree(f"{a.work}/run", ignore_errors=True)
    sets = [word for text in a.set for word in ("--set", text)]
    recipe = recipe_of(a, dtype)
    mpirun = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    if a.stage == "sample":
        subprocess.run([a.imf, "select", recipe, "--quiet"] + sets, check=True, stderr=subprocess.DEVNULL)
    want = planned(a, recipe, ranks, sets)
    got = peak(mpirun + [a.imf, a.stage, recipe, "--quiet"] + sets)
    shutil.rmtree(f"{a.work}/run", ignore_errors=True)
    print(f"| {a.stage} | {dtype} | {ranks} | {want:.0f} | {got:.0f} | {100 * (want / got - 1):+.1f} % |", flush=True)
    return abs(want / got - 1) * 100


def main():
    p = argparse.ArgumentParser()
    for name in ("imf", "work", "model", "data", "stage"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--layouts", default="1,2")
    p.add_argument("--dtypes", default="float32,bfloat16")
    p.add_argument("--tolerance", type=float, default=5)
    p.add_argument("--set", action="append", default=[])
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    worst = max(row(a, dtype, int(ranks)) for dtype in a.dtypes.split(",") for ranks in a.layouts.split(","))
    sys.exit(worst > a.tolerance)


main()
