"""Type checkers accept good code that uses `oban`, and find each error in bad code.

A line in the folder `bad` that is marked with `# error` must be an error for both checkers, and one marked
with `# error in mypy` for mypy only. No other line of both folders may be an error.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from oban import testing, web

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(path for folder in ("good", "bad") for path in (HERE / folder).glob("*.py"))

Places = set[tuple[str, int]]


def marked(checker: str) -> Places:
    """The lines that are marked as errors."""
    mark = re.compile(rf"# error( in {checker}$|$|  #)")
    return {
        (str(path.relative_to(HERE)), number)
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if mark.search(line)
    }


def run(*command: str, **environment: str) -> tuple[int, str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=HERE, env=variables, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, done.stdout


def by_mypy() -> dict[tuple[str, int], str]:
    # With the configuration of the project, and with its cache, which saves time.
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    files = [str(path.relative_to(HERE)) for path in FILES]
    _, output = run(sys.executable, "-m", "mypy", *config, "--strict", "--no-error-summary", *files)
    found = re.findall(r"^(\S+?):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(path, int(number)): message for path, number, message in found}


def by_pyright() -> dict[tuple[str, int], str]:
    binary = str(Path(sys.executable).with_name("basedpyright"))
    _, output = run(binary, "--project", str(HERE), "--pythonpath", sys.executable, "--outputjson")
    answer = json.loads(output)
    assert answer["summary"]["filesAnalyzed"] == len(FILES)
    return {
        (str(Path(found["file"]).relative_to(HERE)), found["range"]["start"]["line"] + 1): found["message"]
        for found in answer["generalDiagnostics"]
        if found["severity"] == "error"
    }


def difference(expected: Places, found: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """The marked errors that were not found, and the errors that are not marked."""
    missed = dict.fromkeys(expected - found.keys(), "no error")
    return missed | {place: message for place, message in found.items() if place not in expected}


# pyright keeps no cache, so it takes several seconds.
@pytest.mark.parametrize(
    ("checker", "check"),
    [("mypy", by_mypy), pytest.param("pyright", by_pyright, marks=pytest.mark.slow)],
)
def test_checkers_accept_the_good_code_and_find_every_error(checker: str, check: Any) -> None:
    assert difference(marked(checker), check()) == {}


def test_a_checker_that_finds_nothing_or_too_much_fails() -> None:
    faults = marked("mypy")
    assert {path for path, _ in faults} == {f"bad/{path.name}" for path in FILES if path.parent.name == "bad"}
    assert len(faults) > len(marked("pyright")) > 100
    assert difference(faults, {}).keys() == faults
    found = dict.fromkeys(faults, "an error")
    assert difference(faults, found) == {}
    found["good/workers.py", 1] = "too strict"
    assert difference(faults, found).keys() == {("good/workers.py", 1)}


@pytest.mark.parametrize("path", [path for path in FILES if "good" in path.parts], ids=lambda path: path.stem)
def test_the_good_code_defines_workers_that_are_accepted_at_run_time(path: Path) -> None:
    importlib.import_module(f"tests.typing.good.{path.stem}")


#: Attributes that only the library uses, in addition to loggers.
_INTERNAL = {"cli", "database", "diagnosis", "dialects", "notifier", "repository", "runner"}
_INTERNAL |= {"type_expressions", "types"}


def _is_internal(_: str, package: str, *names: str) -> bool:
    # The modules of `oban.testing` and `oban.web` are not public, but some of their names are.
    public = {"testing": testing.__all__, "web": web.__all__}
    return package in _INTERNAL or (package in public and not {*names} & {*public[package]})


@pytest.mark.slow
def test_every_type_of_the_public_api_is_written_down() -> None:
    """Every type that users import is declared, so pyright need not infer it."""
    binaries = str(Path(sys.executable).parent)
    _, output = run(
        *(str(Path(binaries, "basedpyright")), "--verifytypes", "oban", "--ignoreexternal", "--outputjson"),
        # pyright looks only there for the interpreter with the installed packages.
        PATH=f"{binaries}{os.pathsep}{os.environ['PATH']}",
    )
    symbols = [
        symbol
        for symbol in json.loads(output)["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not _is_internal(*symbol["name"].split("."))
    ]
    assert {"oban.Oban", "oban.Job", "oban.worker.Worker.new"} <= {symbol["name"] for symbol in symbols}
    vague = [s["name"] for s in symbols if s["isTypeAmbiguous"] or not s["isTypeKnown"]]
    assert [name for name in vague if not name.endswith(".logger")] == []


def test_the_wheel_has_the_marker_for_types(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        assert wheel.read("oban/py.typed") == b""
        metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        assert b"typing-extensions" in wheel.read(metadata)
