# SPDX-License-Identifier: Apache-2.0
"""The same rows, pairs and prompts for imf and for its peers.

Texts are rendered and tokenised once, by `imf tokens`; peers get ids. imf gets the texts and renders them itself, with the same
code.
"""
import json
import os
import struct
import subprocess

ROLE = {"human": "user", "gpt": "assistant", "system": "system"}


def lines(rows):
    return "".join(json.dumps(r) + "\n" for r in rows)


def write(path, value):
    with open(path, "w") as f:
        f.write(value if isinstance(value, str) else json.dumps(value))
    return path


def tokens(imf, model, messages):
    """[(ids, mask)] of conversations; mask is None where the last message is not the assistant's."""
    run = subprocess.run([imf, "tokens", model], input=lines({"messages": m} for m in messages), text=True, capture_output=True)
    if run.returncode:
        raise SystemExit(f"imf tokens: exit {run.returncode}: {run.stderr}")
    out = [json.loads(line) for line in run.stdout.splitlines()]
    return [(r["ids"], r.get("mask")) for r in out]


# --- SFT: the examples of one step, which fill `rows` rows of `width` tokens --------------------------------------------------


def pack(lengths, width):
    """First-fit decreasing, as imf packs a step (ties: first come). Returns lists of indices, one a row."""
    rows, room = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [r for r in range(len(rows)) if room[r] >= lengths[i]]
        if not fits:
            rows.append([])
            room.append(width)
        r = fits[0] if fits else len(rows) - 1
        rows[r].append(i)
        room[r] -= lengths[i]
    return rows


def alpaca_messages(r):
    user = r["instruction"] + ("\n" + r["input"] if r["input"] else "")
    return [{"role": "user", "content": user}, {"role": "assistant", "content": r["output"]}]


def packed_row(examples):
    row = {"ids": [], "pos": [], "labels": []}
    for ids, mask in examples:
        row["ids"] += ids
        row["pos"] += range(len(ids))
        row["labels"] += [t if m else -100 for t, m in zip(ids, mask)]
    return row


def sft_step(imf, model, source, rows, width, out):
    """Takes examples in the file's order as long as they still fit. Returns {"examples", "tokens", "targets", "attention"}:
    attention = sum over examples of n (n + 1) / 2, the pairs of a causal mask."""
    data = json.load(open(source))[:400]
    rendered = tokens(imf, model, [alpaca_messages(r) for r in data])
    chosen = []
    for i, (ids, _) in enumerate(rendered):
        trial = chosen + [i]
        if len(pack([len(rendered[k][0]) for k in trial], width)) <= rows:
            chosen = trial
        if sum(len(rendered[k][0]) for k in chosen) > 0.985 * rows * width:
            break
    step = [[rendered[chosen[k]] for k in row] for row in pack([len(rendered[k][0]) for k in chosen], width)]
    write(out + ".step.json", {"rows": [packed_row(r) for r in step]})
    write(out + ".rows.json", [data[i] for i in chosen])
    sizes = [len(rendered[i][0]) for i in chosen]
    return {"examples": len(chosen), "tokens": sum(sizes), "targets": sum(sum(rendered[i][1]) for i in chosen),
            "attention": sum(n * (n + 1) // 2 for n in sizes)}


# --- preference pairs --------------------------------------------------------------------------------------------------------


def conversation(r):
    return [{"role": ROLE[m["from"]], "content": m["value"]} for m in r["conversations"]]


def dpo_pairs(imf, model, source, count, longest, out):
    """The first `count` pairs whose prompt leaves room for an answer, cut to `longest` at the end (keep_start), with lengths of
    answers that no other pair has (imf's order of training is found by them)."""
    data, pairs, texts = json.load(open(source)), [], []
    prompts = tokens(imf, model, [conversation(r) for r in data])
    both = tokens(imf, model, [conversation(r) + [{"role": "assistant", "content": r[k]["value"]}] for r in data
                               for k in ("chosen", "rejected")])
    for i, r in enumerate(data):
        at = len(prompts[i][0])
        chosen, rejected = both[2 * i][0][at:longest], both[2 * i + 1][0][at:longest]
        pair = {"prompt_ids": prompts[i][0], "chosen_ids": chosen, "rejected_ids": rejected}
        if at > longest * 7 // 8 or chosen == rejected or any(lengths(p) == lengths(pair) for p in pairs):
            continue
        pairs.append(pair)
        texts.append(r)
        if len(pairs) == count:
            break
    write(out + ".pairs.json", texts)
    return pairs


def lengths(pair):
    return len(pair["chosen_ids"]), len(pair["rejected_ids"])


def pair_tokens(pair):
    """Real tokens: the prompt once for each answer."""
    return 2 * len(pair["prompt_ids"]) + sum(lengths(pair))


def philox(counter, key):
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & low, (p0 >> 32) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def imf_order(seed, epoch, n):
    """src/train/dataset.c, dataset_order."""
    low, stream, out = 0xFFFFFFFF, 102 << 32 | epoch, list(range(n))
    for i in range(n - 1, 0, -1):
        x = philox([i & low, i >> 32, stream & low, stream >> 32], [seed & low, seed >> 32])
        j = ((x[0] << 32 | x[1]) * (i + 1)) >> 64
        out[i], out[j] = out[j], out[i]
    return out


def in_training_order(pairs, refs, seed):
    """refs: imf's ref_logps.bin (src/train/refs.h), which holds the pairs in order of id."""
    raw = open(refs, "rb").read()
    found = [struct.unpack_from("<ii", raw, 48 + 40 * i + 32) for i in range((len(raw) - 48) // 40)]
    by_lengths = {lengths(p): p for p in pairs}
    if len(found) != len(pairs) or any(f not in by_lengths for f in found):
        raise SystemExit(f"{refs} does not hold the pairs that were rendered here")
    return [by_lengths[found[i]] for i in imf_order(seed, 0, len(pairs))]


# --- prompts and long rows --------------------------------------------------------------------------------------------------


def sample_prompts(imf, model, source, count, length, out):
    """The `count` opening questions whose rendered length is nearest to `length`. Returns their ids."""
    texts = sorted({r["conversations"][0]["value"] for r in json.load(open(source))})
    rendered = tokens(imf, model, [[{"role": "user", "content": t}] for t in texts])
    best = sorted(sorted(range(len(texts)), key=lambda i: abs(len(rendered[i][0]) - length))[:count])
    write(out + ".prompts.jsonl", lines({"prompt": texts[i]} for i in best))
    return [rendered[i][0] for i in best]


SPARE = 16


def long_rows(imf, model, source, count, length, out):
    """Conversations of `length` tokens or a few less, as samples of one source. Returns the number of tokens of each. A reward
    model ends them with tokens of its own: there is room for SPARE."""
    length -= SPARE
    words = " ".join(r["output"] for r in json.load(open(source))).split()
    rows, sizes = [], []
    for i in range(count):
        own = words[i * length:(i + 1) * length]
        answers = [" ".join(own[:n]) for n in range(length // 3, len(own) + 1)]
        low, high = 0, len(answers) - 1  # the longest that fits
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(imf, model, i, answers[middle], length)[0] else (low, middle - 1)
        rows.append({"prompt": question(i), "source": "bench", "answer": answers[low]})
        sizes.append(fits(imf, model, i, answers[low], length)[1])
    write(out + ".long.jsonl", lines(rows))
    return sizes


def question(i):
    return f"Tell me everything about number {i}."


def fits(imf, model, i, answer, length):
    ids, _ = tokens(imf, model, [[{"role": "user", "content": question(i)}, {"role": "assistant", "content": answer}]])[0]
    return len(ids) <= length, len(ids)


def config(model):
    c = json.load(open(os.path.join(model, "config.json")))
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim") or c["hidden_size"] // heads
    h, f, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    block = h * width * (heads + 2 * kv) + heads * width * h + 3 * h * f
    head = c["vocab_size"] * h
    return {"blocks": layers * block, "head": head, "attention": layers * heads * width,
            "parameters": layers * block + head * (1 if c.get("tie_word_embeddings") else 2)}


def sft_flops(model, step):
    """Of one step, forward and backward: 6 for every weight and token; the head only where there is a target; causal attention
    (q k and p v, 2 each, three times) over the keys that a token sees within its own example."""
    c = config(model)
    return 6.0 * c["blocks"] * step["tokens"] + 6.0 * c["head"] * step["targets"] + 12.0 * c["attention"] * step["attention"]
