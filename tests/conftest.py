"""Settings of all tests."""

import os

from hypothesis import settings

# An example's time says how busy the machine is, not whether the code is right.
settings.register_profile("rlstack", deadline=None)
# What `make fuzz` runs tests/fuzz with.
settings.register_profile("thorough", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rlstack"))
