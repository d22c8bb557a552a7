# SPDX-License-Identifier: Apache-2.0
"""How wrong is torch's bf16 attention? Writes tests/data/ops/attention_bf16.txt, which tests/hostcuda/accuracy.cu reads.

    python3 tools/reference/attention_bf16.py > tests/data/ops/attention_bf16.txt        (torch, numpy)

Inputs are those of the test: a linear congruential generator, rounded to bf16. A line a case:
    D T N K softcap window segments (start,len,prefix,pos0;...) | error of o, dq, dk, dv
the error is the root of the mean square of (torch bf16 - fp64) over the root of the mean square of fp64. Without a soft-cap torch runs
scaled_dot_product_attention, with one the products, tanh and softmax of an eager model; GQA by repeated heads, as transformers does it.
"""
import numpy as np
import torch

PAIR = [(0, 70, -1, 0), (70, 33, 0, 70), (103, 65, 0, 70), (172, 20, -1, 0)]
LONG = [(0, 256, -1, 0)]
CASES = [(64, 200, 4, 2, 0, 0, PAIR), (128, 200, 2, 1, 0, 0, PAIR), (256, 200, 2, 2, 0, 0, PAIR), (128, 200, 2, 2, 5, 0, PAIR), (64, 200, 2, 1, 0, 40, PAIR),
         (128, 256, 2, 1, 0, 0, LONG)]
SEED = 31


class Random:
    def __init__(self, state):
        self.state = state

    def bf16(self, *shape):
        n = int(np.prod(shape))
        out = np.empty(n, np.float32)
        for i in range(n):
            self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
            out[i] = (np.float32(self.state >> 8) / np.float32(1 << 23) - np.float32(1)) * np.float32(1.7)
        return torch.from_numpy(out).reshape(shape).to(torch.bfloat16)


def visible(T, window, segments):
    """[T][T]: does a query see a key? Tokens of no segment see themselves, so that softmax is defined; they are left out below."""
    mask = torch.zeros(T, T, dtype=torch.bool)
    used = torch.zeros(T, dtype=torch.bool)
    for start, length, prefix, pos0 in segments:
        used[start:start + length] = True
        parts = [(start, length, pos0)] + ([(segments[prefix][0], segments[prefix][1], segments[prefix][3])] if prefix >= 0 else [])
        for i in range(length):
            for at, n, first in parts:
                for j in range(n):
                    mask[start + i, at + j] = first + j <= pos0 + i and (window <= 0 or first + j > pos0 + i - window)
    mask |= torch.diag(~used)
    return mask, used


def attention(q, k, v, mask, softcap):
    """[T][heads][D] each."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if softcap == 0:
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, None])
    else:
        s = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
        s = (softcap * torch.tanh(s / softcap)).masked_fill(~mask, torch.finfo(s.dtype).min)
        o = torch.matmul(torch.softmax(s, -1, dtype=torch.float64 if s.dtype == torch.float64 else torch.float32).to(q.dtype), v)
    return o[0].transpose(0, 1)


def run(q, k, v, dout, mask, softcap, dtype):
    q, k, v = (x.to(dtype).detach().requires_grad_() for x in (q, k, v))
    o = attention(q, k, v, mask, softcap)
    o.backward(dout.to(dtype))
    return [x.double().detach() for x in (o, q.grad, k.grad, v.grad)]


def main():
    for D, T, N, K, softcap, window, segments in CASES:
        r = Random(SEED)
        q, k, v, dout = r.bf16(T, N, D), r.bf16(T, K, D), r.bf16(T, K, D), r.bf16(T, N, D)
        mask, used = visible(T, window, segments)
        dout = dout * used[:, None, None]
        got, want = (run(q, k, v, dout, mask, softcap, t) for t in (torch.bfloat16, torch.float64))
        errors = [((g - w)[used].square().mean().sqrt() / w[used].square().mean().sqrt()).item() for g, w in zip(got, want)]
        print(D, T, N, K, softcap, window, ";".join(",".join(map(str, s)) for s in segments), "|", *("%.6f" % e for e in errors))


main()
