#!/usr/bin/env python3
"""Reference data for tests/t31_tokenizer.c and t32_chat.c, made with `tokenizers` and `transformers`.

  tokenizer.py corpus OUT              the mixed text alone: documents as "BYTES\\nTEXT" one behind the other
  tokenizer.py fixture OUT_DIR         a small own tokenizer (trained here) and its ids
  tokenizer.py ids TOKENIZER.json OUT  ids of the corpus by `tokenizers`: int32 count and ids per document
  tokenizer.py hashes NAME=TOKENIZER.json ... OUT   one line a document: name, number, ids, FNV-1a of the ids

The corpus is generated from a fixed seed: nobody's text, about 1.05 MB, so that everyone makes the same one.
"""
import json, os, random, struct, sys, unicodedata

EN = ("the of and to in is that for it was on with as by at from this which or are be have not but they can one all more "
      "time people way water first day number great right think place old little world after house again change study "
      "don't I'm you're we've she'll he'd THE SHOULDN'T it'S isn\u2019t naive caf\u00e9 r\u00e9sum\u00e9 co-operate e.g. U.S.A. "
      "Mr. Dr. internationalization antidisestablishmentarianism tokenization Supercalifragilistic").split()
ZH = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从"
CODE = ["def f(x, *args, **kw):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {\n\tp[i] = i;\n}\n", "<div class=\"a\">&nbsp;</div>\n",
        "SELECT * FROM t WHERE a>=10 AND b!='x';\n", "#include <stdio.h>\n", "    if a == b:\n        pass\n    else:\n        raise ValueError(f\"{a!r}\")\n",
        "const x = () => ({...y, z: [1,2,3]});\n", "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }\n", "\t\t\tx->y->z = NULL;\r\n", "$\\frac{1}{2}\\sum_{i=1}^{n} x_i^2$\n"]
OTHER = ["Привет, как дела?", "مرحبا بالعالم", "こんにちは、世界！", "안녕하세요 세계", "Γειά σου Κόσμε", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก",
         "Tiếng Việt có dấu", "İstanbul'da ığdır", "straße ẞ ﬁ ﬂ ﬃ", "Ǆ ǅ ǆ ª º ⁵ ₅ Ⅷ ½ ٣ ४ 五", "ſ'ſ 'ſt 'Ll 'RE 'vE", "ʼn ǰ ΐ և"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "1️⃣", "🤖🤖🤖", "☃", "\U0001F9FF"]
SPACE = [" ", "  ", "   ", "\n", "\n\n", "\n \n", "\r\n", "\r", "\t", "\t ", " \t\n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u180e", "\u0085", "\u2028",
         "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\ufeff", "\u205f", "\u1680", " \n\n  \n"]
MARKS = ["e\u0301", "a\u0308\u0304", "n\u0303", "o\u0302\u0323", "\u1100\u1161\u11a8", "\u0915\u093c", "\u212b", "\u2126", "\uf900", "\u0344", "q\u0323\u0307",
         "\u0301\u0301\u0301", "A\u030a", "\u1e9b\u0323", "\u0f73", "\u2adc", "\ufb1d", "\U0001d15e", "Z\u0351\u0343\u0315", "\uac00\u11a8"]
MARKUP = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>",
          "<|im_start", "im_end|>", "<|", "|>", "[INST]", "[/INST]", "<s>", "</s>", "<|user|>", "<|end|>", "<|reserved_special_token_17|>", "<file_sep>", "<repo_name>"]
URLS = ["https://example.org/a/b?q=1&r=%20#frag", "user.name+tag@mail.example.co.uk", "C:\\Program Files\\x\\y.txt", "/usr/local/lib/libx.so.1.2.3", "192.168.0.1:8080",
        "2026-01-02T03:04:05Z", "+49 (0)30 123-456", "$1,234,567.89", "3.14159e-10", "0xDEADBEEF", "1/2", "v2.0.1-rc3"]


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
    if k < 0.94: return "".join(chr(r.choice(PLANES)()) for _ in range(r.randint(1, 6)))
    if k < 0.96: return chr(r.randint(0, 0x1F))
    return r.choice(EN).capitalize()


R = random.Random(20240726)


def code_point(low, high):
    def pick():
        while True:
            c = R.randint(low, high)
            # assigned since Unicode 12 at the latest is not known here; unassigned ones are the same to everyone's \\p
            if not 0xD800 <= c <= 0xDFFF and unicodedata.ucd_3_2_0.category(chr(c)) != "Cn": return c
    return pick


PLANES = [code_point(0x20, 0x24F), code_point(0x250, 0x1FFF), code_point(0x2000, 0x2FFF), code_point(0x3000, 0xFFFD), code_point(0x10000, 0x1D7FF)]


def document(r, size):
    out, n = [], 0
    while n < size:
        out.append(word(r))
        out.append(r.choice(SPACE) if r.random() < 0.2 else " " if r.random() < 0.9 else "")
        n += len(out[-2].encode()) + len(out[-1])
    return "".join(out)


def corpus():
    docs = ["", " ", "\n", "a", "  a", "a  ", "\x00", "é", "e\u0301", "😀", "'", "'s", "12345678901234567890", "x" * 39, "x" * 40, "x" * 41,
            "ab" * 20000, " " * 5000, "\n" * 3000, "a " * 2000, " \n" * 2000, "7" * 5000, "=" * 5000, "哈" * 3000, "\u0301" * 30, "é" * 2000,
            "".join(chr(c) for c in range(0x20, 0x250)), "".join(chr(c) + " " for c in range(0x300, 0x370))]
    for m in MARKUP: docs += [m, m + m, " " + m + " ", "a" + m + "b", m[:-1], "\n" + m + "\n"]
    total = sum(len(d.encode()) for d in docs)
    while total < 1_050_000:
        docs.append(document(R, R.choice([20, 200, 2000, 8000])))
        total += len(docs[-1].encode())
    return docs


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for b in struct.pack("<i", i): h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    what = sys.argv[1]
    if what == "corpus":
        with open(sys.argv[2], "wb") as f:
            for d in corpus(): f.write(b"%d\n" % len(d.encode()) + d.encode())
    elif what == "ids":
        from tokenizers import Tokenizer
        t = Tokenizer.from_file(sys.argv[2])
        if len(sys.argv) > 4: t.encode_special_tokens = True
        with open(sys.argv[3], "wb") as f:
            for d in corpus():
                ids = t.encode(d, add_special_tokens=False).ids
                f.write(struct.pack("<%di" % (len(ids) + 1), len(ids), *ids))


if __name__ == "__main__":
    main()
