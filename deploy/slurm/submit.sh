#!/bin/bash
# Usage: submit.sh SHARDS STORE RESULTS IMAGES [options of musc-run]
# An array of SHARDS tasks, and a merge that runs when all of them have ended well. What sbatch is to know (partition, memory,
# --gres=gpu:1, --cpus-per-task, --signal=B:TERM@60) goes into SBATCH_SHARD and SBATCH_MERGE. Prints the number of the merge job.
set -euo pipefail
[ $# -ge 4 ] || { sed -n 2p "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
shards=$1 store=$2 results=$3
shift 3
# Words of several options each.
read -ra shard_options <<<"${SBATCH_SHARD:-}"
read -ra merge_options <<<"${SBATCH_MERGE:-}"
array=$(sbatch --parsable --array="0-$((shards - 1))" "${shard_options[@]}" "$here/shard.sbatch" "$store" "$@")
sbatch --parsable --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes "${merge_options[@]}" \
    "$here/merge.sbatch" "$store" "$results"
