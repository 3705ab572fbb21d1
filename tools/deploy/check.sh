#!/usr/bin/env bash
# The recipes in deploy/, with the engines themselves where they can be had: Slurm's controller and daemon, HyperQueue's server and
# workers, GNU parallel, an image that buildah makes and runs; Kubernetes' files against its schema. All come to the bytes of one run.
# Needs root and Debian's packages. The programs are those in target/debug, or in the folder named.
set -euo pipefail
cd "$(dirname "$0")/../.."
binaries=$(cd "${1:-target/debug}" && pwd)
recipes=$PWD/deploy tools=$PWD/tools/deploy venv=$PWD/.tools/deploy
missing=()
for name in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge parallel:parallel buildah:buildah; do
    command -v "${name%%:*}" >/dev/null || missing+=("${name#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ ! -x "$venv/bin/kubernetes-validate" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q hyperqueue==0.27.0 kubernetes-validate==1.37.0
fi

dir=$(mktemp -d)
trap '"$tools/slurm.sh" stop "$dir/slurm"; rm -rf "$dir"' EXIT
export PATH=$binaries:$PATH CUDA_VISIBLE_DEVICES=
cd "$dir"
musc-run demo --img-resize 70 --output-dir made --report False --quiet >/dev/null
mv made/demo/images photos
words=(photos --references 6 --img-resize 140 --vis False --report False --quiet)
musc-run "${words[@]}" --output-dir whole >/dev/null 2>&1
same() { # what was merged into a folder is the whole run
    cmp "$1"/*/photos/scores.csv whole/*/photos/scores.csv
    cmp "$1"/*/photos/defects.json whole/*/photos/defects.json
    echo "$1: the bytes of one run"
}
until_quiet() { # until Slurm has no job left, at most a minute
    for _ in $(seq 300); do
        [ -n "$(squeue -h)" ] || return 0
        sleep 0.2
    done
    squeue >&2
    cat musc-*.log >&2
    return 1
}
state() { scontrol show job "$1" | grep -oE "$2=[^ ]*" | head -1; }
expect() { [ "$1" = "$2" ] || { echo "found $1, expected $2" >&2; cat musc-*.log >&2; exit 1; }; }

echo "-- GNU parallel: 5 shards by 2 workers"
"$recipes/parallel/run.sh" 5 2 parallel-store parallel "${words[@]}" >parallel.log 2>&1 || { cat parallel.log >&2; exit 1; }
same parallel

echo "-- HyperQueue: 3 tasks on 2 workers"
"$venv/bin/python" "$tools/hq_tasks.py" 3 "$dir/hq-store" "${words[@]}" >hq.log 2>&1 || { cat hq.log >&2; exit 1; }
musc-run merge hq-store --output-dir hyperqueue --quiet >/dev/null 2>&1
same hyperqueue

echo "-- Slurm: an array of 4 on a node of 2 cores"
mkdir slurm
"$tools/slurm.sh" start "$dir/slurm"
export SLURM_CONF=$dir/slurm/slurm.conf
merge=$("$recipes/slurm/submit.sh" 4 "$dir/slurm-store" "$dir/slurm-results" "${words[@]}")
until_quiet
expect "$(state "$merge" JobState)" JobState=COMPLETED
same slurm-results
# Bad data: the shard that meets it ends with 2, is not tried again, and nothing is merged.
cp -r photos bad && echo "no image" >bad/zz.png
merge=$("$recipes/slurm/submit.sh" 4 "$dir/bad-store" "$dir/bad-results" bad "${words[@]:1}")
until_quiet
expect "$(state "$merge" JobState)" JobState=CANCELLED
expect "$(grep -lE 'zz.png' musc-shard-*.log | wc -l)" 1
[ ! -e bad-results ] || { echo "a result of bad data" >&2; exit 1; }
# A shard that is told to stop ends with 1, and is queued again.
merge=$(SBATCH_SHARD="--signal=B:TERM@60" "$recipes/slurm/submit.sh" 1 "$dir/stop-store" "$dir/stop-results" \
    photos --references 6 --img-resize 448 --vis False --report False)
shard=$((merge - 1))
for _ in $(seq 300); do
    ! grep -q features "musc-shard-${shard}_0.log" 2>/dev/null || break
    sleep 0.1
done
# The signal goes to the batch script, which passes it on.
scancel --batch --signal=TERM "$shard"
for _ in $(seq 300); do
    [ "$(state "$shard" Restarts)" != Restarts=1 ] || break
    sleep 0.1
done
expect "$(state "$shard" Restarts)" Restarts=1
grep -q "interrupted; no unfinished file" "musc-shard-${shard}_0.log"
# Slurm lets two minutes pass; nobody has to wait for them here. But a job that begins again within the second in which it was
# stopped is refused by slurmd ("Job credential revoked") and counts as failed.
sleep 2
until scontrol update JobId="$shard" StartTime=now 2>/dev/null; do sleep 0.2; done
until_quiet
expect "$(state "$merge" JobState)" JobState=COMPLETED
echo "stopped, queued again, merged"

echo "-- Kubernetes: the files against its schema, the image"
"$venv/bin/kubernetes-validate" --strict --quiet "$recipes"/kubernetes/*.yaml
mkdir context && cp -r "$recipes" context/deploy
"$recipes/kubernetes/rootfs.sh" "$binaries" context/rootfs
image() { buildah --storage-driver vfs --root "$dir/images" --runroot "$dir/run" "$@"; }
(cd context && image bud --isolation chroot -q -f deploy/kubernetes/Containerfile -t musc . >/dev/null)
container=$(image from localhost/musc)
mkdir -m 777 job
for index in 1 0; do
    # As the Job does it: the index by Kubernetes, how many by the file.
    image run --isolation chroot --env JOB_COMPLETION_INDEX=$index --env MUSC_SHARDS=2 -v "$dir/photos:/photos:ro" -v "$dir/job:/job" \
        "$container" -- musc-run inspect /photos "${words[@]:1}" --shard auto --store /job/store >/dev/null
done
image run --isolation chroot -v "$dir/photos:/photos:ro" -v "$dir/job:/job" "$container" \
    -- musc-run merge /job/store --output-dir /job/results --quiet >/dev/null 2>&1
# Its images are called /photos/…, as they are where it runs.
sed 's|^/photos|photos|' job/results/*/photos/scores.csv | cmp - whole/*/photos/scores.csv
echo "the image's shards: the bytes of one run"
