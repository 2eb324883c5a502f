"""The commands of `docs/explanation/measurements.md` exist, and its figures are those that were measured."""

import re

import pytest

from tests.docs.commands import commands
from tests.docs.explained import benchmark_commands, check_benchmark
from tests.docs.stage import DOCS
from tests.support.processes import ROOT

TEXT = (DOCS / "explanation/measurements.md").read_text()
COMMANDS = benchmark_commands(TEXT)


def cells(label: str) -> list[str]:
    """The cells of the row of the benchmarks' results that begins with this label."""
    results = (ROOT / "benchmarks/README.md").read_text()
    (line,) = re.findall(rf"^\| {re.escape(label)} \|(.+)\|$", results, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_page_has_these_options(words: list[str]) -> None:
    check_benchmark(words)


def test_every_command_is_checked_and_every_benchmark_has_one() -> None:
    assert all(words[2:] in COMMANDS for words in commands("docs/explanation/measurements.md"))
    files = (ROOT / "benchmarks").glob("[a-z]*.py")
    modules = {f"benchmarks.{path.stem}" for path in files if "\ndef main(" in path.read_text()}
    # Another page has the comparison with other queues, and `role` is one side of a scenario.
    assert {words[0] for words in COMMANDS} >= modules - {"benchmarks.peers", "benchmarks.role"}


@pytest.mark.parametrize(
    "label",
    [
        "drain, 10 at once, jobs/s",
        "drain, 50 at once",
        "drain, 200 at once",
        "drain, 50 at once, next to a million rows",
        "insert one by one",
        "insert 1,000 at a time",
    ],
)
def test_the_rates_are_those_of_the_benchmarks_and_the_ratios_follow(label: str) -> None:
    ours, raw, best, _ = cells(label)
    ratio = int(ours.replace(",", "")) / int(raw.replace(",", ""))
    assert f"| {label} | {ours} | {raw} | {ratio:.2f} | {best} |" in TEXT
