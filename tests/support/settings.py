"""What environment variables tell the tests."""

import os
import random

#: Seed of the fixture `rng`, from `OBAN_SEED` if that is set. It is printed.
SEED = int(os.environ.get("OBAN_SEED") or random.SystemRandom().randrange(2**32))
#: Whether the tests in `tests/faults` run for long, with large numbers: `OBAN_FAULTS=full`.
FULL = os.environ.get("OBAN_FAULTS") == "full"
