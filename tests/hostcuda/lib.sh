# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests of this directory. Makes $dir, a directory that goes when the test ends.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }
find_nvcc() { command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null; }

# assemble FILE [ARCHS]: nvcc's code of its kernels for ARCHS (sm_80 and sm_90a), every register kept, nothing that ptxas doubts; what ptxas said of the
# last one is in $dir/ptxas. Without nvcc the test ends here as skipped, and says so.
assemble() {
    nvcc=$(find_nvcc) || { echo "nvcc is not here: the device form was not assembled"; exit 77; }
    for arch in ${2:-80 90a}; do
        "$nvcc" -std=c++17 -I. -gencode=arch=compute_$arch,code=sm_$arch -Xptxas -v -cubin -x cu -o "$dir/cubin" "$1" >"$dir/ptxas" 2>&1 ||
            fail "sm_$arch: $(cat "$dir/ptxas")"
        ! grep -E '\(C75[0-9]*\)' "$dir/ptxas" || fail "sm_$arch: ptxas doubts a kernel"
        ! grep -E '[1-9][0-9]* bytes (stack|spill)' "$dir/ptxas" || fail "sm_$arch: registers are spilled"
    done
}

# recipe PROMPTS TOKENS: on stdout, a bf16 recipe whose source answers so many prompts greedily, with at most so many tokens.
recipe() {
    cat <<END
seed: 5
dtype: bfloat16
prompts: [{path: input/demo/prompts.jsonl}]
select: {max_prompts: $1}
sources: [{name: abacus, path: input/demo/abacus, temperature: 0, n: 1, max_new_tokens: $2}]
target: {path: input/demo/novice}
END
}

# Forty pairs of answers in $dir/rows.jsonl; sft takes the chosen ones.
pairs() {
    awk 'BEGIN { for (i = 0; i < 40; i++)
    printf "{\"prompt\":\"what is %d plus %d?\",\"chosen\":\"the sum of %d and %d is %d\",\"rejected\":\"no idea %d\"}\n", i, i % 7, i, i % 7, i + i % 7, i % 5 }' >"$dir/rows.jsonl"
}

# follows STAGE [RUN]: the losses of 20 steps in $dir/RUN (gpu) are those of $dir/cpu (bf16), the mean within 1e-2 and each within twice the largest distance
# between $dir/cpu and $dir/fp32; DPO begins at fp32's ln 2.
follows() {
    python3 - "$dir" "$1" "${2:-gpu}" <<'END' || fail "$1, ${2:-gpu}: the curve leaves the CPU's"
import json, sys
def losses(run):
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{run}/metrics.jsonl")]
    return [r["loss"] for r in rows if r["stage"] == sys.argv[2] and "loss" in r]
fp32, cpu, gpu = map(losses, ("fp32", "cpu", sys.argv[3]))
assert len(fp32) == len(cpu) == len(gpu) == 20
ours, rounding = [g - c for g, c in zip(gpu, cpu)], [abs(c - f) for c, f in zip(cpu, fp32)]
print(sys.argv[2], "mean", sum(ours) / 20, "largest", max(map(abs, ours)), "of the CPU's rounding", max(rounding))
assert gpu[-1] < gpu[0] and abs(sum(ours)) / 20 <= 1e-2 and max(map(abs, ours)) <= 2 * max(rounding)
assert sys.argv[2] == "sft" or gpu[0] == cpu[0] == 0.693147182, (gpu[0], cpu[0])
END
}

# answers N: $dir/own.jsonl for samples.path, an answer to each of the demo's first N prompts.
answers() {
    awk -v n="$1" -v OFS= 'NR <= n { sub(/^{/, ""); print "{\"source\":\"s\",\"answer\":\"", substr("the answer of this is a number, which I give here as " NR, 1, 8 + 4 * NR), "\",", $0 }' \
        input/demo/prompts.jsonl >"$dir/own.jsonl"
}

# near_scores FP32 CPU GPU: scores, objectives and gates of run GPU are those of run CPU (bf16), in the mean as near as these are to run FP32, and
# each within twice the largest distance between those.
near_scores() {
    python3 - "$dir" "$@" <<'END' || fail "the scores leave the CPU's"
import glob, json, sys
def read(run):
    rows = [json.loads(line) for path in glob.glob(f"{sys.argv[1]}/{run}/scores/*.jsonl") for line in open(path)]
    return {r["data"]["sample"]: ([r["data"]["score"]], r["data"]["objectives"], r["data"]["gate"]) for r in rows if "data" in r}
fp32, cpu, gpu = map(read, sys.argv[2:5])
assert len(gpu) >= 12 and fp32.keys() == cpu.keys() == gpu.keys()
def rms(a, b, part):
    d = [(x - y) ** 2 for i in a for x, y in zip(a[i][part], b[i][part])]
    return (sum(d) / len(d)) ** 0.5, max(d) ** 0.5
for part, name in enumerate(("scores", "objectives", "gates")):
    ours, rounding = rms(gpu, cpu, part), rms(cpu, fp32, part)
    print(name, "off the CPU's by (rms, most)", ours, "which are off fp32's by", rounding)
    assert ours[0] <= rounding[0] and ours[1] <= 2 * rounding[1]
END
}
