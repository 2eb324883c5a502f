"""The processes that tests start."""

from pathlib import Path

#: The checkout, in which `python -m tests.…` finds the tests.
ROOT = Path(__file__).parents[2]
