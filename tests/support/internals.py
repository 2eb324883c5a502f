"""Private parts of an `Oban` that tests need. Nothing else in the tests touches them."""

from typing import Any

from oban import Oban


def runner_database(oban: Oban) -> Any:
    """The database as the runner of a started instance reaches it: through a pool of its own."""
    assert oban._runner is not None
    return oban._runner.database
