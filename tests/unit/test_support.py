"""Tests share helpers, and reach private parts of the library, through `tests/support` alone."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.processes import ROOT

#: The tests without those of `tests/sharing` that run with oban-py, whose package is also named `oban`.
MODULES = [
    path.relative_to(ROOT)
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.parent.name not in ("support", "oban_py")
]
#: Names of the standard library that the library uses as well: of named tuples and `multiprocessing`.
PUBLIC = {"_replace", "_stop"}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The nodes of the syntax tree of a module that have names."""
    found = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Name,
        ast.Attribute,
        ast.Call,
        ast.ImportFrom,
    )
    return [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, found)]


def private_names(tree: list[ast.AST]) -> Iterator[str]:
    """The private names that a module defines: functions, attributes of `self` and of classes, constants."""
    for node in tree:
        name = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        if name.startswith("_") and not name.startswith("__") and name != "_":
            yield name


def imported(tree: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Each module that a module imports from, with a name that it imports."""
    for node in tree:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def _called(call: ast.Call) -> str:
    """The last part of the name of the function that is called."""
    function = call.func
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def used_names(tree: list[ast.AST]) -> Iterator[str]:
    """The attributes that a module uses or replaces, and what it imports from the library."""
    for node in tree:
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and _called(node).endswith("setattr"):
            yield from (ast.literal_eval(name) for name in node.args[1:2] if isinstance(name, ast.Constant))
    yield from (name for module, name in imported(tree) if module.split(".")[0] == "oban")


def test_helpers_come_from_the_same_folder_or_from_tests_support() -> None:
    for path in MODULES:
        folder = ".".join(path.parent.parts)
        for module, name in imported(nodes(path)):
            if module.split(".")[0] == "tests":
                assert module.startswith(("tests.support", "tests.mutants", folder)), f"{path}: {module}"
                parts = [*module.split(".")[1:], name]
                assert not any(part.startswith(("test_", "conftest")) for part in parts), f"{path}: {module}"


def test_private_names_of_the_library_are_used_in_tests_support_alone() -> None:
    private = {name for path in (ROOT / "oban").rglob("*.py") for name in private_names(nodes(path))}
    for path in MODULES:
        used = private & set(used_names(nodes(path))) - set(private_names(nodes(path))) - PUBLIC
        assert not used, f"{path} uses {used}"
