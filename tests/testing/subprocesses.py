"""Runs of Python and pytest in a project of their own."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent / "project"


def run(*arguments: str, database: str | None = None, folder: Path = PROJECT) -> tuple[int, str]:
    """Run Python in a project, and return its exit code and what it prints."""
    # What this run of pytest has set is not for the other one, which reports in the same way also under CI.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTEST", "OBAN")) and key not in ("CI", "BUILD_NUMBER")
    }
    if database is not None:
        environment["OBAN_TEST_DATABASE_URL"] = database
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    return done.returncode, done.stdout + done.stderr


def run_pytest(*arguments: str, database: str | None = None, folder: Path = PROJECT) -> tuple[int, str]:
    # Nothing is written to the checkout.
    return run("-m", "pytest", "-p", "no:cacheprovider", *arguments, database=database, folder=folder)
