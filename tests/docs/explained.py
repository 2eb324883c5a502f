"""What pages of `docs/explanation/` name: files of this repository, and commands of the benchmarks."""

import contextlib
import importlib
import io
import re
import shlex

import pytest

from tests.support.processes import ROOT


def missing_files(text: str) -> list[str]:
    """The files of the repository that a page names and that do not exist."""
    named = set(re.findall(r"`((?:tests|benchmarks|oban)/[\w./-]+)`", text))
    assert named
    return sorted(path for path in named if not (ROOT / path).exists())


def benchmark_commands(text: str) -> list[list[str]]:
    """The arguments of each `python -m benchmarks…` on a page, beginning with the name of the module."""
    found = re.findall(r"(?:^\$ |`)python -m (benchmarks[^`\n]*)", text, re.MULTILINE)
    return [shlex.split(command) for command in found]


def check_benchmark(words: list[str]) -> None:
    """Fail unless a benchmark has these options, with such values; it does not run."""
    name, *arguments = words
    module = importlib.import_module(f"{name}.__main__" if name == "benchmarks" else name)
    # What comes before --help is parsed.
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
        module.main([*arguments, "--help"])
    assert ended.value.code == 0, words
