# SPDX-License-Identifier: Apache-2.0
# law1_parts.sh: what law1.sh and chaos.sh share. Wants $build and $work (a directory of the test's own).
. tests/lib/mpi.sh
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_WAIT_POLICY=passive  # more threads than cores
recipe=tests/data/law1.yaml

shuffle() {  # lines of $1 in an order that depends on $2; 0: as they are
    [ "$2" != 0 ] || { cat "$1"; return; }
    awk -v s="$2" 'BEGIN { srand(s) } { print rand() "\t" $0 }' "$1" | sort -n | cut -f2-
}

digests() {  # RUN PREFIX: one line a result
    for set in prompts samples scores verdicts sft_rows pairs dropped dropped_prompts dropped_samples eval/target eval/sft \
               eval/dpo eval/target.scores eval/sft.scores eval/dpo.scores; do
        echo "$2 $set $(sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' "$1/$set/done")"
    done
    for file in sft/model/model.safetensors dpo/model/model.safetensors dpo/ref_logps.bin metrics.jsonl pair.json \
                export/sft.jsonl export/dpo.jsonl eval/summary.json; do
        echo "$2 $file $(sha256sum <"$1/$file" | cut -c1-32)"
    done
}

pipeline() {  # DTYPE RANKS THREADS MICRO_ROWS NODES RUN PROMPTS: becomes mpirun
    exec env IMF_NODES="$5" mpirun -n "$2" "$build/imf" run "$recipe" --quiet --set run_dir="$6" --set "prompts[0].path=$7" \
        --set dtype="$1" --set threads="$3" --set sft.micro_rows="$4" --set dpo.micro_rows="$4"
}
