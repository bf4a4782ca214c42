"""What is less in the quick suite (`pytest -m "not slow"`) than in the whole one."""

import pytest
from hypothesis import settings

QUICK = settings().max_examples < 100  # the profile that tests/conftest.py has chosen


def examples(n):
    """How many examples to draw where the whole suite draws `n`."""
    return max(2, n * settings().max_examples // 100) if QUICK else n


def either(whole, quick):
    """The size of a test: how many steps, files or bytes."""
    return quick if QUICK else whole


def a_third(members, first=0):
    """The members of a family for `parametrize`, of which the quick suite has every third."""
    members = list(members)
    return only(members[first::3], members)


def only(quick, members):
    """The members of a family for `parametrize`: those that are not in `quick` are slow."""
    return [m if m in quick else pytest.param(m, marks=pytest.mark.slow) for m in members]
