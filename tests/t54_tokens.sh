#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf tokens: the small tokenizers against the hashes of tools/reference/tokenizer.py, back to text, and bad input.
set -u
imf=$1/imf tiny=tests/data/text/tiny
out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT
fail() { echo "t54_tokens: $1"; exit 1; }

for kind in llama odd; do  # t33_tokenizer and t34_chat have them all
    python3 tools/reference/tokenizer.py check "$imf" "$tiny/$kind" "$tiny/tiny-$kind.hash" >"$out/log" 2>&1 ||
        { cat "$out/log"; fail "$kind differs"; }
done

cat >"$out/in" <<'JSON'
{"text": "Hé <|im_end|> 12"}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
{"messages": [{"role": "user", "content": "Hi"}]}
JSON
"$imf" tokens "$tiny/smollm2" --template imf-demo --decode <"$out/in" >"$out/ids" 2>"$out/err" || fail "exit $?: $(cat "$out/err")"
python3 - "$out/ids" <<'PY' || fail "ids, mask or tokens are wrong"
import json, sys
a, b, c = map(json.loads, open(sys.argv[1], encoding="utf-8"))
assert "".join(a["tokens"]) == "Hé <|im_end|> 12" and "mask" not in a, a
assert b["mask"][-1] == 1 and b["mask"][0] == 0 and len(b["mask"]) == len(b["ids"]), b
assert b["ids"][:len(c["ids"])] == c["ids"] and b["mask"].index(1) == len(c["ids"]) and "mask" not in c, (b, c)
assert "".join(b["tokens"]) == "<|bos|><|user|>Hi<|assistant|>Yo<|end|>", b
PY
head -n 1 "$out/ids" >"$out/one"
[ "$("$imf" tokens "$tiny/smollm2" <"$out/one")" = '{"text":"Hé <|im_end|> 12"}' ] || fail "ids do not come back as text"
[ "$("$imf" tokens "$tiny/smollm2" --skip-special <"$out/one")" = '{"text":"Hé  12"}' ] || fail "--skip-special"

# expect CODE WORDS INPUT ARGS...: exit code and words of the one message
expect() {
    code=$1 words=$2 input=$3; shift 3
    printf '%s\n' "$input" | "$imf" tokens "$@" >/dev/null 2>"$out/err"
    got=$?
    [ "$got" = "$code" ] || fail "$words: exit $got instead of $code"
    grep -qF -- "$words" "$out/err" || fail "no '$words' in: $(cat "$out/err")"
}
expect 64 "wants a model directory" ''
expect 64 "'--nonsense'" '' "$tiny/qwen" --nonsense
expect 66 "nowhere/tokenizer.json" '' "$out/nowhere"
expect 65 "standard input:1" '{"text": ' "$tiny/qwen"
expect 65 "standard input:1" '{"words": "x"}' "$tiny/qwen"
expect 65 "ids[1]" '{"ids": [1, "x"]}' "$tiny/qwen"
expect 65 "template:" '{"messages": [{"role": "user", "content": "Hi"}]}' "$tiny/qwen"
expect 65 "choices: auto, smollm2" '' "$tiny/qwen" --template nonsense
expect 65 "'judge'" '{"messages": [{"role": "judge", "content": "Hi"}]}' "$tiny/qwen" --template qwen2.5
mkdir "$out/bad" && sed 's/"type":"BPE"/"type":"WordPiece"/' "$tiny/qwen/tokenizer.json" >"$out/bad/tokenizer.json"
expect 65 "bad/tokenizer.json: model: type" '' "$out/bad"
