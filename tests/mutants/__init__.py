"""Tests of the tests: bugs that are planted, one at a time, into a copy of the library, and must be found.

`make mutants`, or `python -m tests.mutants [NAME…]` for some of them.
"""

from tests.mutants import around_jobs, executing, storing

MUTANTS = (*executing.MUTANTS, *storing.MUTANTS, *around_jobs.MUTANTS)
