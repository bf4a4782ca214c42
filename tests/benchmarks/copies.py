"""What copies of operands cost: eager training steps without any, and as they are.

    python tests/benchmarks/copies.py [2-16-16-1 ...]

Without copies, what a loss writes to after it has used it would give a wrong gradient. To decide
what has to be copied costs some 0.2 us for each operation, which both ways pay.
"""

import sys
from importlib import import_module
from unittest.mock import patch

from steps import NETWORKS, Problem, with_tinyflux
from timing import in_turn, on_one_core, report

from tinyflux.tape import NOTHING, Tape

GRADIENT = import_module("tinyflux.gradient")


def without_copies(problem):
    """The step of a tape that keeps nothing."""
    run = with_tinyflux(problem)
    keeping_nothing = patch.object(GRADIENT, "Tape", lambda keeps, spare: Tape(NOTHING, spare))
    return keeping_nothing(run)


def main(networks=(), rounds=25, seconds=0.1):
    on_one_core()
    for name in networks or NETWORKS:
        ways = {"without copies": without_copies, "as it is": with_tinyflux}
        found = {title: make(Problem(name)) for title, make in ways.items()}
        report(name, in_turn(found, rounds, seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
