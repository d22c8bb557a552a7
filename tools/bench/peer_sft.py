#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch + transformers, supervised fine-tuning: seconds of a step of packed rows (forward, backward, clipping, AdamW).

usage: peer_sft.py MODEL STEP.json DTYPE THREADS STEPS

STEP.json (written by bench_cpu.py): {"rows": [{"ids", "pos", "labels"}], ...}, one step. bfloat16 is autocast with fp32 master
weights. Attention is torch's scaled_dot_product_attention; the examples of a row do not see each other (their positions begin
anew), as in imf. One row at a time; torch's fused AdamW. One step warms up. Prints one JSON line.
"""
import contextlib
import json
import resource
import sys
import time

import torch
import transformers

model_dir, path, dtype, threads, steps = sys.argv[1:]
torch.set_num_threads(int(threads))
step = json.load(open(path))
rows = [{k: torch.tensor([r[k]]) for k in ("ids", "pos", "labels")} for r in step["rows"]]
targets = sum(int((r["labels"] != -100).sum()) for r in rows)
tokens = sum(r["ids"].numel() for r in rows)

model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
model.train()
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
cast = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def one_step():
    total = 0.0
    for r in rows:
        with cast:
            out = model(input_ids=r["ids"], position_ids=r["pos"], use_cache=False)
            loss = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), r["labels"][0, 1:], reduction="sum") / targets
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total


loss = one_step()
began = time.monotonic()
for _ in range(int(steps)):
    one_step()
seconds = time.monotonic() - began
print(json.dumps({"what": "sft", "peer": f"torch {torch.__version__}", "dtype": dtype, "threads": int(threads),
                  "value": tokens * int(steps) / seconds, "unit": "tokens/s", "tokens": tokens * int(steps), "seconds": seconds,
                  "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "loss": loss}))
