#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/ops/torch.json: small inputs and what PyTorch (2.15, CPU, float32) makes of them.

usage: ops.py > tests/data/ops/torch.json
"""
import json

import torch
import torch.nn.functional as F

torch.manual_seed(3)
torch.set_num_threads(1)
T, N, K, D, H, V = 5, 2, 1, 8, 16, 24
out = {"T": T, "N": N, "K": K, "D": D, "H": H, "V": V}


def keep(name, tensor):
    out[name] = [float(x) for x in tensor.detach().reshape(-1)]


def leaf(name, *shape):
    x = torch.randn(*shape, requires_grad=True)
    keep(name, x)
    return x


# attention, causal, grouped heads; rows are [token][head][D]
q, k, v = leaf("q", T, N, D), leaf("k", T, K, D), leaf("v", T, K, D)
dout = torch.randn(T, N, D)
keep("dout", dout)
heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
o = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
(o * dout).sum().backward()
for name, x in (("o", o), ("dq", q.grad), ("dk", k.grad), ("dv", v.grad)):
    keep(name, x)

# rmsnorm and swiglu
x, w, g, u = leaf("x", T, H), leaf("norm_w", H), leaf("g", T, H), leaf("u", T, H)
dy = torch.randn(T, H)
keep("dy", dy)
y = F.rms_norm(x, (H,), w, 1e-5)
(y * dy).sum().backward()
s = F.silu(g) * u
(s * dy).sum().backward()
for name, t in (("norm_y", y), ("norm_dx", x.grad), ("norm_dw", w.grad), ("swiglu_y", s), ("dg", g.grad), ("du", u.grad)):
    keep(name, t)

# rope, half-split, positions 0.. step 3, base 10000
position = torch.arange(T) * 3
angle = position[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
cos, sin = angle.cos()[:, None], angle.sin()[:, None]
lo, hi = q[..., : D // 2], q[..., D // 2 :]
keep("rope_table", torch.cat([angle.cos(), angle.sin()], -1))
keep("rope_q", torch.cat([lo * cos - hi * sin, hi * cos + lo * sin], -1))

# log-probabilities with their gradients
hidden, head, coef = leaf("hidden", T, H), leaf("head", V, H), torch.randn(T)
target = torch.randint(0, V, (T,))
out["target"] = target.tolist()
keep("coef", coef)
logp = torch.log_softmax(hidden @ head.T, -1)[torch.arange(T), target]
(logp * coef).sum().backward()
for name, t in (("logp", logp), ("dhidden", hidden.grad), ("dhead", head.grad)):
    keep(name, t)

# three steps of AdamW
p = torch.nn.Parameter(torch.randn(H))
keep("adamw_before", p)
optimizer = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
for step in range(3):
    p.grad = torch.randn(H)
    keep(f"adamw_grad{step}", p.grad)
    optimizer.step()
keep("adamw_after", p)

# geglu of the same inputs, with gelu's tanh form
a, b = (t.detach().clone().requires_grad_() for t in (g, u))
e = F.gelu(a, approximate="tanh") * b
(e * dy).sum().backward()
for name, t in (("geglu_y", e), ("geglu_dg", a.grad), ("geglu_du", b.grad)):
    keep(name, t)
print(json.dumps({k: [float(f"{x:.9g}") for x in v] if isinstance(v, list) else v for k, v in out.items()}))
