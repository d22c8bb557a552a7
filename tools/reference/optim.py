#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/train/optim.txt: learning rates of transformers' schedules and a run of torch.optim.AdamW with clipping.

Format: lines "schedule KIND LR RATIO TOTAL STEP VALUE"; then "adamw N STEPS LR B1 B2 EPS DECAY CLIP", N starting weights,
and for every step N gradients, the norm before clipping and N weights, each as the hexadecimal bits of a float32.
"""
import math
import struct
import sys

import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

torch.set_num_threads(1)


def bits(x):
    return struct.pack(">f", float(x)).hex()


def schedules(out):
    makers = {
        "cosine": lambda o, w, t: get_cosine_schedule_with_warmup(o, w, t),
        "linear": lambda o, w, t: get_linear_schedule_with_warmup(o, w, t),
        "constant": lambda o, w, t: get_constant_schedule_with_warmup(o, w),
    }
    for kind, make in makers.items():
        for lr, ratio, total in ((2e-5, 0.1, 50), (1e-3, 0.0, 7), (8e-7, 0.1, 501), (1e-3, 0.5, 3)):
            opt = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
            s = make(opt, math.ceil(ratio * total), total)
            for step in range(total):
                if step < 12 or step % 37 == 0 or step > total - 4:
                    out.write(f"schedule {kind} {lr!r} {ratio!r} {total} {step} {opt.param_groups[0]['lr']!r}\n")
                opt.step()
                s.step()


def adamw(out, n, steps, lr, b1, b2, eps, decay, clip):
    torch.manual_seed(n)
    w = torch.nn.Parameter(torch.randn(n))
    opt = torch.optim.AdamW([w], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay, foreach=False)
    out.write(f"adamw {n} {steps} {lr!r} {b1!r} {b2!r} {eps!r} {decay!r} {clip!r}\n")
    out.write(" ".join(bits(x) for x in w.detach()) + "\n")
    for step in range(steps):
        w.grad = torch.randn(n) * (0.3 if step % 3 else 0.01)
        out.write(" ".join(bits(x) for x in w.grad) + "\n")
        norm = torch.nn.utils.clip_grad_norm_([w], clip)
        opt.step()
        out.write(bits(norm) + "\n" + " ".join(bits(x) for x in w.detach()) + "\n")


with open(sys.argv[1] if len(sys.argv) > 1 else "tests/data/train/optim.txt", "w") as f:
    schedules(f)
    adamw(f, 37, 12, 1e-3, 0.9, 0.999, 1e-8, 0.0, 1.0)
    adamw(f, 64, 12, 2e-2, 0.8, 0.95, 1e-4, 0.1, 0.5)
