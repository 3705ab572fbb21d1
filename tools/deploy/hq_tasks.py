"""Shards as tasks of a HyperQueue server with two workers, started here: python hq_tasks.py SHARDS STORE WORDS…"""

import sys

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main():
    shards, store, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with LocalCluster() as cluster:
        for _ in range(2):
            cluster.start_worker(WorkerConfig(cores=1))
        job = Job()
        program = ["musc-run", "inspect", *words, "--shard", "auto", "--store", store, "--threads", "1"]
        for _ in range(shards):
            job.program(program, env={"MUSC_SHARDS": str(shards)})
        client = cluster.client()
        client.wait_for_jobs([client.submit(job)])


if __name__ == "__main__":
    main()
