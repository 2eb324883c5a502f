"""`docs/architecture.md` stays true: the files, functions, layers and states that it names exist."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from oban import JobState
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/architecture.md"
TEXT = (ROOT / PAGE).read_text()
#: Paragraphs, list items and table rows without code blocks: the units in which a function follows its file.
UNITS = [
    unit
    for block in re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL).split("\n\n")
    for unit in re.split(r"\n(?=- |\d+\. |\| )", block)
    if "`" in unit
]


def spans(unit: str, pattern: str) -> list[str]:
    return re.findall(rf"`({pattern})`", unit)


def defined(path: Path) -> Iterator[str]:
    """The functions and classes of a file, methods as `Class.method`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            yield from (f"{node.name}.{method.name}" for method in methods)


def test_every_path_exists() -> None:
    paths = set(spans(TEXT, r"[\w.-]+/[\w./-]*|[\w-]+\.(?:py|toml|md|ini)"))
    assert len(paths) > 100
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_function_is_defined_in_a_file_that_is_named_with_it() -> None:
    wrong = []
    for unit in UNITS:
        if functions := {name.removesuffix("()") for name in spans(unit, r"[\w.]+\(\)")}:
            names = {name for path in spans(unit, r"[\w/]+\.py") for name in defined(ROOT / path)}
            wrong += [(name, unit) for name in functions - names]
    assert len(UNITS) > 100
    assert wrong == []


def test_every_module_has_a_line() -> None:
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "oban").rglob("*.py") if path.read_text().strip()
    }
    expected = [module for module in modules if not module.endswith(("__init__.py", "__main__.py"))]
    assert sorted(re.findall(r"^\| `(oban/[\w/]+\.py)` \|", TEXT, re.MULTILINE)) == sorted(expected)


def test_every_folder_of_tests_has_a_row() -> None:
    folders = {f"tests/{path.parent.name}/" for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders <= set(spans(TEXT.partition("## Where the tests are")[2], r"tests/\w+/"))


def test_the_layers_are_those_that_import_linter_enforces() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    [shown] = fenced(PAGE, "text")
    assert shown.splitlines() == [layer.replace("oban.", "") for layer in layers]


def test_the_diagram_has_every_state() -> None:
    [diagram] = [block for block in fenced(PAGE, "mermaid") if block.startswith("stateDiagram")]
    states = set(re.findall(r"^ +([a-z]+) --> |--> ([a-z]+):", diagram, re.MULTILINE))
    assert {name for pair in states for name in pair if name} == {state.value for state in JobState}
