# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/decode/sampling.json: 20 positions with logits, parameters, and what vLLM's filters keep (torch).

The filters are a transcription of vLLM's apply_penalties and apply_top_k_top_p (v1/sample/ops), which cannot be installed
without a GPU: sort ascending (stable), mask `< k-th value`, mask `cumsum <= 1 - p` except the last. They run in float32, as
vLLM's do, and again in float64; a position is used only where both keep the same set, so that the set does not hang on
rounding. Logits are multiples of 1/16 at half of the positions: ties at every threshold.

usage: python tools/reference/sampling.py > tests/data/decode/sampling.json
"""
import json
import torch

V = 256
CASES = [  # temperature, top_k, top_p, repetition_penalty
    (1.0, 0, 1.0, 1.0), (0.7, 0, 0.8, 1.05), (0.8, 0, 0.95, 1.0), (1.0, 40, 1.0, 1.0), (0.6, 0, 0.9, 1.0),
    (1.3, 20, 0.9, 1.3), (0.5, 5, 1.0, 1.1), (2.0, 0, 0.5, 1.0), (1.0, 1, 1.0, 1.0), (0.9, 100, 0.99, 1.0)]


def filters(logits, seen, temperature, k, p, penalty):
    x = torch.where(seen & (logits > 0), logits / penalty, torch.where(seen, logits * penalty, logits)) / temperature
    order_x, order = x.sort(stable=True)
    if k:
        order_x = order_x.masked_fill(order_x < order_x[V - k], -float("inf"))
    if p < 1:
        drop = order_x.softmax(-1).cumsum(-1) <= 1 - p
        drop[-1] = False
        order_x = order_x.masked_fill(drop, -float("inf"))
    return torch.full_like(x, -float("inf")).scatter(0, order, order_x).softmax(-1)


def main():
    generator, out = torch.Generator().manual_seed(7), []
    for i in range(20):
        temperature, k, p, penalty = CASES[i % 10]
        while True:
            logits = torch.randn(V, generator=generator) * 3
            if i < 10:
                logits = (logits * 16).round() / 16
            seen = torch.rand(V, generator=generator) < 0.2
            prob = filters(logits, seen, temperature, k, p, penalty)
            exact = filters(logits.double(), seen, temperature, k, p, penalty)
            if torch.equal(prob > 0, exact > 0):
                break
        out.append({"temperature": temperature, "top_k": k, "top_p": p, "repetition_penalty": penalty,
                    "logits": logits.tolist(), "seen": [j for j in range(V) if seen[j]],
                    "kept": [j for j in range(V) if prob[j] > 0], "prob": [round(q, 12) for q in exact.tolist() if q > 0]})
    print("[" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in out) + "]")


main()
