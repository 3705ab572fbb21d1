#!/bin/bash
# Usage: run.sh SHARDS STORE RESULTS IMAGES [options of musc-run]
# One task a shard on the workers of a running HyperQueue server (hq server start; hq worker start), then the merge.
# MUSC_CPUS is the number of cores a task [default: 1].
set -euo pipefail
[ $# -ge 4 ] || { sed -n 2p "$0" >&2; exit 2; }
shards=$1 store=$2 results=$3 cpus=${MUSC_CPUS:-1}
shift 3
hq submit --wait --array "0-$((shards - 1))" --cpus "$cpus" --crash-limit 3 --env "MUSC_SHARDS=$shards" \
    --stdout none --stderr "musc-%{JOB_ID}-%{TASK_ID}.log" \
    -- musc-run inspect "$@" --shard auto --store "$store" --threads "$cpus"
exec musc-run merge "$store" --output-dir "$results"
