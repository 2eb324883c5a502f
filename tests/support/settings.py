"""Settings of the tests that environment variables change."""

import os
import random

#: The seed of the fixture `rng`: `OBAN_SEED` if that is set, else random. Tests print it.
SEED = int(os.environ.get("OBAN_SEED") or random.SystemRandom().randrange(2**32))
#: Whether the tests in `tests/faults` run longer and with larger numbers: `OBAN_FAULTS=full`.
FULL = os.environ.get("OBAN_FAULTS") == "full"
