#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reference data of the tokenizer and the chat renderer, and the comparison of `imf tokens` with it.

  tokenizer.py tiny OUT_DIR              makes the small own tokenizers, the small corpus and conversations of tests/data/text
  tokenizer.py expect OUT NAME=DIR[:TEMPLATE.jinja] ...
                                         ids by `tokenizers` and apply_chat_template, as hashes: OUT/NAME.hash
  tokenizer.py check IMF DIR FILE.hash   runs `IMF tokens DIR` on the same texts and compares; standard library only
  tokenizer.py lossy                     hash of bytes.decode(errors="replace") over 111,150 byte strings (t33_tokenizer.c)

The 1 MB corpus and the 200 conversations are generated from fixed seeds, so that they need not be stored. A hash file holds
lines of a name and 8 hex digits a document: FNV-1a (64 bits, folded) over the ids as little-endian int32.
"""
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

EN = ("the of and to in is that for it was on with as by at from this which or are be have not but they can one all more "
      "time people way water first day number great right think place old little world after house again change study "
      "don't I'm you're we've she'll he'd THE SHOULDN'T it'S isn\u2019t naive caf\u00e9 r\u00e9sum\u00e9 co-operate e.g. "
      "U.S.A. Mr. Dr. internationalization antidisestablishmentarianism tokenization Supercalifragilistic").split()
ZH = ("的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然"
      "作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从")
CODE = ["def f(x, *args, **kw):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {\n\tp[i] = i;\n}\n",
        "<div class=\"a\">&nbsp;</div>\n", "SELECT * FROM t WHERE a>=10 AND b!='x';\n", "#include <stdio.h>\n",
        "    if a == b:\n        pass\n    else:\n        raise ValueError(f\"{a!r}\")\n", "const x = () => ({...y, z: [1,2,3]});\n",
        "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }\n", "\t\t\tx->y->z = NULL;\r\n",
        "$\\frac{1}{2}\\sum_{i=1}^{n} x_i^2$\n"]
OTHER = ["Привет, как дела?", "مرحبا بالعالم", "こんにちは、世界！", "안녕하세요 세계", "Γειά σου Κόσμε", "שלום עולם", "नमस्ते दुनिया",
         "สวัสดีชาวโลก", "Tiếng Việt có dấu", "İstanbul'da ığdır", "straße ẞ ﬁ ﬂ ﬃ", "Ǆ ǅ ǆ ª º ⁵ ₅ Ⅷ ½ ٣ ४ 五", "ſ'ſ 'ſt 'Ll 'RE 'vE",
         "ʼn ǰ ΐ և"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "1️⃣", "🤖🤖🤖", "☃", "\U0001F9FF"]
SPACE = [" ", "  ", "   ", "\n", "\n\n", "\n \n", "\r\n", "\r", "\t", "\t ", " \t\n ", "\u00a0", "\u2003", "\u3000", "\u200b",
         "\u180e", "\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\ufeff", "\u205f", "\u1680",
         " \n\n  \n"]
MARKS = ["e\u0301", "a\u0308\u0304", "n\u0303", "o\u0302\u0323", "\u1100\u1161\u11a8", "\u0915\u093c", "\u212b", "\u2126", "\uf900",
         "\u0344", "q\u0323\u0307", "\u0301\u0301\u0301", "A\u030a", "\u1e9b\u0323", "\u0f73", "\u2adc", "\ufb1d", "\U0001d15e",
         "Z\u0351\u0343\u0315", "\uac00\u11a8"]
MARKUP = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<tool_call>",
          "</tool_call>", "<|fim_prefix|>", "<|im_start", "im_end|>", "<|", "|>", "[INST]", "[/INST]", "<s>", "</s>", "<|user|>",
          "<|end|>", "<|reserved_special_token_17|>", "<file_sep>", "<repo_name>"]
URLS = ["https://example.org/a/b?q=1&r=%20#frag", "user.name+tag@mail.example.co.uk", "C:\\Program Files\\x\\y.txt",
        "/usr/local/lib/libx.so.1.2.3", "192.168.0.1:8080", "2026-01-02T03:04:05Z", "+49 (0)30 123-456", "$1,234,567.89",
        "3.14159e-10", "0xDEADBEEF", "1/2", "v2.0.1-rc3"]
PLANES = [(0x20, 0x24F), (0x250, 0x1FFF), (0x2000, 0x2FFF), (0x3000, 0xFFFD), (0x10000, 0x1D7FF)]


def code_point(r):
    """A character that every Unicode version since 3.2 has, so that no library's age matters."""
    low, high = r.choice(PLANES)
    while True:
        c = r.randint(low, high)
        if not 0xD800 <= c <= 0xDFFF and unicodedata.ucd_3_2_0.category(chr(c)) != "Cn":
            return chr(c)


def word(r):
    k = r.random()
    if k < 0.45: return r.choice(EN)
    if k < 0.55: return "".join(r.choice(ZH) for _ in range(r.randint(1, 12)))
    if k < 0.61: return r.choice(CODE)
    if k < 0.67: return str(r.randint(0, 10 ** r.randint(1, 12)))
    if k < 0.71: return r.choice(URLS)
    if k < 0.76: return r.choice(OTHER)
    if k < 0.80: return r.choice(EMOJI) * r.randint(1, 2)
    if k < 0.84: return r.choice(MARKS)
    if k < 0.87: return r.choice(MARKUP)
    if k < 0.90: return "".join(r.choice("!?.,;:'\"()[]{}<>@#$%^&*-_=+/\\|~`") for _ in range(r.randint(1, 8)))
    if k < 0.94: return "".join(code_point(r) for _ in range(r.randint(1, 6)))
    if k < 0.96: return chr(r.randint(1, 0x1F))
    return r.choice(EN).capitalize()


def text(r, size):
    out, n = [], 0
    while n < size:
        out.append(word(r) + (r.choice(SPACE) if r.random() < 0.2 else " " if r.random() < 0.9 else ""))
        n += len(out[-1].encode())
    return "".join(out)


def corpus(size=1_050_000):
    r = random.Random(20240726)
    docs = ["", " ", "\n", "a", "  a", "a  ", "\x01", "é", "e\u0301", "😀", "'", "'s", "12345678901234567890", "x" * 39, "x" * 40,
            "x" * 41, "".join(chr(c) for c in range(0x20, 0x250)), "".join(chr(c) + " " for c in range(0x300, 0x370)),
            "\u0301" * 30]
    for m in MARKUP: docs += [m, m + m, " " + m + " ", "a" + m + "b", m[:-1], "\n" + m + "\n"]
    if size > 500_000:
        docs += ["ab" * 20000, " " * 5000, "\n" * 3000, "a " * 2000, " \n" * 2000, "7" * 5000, "=" * 5000, "哈" * 3000, "é" * 2000]
    total = sum(len(d.encode()) for d in docs)
    while total < size:
        docs.append(text(r, r.choice([20, 200, 2000, 8000] if size > 500_000 else [20, 200, 1000])))
        total += len(docs[-1].encode())
    return docs


def message_text(r):
    k = r.random()
    if k < 0.08: return ""
    if k < 0.14: return "".join(r.choice(SPACE) for _ in range(r.randint(1, 4)))
    if k < 0.24: return r.choice(SPACE) + " ".join(r.choice(EN) for _ in range(r.randint(1, 6))) + r.choice(SPACE)
    if k < 0.30: return r.choice(MARKUP) + " ".join(r.choice(EN) for _ in range(3)) + r.choice(MARKUP)
    if k < 0.70: return " ".join(r.choice(EN) for _ in range(r.randint(1, 20))).capitalize() + r.choice([".", "?", "!", ":\n", ""])
    return text(r, r.randint(5, 150))


def conversation(r):
    m = []
    if r.random() < 0.4: m.append("system")
    for _ in range(r.choice([1, 1, 1, 2, 3, 4])): m += ["user", "assistant"]
    k = r.random()
    if k < 0.2: m.pop()                                            # ends with the user
    elif k < 0.3: m.insert(r.randint(0, len(m)), "user")           # twice in a row
    elif k < 0.4: m.insert(r.randint(0, len(m)), "system")         # a system message anywhere
    elif k < 0.45: m = ["assistant"] + m
    return [{"role": role, "content": message_text(r)} for role in m]


def conversations():
    r = random.Random(31415926)
    return [conversation(r) for _ in range(200)]


def fnv(ids):
    h = 0xCBF29CE484222325
    for b in struct.pack("<%di" % len(ids), *ids):
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%08x" % ((h ^ h >> 32) & 0xFFFFFFFF)


def fingerprint(docs):
    return fnv([ord(c) for d in docs for c in json.dumps(d, ensure_ascii=False) + "\n"])


# --- made with `tokenizers` and `transformers` ---------------------------------------------------------------------------

REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]


def tiny_tokenizer(kind, docs):
    """300 merges over the byte alphabet; three kinds of pre-tokenizer, and one with everything that is seldom used."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    t = Tokenizer(models.BPE())
    by_level = pre_tokenizers.ByteLevel(add_prefix_space=kind == "odd", use_regex=kind in ("smollm2", "odd"))
    split = lambda p, how="isolated", invert=False: pre_tokenizers.Split(Regex(p), how, invert)
    first = {"smollm2": [pre_tokenizers.Digits(True)], "qwen": [split(REGEX % "")], "llama": [split(REGEX % "{1,3}")],
             "odd": [pre_tokenizers.Split("--", "merged_with_previous"), pre_tokenizers.Split("_", "merged_with_next"), pre_tokenizers.Digits(False),
                     split(r"[#%]", "contiguous"), split(r"~", "removed"), split(r"[^@]+", "isolated", True)]}[kind]
    t.pre_tokenizer = pre_tokenizers.Sequence(first + [by_level])
    t.decoder = decoders.ByteLevel()
    if kind in ("qwen", "odd"): t.normalizer = normalizers.NFC()
    t.train_from_iterator(docs, trainers.BpeTrainer(vocab_size=256 + len(SPECIAL) + 300, special_tokens=SPECIAL, show_progress=False,
                                                    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if kind == "qwen": t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    if kind == "odd":
        t.add_tokens([AddedToken("é", normalized=True), AddedToken("water", single_word=True), AddedToken("<s>", lstrip=True, rstrip=True),
                      AddedToken("im_end|>", rstrip=True), AddedToken("<|im_st", normalized=False)])
    state = json.loads(t.to_str())
    state["model"]["ignore_merges"] = kind == "llama"
    return state


def make_tiny(out):
    small, r = corpus(60_000), random.Random(1)
    for kind in ("smollm2", "qwen", "llama", "odd"):
        os.makedirs(f"{out}/{kind}", exist_ok=True)
        state = tiny_tokenizer(kind, small + ["system user assistant You are a helpful assistant Today Date: 2024"] * 20)
        if kind == "odd": state["model"]["merges"] = [" ".join(m) for m in state["model"]["merges"]]
        with open(f"{out}/{kind}/tokenizer.json", "w", encoding="utf-8") as f: json.dump(state, f, ensure_ascii=False, separators=(",", ":"))
    with open(f"{out}/corpus.txt", "wb") as f:
        for d in small: f.write(b"%d\n" % len(d.encode()) + d.encode())
    with open(f"{out}/chats.jsonl", "w", encoding="utf-8") as f:
        for c in conversations(): f.write(json.dumps({"messages": c}, ensure_ascii=False) + "\n")


BOS = {"llama": "<|begin_of_text|>", "imf": "<|bos|>"}


def expect(out, name, directory, templates, docs):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    t = Tokenizer.from_file(f"{directory}/tokenizer.json")
    lines = ["corpus " + fingerprint(docs), "text " + "".join(fnv(t.encode(d, add_special_tokens=False).ids) for d in docs)]
    t.encode_special_tokens = True
    lines.append("plain " + "".join(fnv(t.encode(d, add_special_tokens=False).ids) for d in docs))
    chats = conversations()
    lines.append("chats " + fingerprint(chats))
    for label, jinja in templates:
        if os.path.exists(f"{directory}/tokenizer_config.json"): tok = AutoTokenizer.from_pretrained(directory)
        else: tok = PreTrainedTokenizerFast(tokenizer_file=f"{directory}/tokenizer.json", bos_token=BOS.get(label[:5].rstrip("3").rstrip("-")))
        if jinja: tok.chat_template = open(jinja, encoding="utf-8", newline="").read()
        ids = lambda c, g: tok.apply_chat_template(c, tokenize=True, add_generation_prompt=g, return_dict=False, date_string="26 Jul 2024")
        lines.append(f"chat:{label} " + "".join(fnv(ids(c, False)) + fnv(ids(c, True)) for c in chats))
    with open(f"{out}/{name}.hash", "w") as f: f.write("\n".join(lines) + "\n")


# --- comparison ----------------------------------------------------------------------------------------------------------

def run_imf(imf, directory, options, rows):
    data = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()
    done = subprocess.run([imf, "tokens", directory, *options], input=data, stdout=subprocess.PIPE)
    if done.returncode: sys.exit(f"imf tokens {directory}: exit {done.returncode}")
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()]


def compare(what, wanted, rows, got):
    wrong = [i for i, ids in enumerate(got) if fnv(ids) != wanted[8 * i:8 * i + 8]]
    if len(got) * 8 != len(wanted) or wrong:
        first = f"; first: {json.dumps(rows[wrong[0]], ensure_ascii=False)[:200]}" if wrong else ""
        sys.exit(f"{what}: {len(wrong)} of {len(got)} differ{first}")
    print(f"{what}: {len(got)} of {len(got)} equal, {sum(map(len, got))} ids")


def check(imf, directory, path):
    want = dict(line.split(" ", 1) for line in open(path).read().splitlines())
    docs, chats = corpus(60_000) if os.path.basename(path).startswith("tiny-") else corpus(), conversations()
    if want["corpus"] != fingerprint(docs) or want["chats"] != fingerprint(chats):
        sys.exit("this Python generates other texts than those that the hashes are of")
    rows = [{"text": d} for d in docs]
    compare("text", want["text"], rows, run_imf(imf, directory, [], rows))
    compare("plain", want["plain"], rows, run_imf(imf, directory, ["--plain"], rows))
    rows = [{"messages": c, "add_generation_prompt": g} for c in chats for g in (False, True)]
    for key in [k for k in want if k.startswith("chat:")]:
        compare(key, want[key], rows, run_imf(imf, directory, ["--chat", "--template", key[5:]], rows))


EDGES = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF4, 0xF5]


def lossy():
    """All strings of 1 to 4 bytes from the edges of UTF-8's ranges, decoded and encoded again, one behind the other."""
    h = 0xCBF29CE484222325
    for n in range(1, 5):
        for k in range(len(EDGES) ** n):
            s = bytes(EDGES[k // len(EDGES) ** i % len(EDGES)] for i in range(n))
            for b in s.decode(errors="replace").encode(): h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    print("%016x" % h)


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "lossy": lossy()
    elif what == "tiny": make_tiny(sys.argv[2])
    elif what == "check": check(*sys.argv[2:])
    elif what == "expect":
        docs = corpus()
        for spec in sys.argv[3:]:
            name, directory, *templates = spec.replace("=", ":", 1).split(":")
            if name.startswith("tiny-"): docs = corpus(60_000)
            pairs = [tuple((t + "@").split("@")[:2]) for t in templates]
            expect(sys.argv[2], name, directory, pairs, docs)
    else: sys.exit(__doc__)


if __name__ == "__main__":
    main()
