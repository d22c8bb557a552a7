#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# imf logprobs agrees with imf tokens (the same ids from messages, from messages with an answer, and as ids), and with imf generate
# (the log-probability of a greedy answer).
set -u
imf=$1/imf model=input/demo/abacus
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$1"; exit 1; }

cat >"$dir/rows" <<'END'
{"messages": [{"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "It is 5."}]}
{"messages": [{"role": "user", "content": "What is 2 plus 3?"}], "answer": "It is 5."}
END
"$imf" tokens $model <"$dir/rows" >"$dir/tokens" 2>"$dir/err" || fail "tokens: $(cat "$dir/err")"
python3 -c 'import json, sys
print(json.dumps({"ids": json.loads(next(open(sys.argv[1])))["ids"]}))' "$dir/tokens" >>"$dir/rows"
"$imf" logprobs $model --top 2 <"$dir/rows" >"$dir/logprobs" 2>"$dir/err" || fail "logprobs: $(cat "$dir/err")"
echo '{"messages": [{"role": "user", "content": "What is 2 plus 3?"}]}' >"$dir/ask"
"$imf" generate $model --greedy --max-new-tokens 20 <"$dir/ask" >"$dir/answer" 2>"$dir/err" || fail "generate: $(cat "$dir/err")"
python3 - "$dir" <<'END' >"$dir/more" || fail "rows do not agree: $(cat "$dir/logprobs")"
import json, sys
read = lambda name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}")]
tokens, rows, answer = read("tokens"), read("logprobs"), read("answer")[0]
a, b, c = rows
assert a == b and a["ids"] == c["ids"] == tokens[0]["ids"] and a["logprobs"] == c["logprobs"]
assert a["logprobs"][0] is None and all(x < 0 for x in a["logprobs"][1:]) and len(a["top"]) == 2
assert a["answer"] == tokens[0]["mask"].index(1)
assert abs(a["sum"] - sum(a["logprobs"][a["answer"]:])) < 1e-4 > abs(c["sum"] - sum(c["logprobs"][1:]))
prompt = a["ids"][:a["answer"]]
assert answer["finish"] == "stop"
print(json.dumps({"ids": prompt + answer["ids"] + [a["ids"][-1]]}))
END
"$imf" logprobs $model <"$dir/more" >"$dir/greedy" 2>"$dir/err" || fail "logprobs of the answer: $(cat "$dir/err")"
python3 - "$dir" <<'END' || fail "the greedy answer has another log-probability: $(cat "$dir/greedy" "$dir/answer")"
import json, sys
row, answer = (json.loads(open(f"{sys.argv[1]}/{name}").read()) for name in ("greedy", "answer"))
assert abs(sum(row["logprobs"][-len(answer["ids"]) - 1:]) - answer["logp"]) < 1e-4
END
exit 0
