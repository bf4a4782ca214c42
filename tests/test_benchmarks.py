"""The benchmarks still run, and what they compare still computes the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, way", [("by_hand", "compiled"), ("steps", "compiled"), ("copies", "as it is")]
)
def test_a_benchmark_runs(name, way):
    """Most first ask for equal losses; one short round, whose times nobody looks at."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {name}; {name}.main(rounds=1, seconds=0)"],
        cwd=ROOT / "tests/benchmarks", env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(way) >= 3 and " us " in done.stdout
