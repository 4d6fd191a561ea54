"""`python -m tests_trio.programs.fuzz N [SEED]`: as many random programs as wanted, on all cores."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from .explore import explore

CHUNK = 500  # programs, between two lines of progress


def main(count: int, seed: int) -> None:
    begin = time.monotonic()
    counts: Counter[str] = Counter()
    seeds = range(seed, seed + -(-count // CHUNK))
    with ProcessPoolExecutor(os.cpu_count(), max_tasks_per_child=1) as pool:
        jobs = [pool.submit(explore, CHUNK, each) for each in seeds]
        for job in as_completed(jobs):
            if job.exception() is not None:
                pool.shutdown(wait=False, cancel_futures=True)
            counts += job.result()
            seconds = time.monotonic() - begin
            print(f"{seconds:6.0f} s: {describe(counts)}", flush=True)
    print(f"no divergence (seed {seed})")


def describe(counts: Counter[str]) -> str:
    ends = ("SUCCEEDED", "FAILED", "CANCELLED")
    tasks = ", ".join(f"{counts[end]} {end.lower()}" for end in ends)
    return f"{counts['programs']} programs ({counts['racy']} discarded); tasks: {tasks}"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
