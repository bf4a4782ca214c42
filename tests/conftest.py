"""Settings of all tests."""

from hypothesis import settings

# A machine that is busy must not fail a test; what matters is the time of the whole suite.
settings.register_profile("tinyflux", deadline=None)
settings.load_profile("tinyflux")
