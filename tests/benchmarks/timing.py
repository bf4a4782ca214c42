"""How the benchmarks measure: several ways to do the same, in turn, round by round, on one core.

The figure is the ratio to the first way in the same round, of which the median is taken: a machine
that is busy, or changes its clock, slows all of them alike.
"""

import os
import statistics
import time


def on_one_core():
    """Keep this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def timed(run, times):
    """Seconds per step; `run(times)` makes so many of them."""
    start = time.perf_counter()
    run(times)
    return (time.perf_counter() - start) / times


def in_turn(ways, rounds, seconds):
    """For each way, its median seconds per step and the median of its ratio to the first."""
    first, *_ = ways
    times = max(3, int(seconds / timed(ways[first], 20)))
    runs = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            runs[name].append(timed(run, times))
    return {
        name: (
            statistics.median(seen),
            statistics.median(a / b for a, b in zip(seen, runs[first])),
        )
        for name, seen in runs.items()
    }


def report(title, found):
    """Print what `in_turn` found."""
    for name, (seconds, ratio) in found.items():
        print(f"{title:20} {name:18} {1e6 * seconds:9.1f} us  {ratio:5.2f}", flush=True)
