#!/bin/bash
# Usage: run.sh SHARDS WORKERS STORE RESULTS IMAGES [options of musc-run]
# SHARDS shards by WORKERS processes at a time with GNU parallel, then the merge. The cores are shared out among the workers; on
# a machine with cards each worker takes its own. A shard that ends with 1 is tried three times.
set -euo pipefail
[ $# -ge 5 ] || { sed -n 2p "$0" >&2; exit 2; }
shards=$1 workers=$2 store=$3 results=$4
shift 4
threads=$(($(nproc) / workers))
[ "$threads" -ge 1 ] || threads=1
cards=$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU || true)
shard() { # the slot from 1, the shard, how many, cards, then musc-run's words
    local slot=$1 shard=$2 shards=$3 cards=$4 code
    shift 4
    [ "$cards" = 0 ] || export CUDA_VISIBLE_DEVICES=$(((slot - 1) % cards))
    for _ in 1 2 3; do
        musc-run inspect "$@" --shard "$shard/$shards"
        code=$?
        [ "$code" = 1 ] || return "$code"
    done
    return "$code"
}
export -f shard
# Quoted for the shell that parallel gives them to.
words=$(printf '%q ' "$@" --store "$store" --threads "$threads")
seq 0 $((shards - 1)) | parallel --jobs "$workers" --halt now,fail=1 "shard {%} {} $shards $cards $words"
exec musc-run merge "$store" --output-dir "$results"
