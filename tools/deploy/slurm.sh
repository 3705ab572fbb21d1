#!/usr/bin/env bash
# Slurm's own controller and one node of two cores on this machine, in a folder of their own: `slurm.sh start DIR` and
# `slurm.sh stop DIR`; between them SLURM_CONF=DIR/slurm.conf is the cluster. Needs root, as slurmd does.
set -euo pipefail
what=$1 dir=$2
stop() {
    for name in slurmctld slurmd munged; do
        [ ! -f "$dir/$name.pid" ] || kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
    done
}
start() {
    local node
    node=$(hostname -s)
    mkdir -p "$dir/state" "$dir/spool"
    dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 status=none
    chmod 600 "$dir/munge.key"
    # Where nobody else's munged is asked.
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    cat >"$dir/slurm.conf" <<END
ClusterName=check
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MailProg=/bin/true
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$dir/slurm.conf
    slurmctld
    slurmd
    for _ in $(seq 50); do
        ! sinfo -h -o %t 2>/dev/null | grep -q idle || return 0
        sleep 0.2
    done
    echo "the node did not come up:" >&2
    cat "$dir"/*.log >&2
    return 1
}
case $what in start | stop) "$what" ;; *) echo "usage: slurm.sh start|stop DIR" >&2; exit 2 ;; esac
