"""`Mutant`: plants a bug into a copy of the library, and lets the tests find it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ROOT

PARTS = ("oban", "migrations", "tests", "examples", "alembic.ini", "pyproject.toml", "Makefile")
#: Seconds that the tests have for finding one bug.
LIMIT = 300


class Mutant(NamedTuple):
    """A bug: `good` becomes `bad` in `file`. At least one of `tests` has to fail then."""

    name: str
    file: str
    good: str
    bad: str
    tests: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Change the file. Raises `ValueError` unless the good code occurs in it exactly once."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.good) != 1:
            raise ValueError(f"{self.name}: {text.count(self.good)} places in {self.file} to plant it")
        path.write_text(text.replace(self.good, self.bad))


def found(mutant: Mutant) -> bool:
    """Whether the tests fail when the library contains the bug."""
    with tempfile.TemporaryDirectory(prefix="oban-mutant-") as folder:
        tree = Path(folder)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        mutant.plant(tree)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": folder}
        try:
            ended = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            print(f"  neither passed nor failed within {LIMIT} s")
            return False
        print("  " + "\n  ".join(line for line in ended.stdout.splitlines() if line.startswith("FAILED")))
        # pytest exits with 1 if tests failed; any other code but 0 means that they did not run.
        if ended.returncode not in (0, 1):
            print(ended.stdout[-3000:], ended.stderr[-3000:])
        return ended.returncode == 1
