"""Settings of all tests."""

import gc

from hypothesis import settings

# A machine that is busy must not fail a test; what matters is the time of the whole suite.
settings.register_profile("whole", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=15)


def pytest_configure(config):
    """`-m "not slow"` is the quick suite: fewer drawn examples, and less of tests/suites.py."""
    settings.load_profile("quick" if "not slow" in config.option.markexpr else "whole")


def pytest_collection_finish():
    """What the collection has made stays to the end: the garbage collector may pass over it."""
    gc.collect()
    gc.freeze()
