#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's batched-bench: sampling a batch, one sequence alone, prefill.

usage: peer_llama.py BIN_DIR MODEL.gguf DTYPE THREADS sample PROMPT NEW PROMPTS N
       peer_llama.py BIN_DIR MODEL.gguf DTYPE THREADS one    PROMPT NEW
       peer_llama.py BIN_DIR MODEL.gguf DTYPE THREADS score  LENGTH ROWS

sample: PROMPTS * N sequences behind prompts of PROMPT tokens. batched-bench computes the prompt of every sequence; here it
counts only once for each of the PROMPTS prompts, as if llama.cpp shared it: seconds = prefill / N + decode.
one: decode only. score: prefill only, logits of the last token alone. Nothing is drawn: ids are random, no sequence ends early.
The key/value cache is in fp16, llama.cpp's default. Prints one JSON line.
"""
import json
import resource
import subprocess
import sys

bench, model, dtype, threads, what = sys.argv[1:6]
a, b, prompts, n = (list(map(int, sys.argv[6:])) + [1, 1])[:4]


def run(prompt, new, sequences):
    cells = sequences * (prompt + new)
    out = subprocess.run([f"{bench}/llama-batched-bench", "-m", model, "-c", str(-(-cells // 256) * 256 + 256), "-b", "2048",
                          "-ub", "512", "-npp", str(prompt), "-ntg", str(new), "-npl", str(sequences), "-t", threads,
                          "-tb", threads, "--output-format", "jsonl"], text=True, capture_output=True)
    lines = [line for line in out.stdout.splitlines() if line.startswith("{")]
    if out.returncode or not lines:
        sys.exit(f"llama-batched-bench: exit {out.returncode}: {(out.stdout + out.stderr)[-2000:]}")
    return json.loads(lines[-1])


if what == "sample":
    r = run(a, b, prompts * n)
    tokens, seconds = b * prompts * n, r["t_pp"] / n + r["t_tg"]
elif what == "one":
    r = run(a, b, 1)
    tokens, seconds = b, r["t_tg"]
else:
    r = run(a, 1, b)
    tokens, seconds = a * b, r["t_pp"]
print(json.dumps({"what": what, "peer": "llama.cpp", "dtype": dtype, "threads": int(threads), "value": tokens / seconds,
                  "unit": "tokens/s", "tokens": tokens, "seconds": seconds,
                  "rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "prefill": r["speed_pp"],
                  "decode": r["speed_tg"]}))
