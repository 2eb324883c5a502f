"""A virtual environment with oban-py, created once in pytest's cache."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RELEASE = "oban==0.7.0"
#: The minor versions of the oldest Python for the release, and of the newest one to look for.
OLDEST, NEWEST = 12, 14


def make(folder: Path) -> Path:
    """Create a virtual environment in a folder unless it exists, and return its Python.

    Skips the test if there is no Python that could run the release, and fails if the creation fails.
    """
    home = folder / RELEASE.replace("==", "-")
    done = home / "done"
    # Each process of the test run calls this at about the same time.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            base = next(_pythons(), None)
            if base is None:
                pytest.skip(f"oban-py needs Python 3.{OLDEST} or newer, and there is none")
            # With the pip of this environment, as installing another one takes longer than the release.
            _run(base, "-m", "venv", "--without-pip", str(home))
            pip = (sys.executable, "-m", "pip", "--python", str(home / "bin/python"))
            _run(*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", RELEASE)
            done.touch()
    return home / "bin/python"


def _pythons() -> Iterator[str]:
    """Pythons that are new enough and do run, as a shim on the PATH can lead nowhere."""
    found = [sys.executable]
    found += [path for minor in range(NEWEST, OLDEST - 1, -1) if (path := shutil.which(f"python3.{minor}"))]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in sorted(versions.glob("3.1[0-9]*/bin/python"))]
    question = f"import sys, venv; sys.exit(sys.version_info < (3, {OLDEST}))"
    for path in found:
        if subprocess.run([path, "-E", "-c", question], capture_output=True).returncode == 0:
            yield path


def _run(*command: str) -> None:
    done = subprocess.run([command[0], "-E", *command[1:]], capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        pytest.fail(f"{' '.join(command)} failed, so that nothing can be said about sharing:\n{said}")
