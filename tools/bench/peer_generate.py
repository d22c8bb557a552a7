#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""transformers' generate: tokens a second of n samples of every prompt, all in one batch.

usage: peer_generate.py MODEL PROMPTS.json DTYPE THREADS N NEW

PROMPTS.json (written by bench_cpu.py): {"prompts": [[id ...] ...], "temperature", "top_p"}. Weights and activations are in
DTYPE. A sample ends at the model's stop token; tokens behind it do not count. A short run warms up. Prints one JSON line.
"""
import json
import resource
import sys
import time

import torch
import transformers

model_dir, path, dtype, threads, n, new = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(42)
job = json.load(open(path))
model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
model.eval()
stops = model.generation_config.eos_token_id
stops = stops if isinstance(stops, list) else [stops]
width = max(map(len, job["prompts"]))
ids = torch.tensor([[stops[0]] * (width - len(p)) + p for p in job["prompts"]])
mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in job["prompts"]])


def generate(samples, length):
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=True, temperature=job["temperature"],
                             top_p=job["top_p"], top_k=0, num_return_sequences=samples, max_new_tokens=length,
                             pad_token_id=stops[0])
    return out[:, width:].tolist()


def real(sample):
    """Tokens up to the stop token, with it."""
    ends = [i for i, t in enumerate(sample) if t in stops]
    return ends[0] + 1 if ends else len(sample)


generate(1, 2)
began = time.monotonic()
samples = generate(int(n), int(new))
seconds = time.monotonic() - began
tokens = sum(map(real, samples))
print(json.dumps({"what": "sample", "peer": f"transformers {transformers.__version__}", "dtype": dtype, "threads": int(threads),
                  "value": tokens / seconds, "unit": "tokens/s", "tokens": tokens, "seconds": seconds,
                  "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
