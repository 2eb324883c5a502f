"""Rules of the layers that import-linter cannot check: it does not see what code does with its imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import oban

PACKAGE = Path(oban.__file__).parent
DATABASES = {"postgresql", "sqlite"}
#: What can know which database is in use. SQLAlchemy asks a column type what it is on a database.
KNOWS_THE_DATABASE = ("dialects", "migration", "ddl.py", "types.py", "type_expressions.py")
ENGINES = {"sqlalchemy.Engine", "sqlalchemy.create_engine", "sqlalchemy.ext.asyncio", "sqlalchemy.pool"}


def modules(part: str = "") -> Iterator[Path]:
    yield from sorted((PACKAGE / part).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of everything that a module imports, and of what contains it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def asks_for_the_database(tree: ast.AST) -> list[str]:
    """The code that decides by the name of a database, or uses what only one of them has."""
    found = [name for name in imported(tree) if name.startswith("sqlalchemy.dialects")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            decides: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, (ast.MatchValue, ast.Subscript)):
            decides = [node.value if isinstance(node, ast.MatchValue) else node.slice]
        else:
            continue
        if any(map(_names_database, decides)):
            found.append(ast.unparse(node))
    return found


def _names_database(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in DATABASES
    if isinstance(node, ast.Attribute) and node.attr in ("name", "get_backend_name"):
        return node.attr != "name" or ast.unparse(node.value).endswith("dialect")
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dialects.by_name":
        # From here on it is a dialect that is asked.
        return False
    return any(map(_names_database, ast.iter_child_nodes(node)))


@pytest.mark.parametrize(
    "code",
    [
        "if engine.dialect.name == 'postgresql': ...",
        "native = dialect.name in ('sqlite',)",
        "form = FORMS[connection.dialect.name]",
        "same = url.get_backend_name() != other",
        "match name:\n    case 'sqlite': ...",
        "from sqlalchemy.dialects.postgresql import JSONB",
        "import sqlalchemy.dialects.sqlite",
        "from sqlalchemy.dialects import sqlite",
    ],
)
def test_code_that_asks_for_the_database_is_found(code: str) -> None:
    assert asks_for_the_database(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "dialects.by_name(engine.dialect.name).engine_options(url)",
        "other = dialects.by_name(url.get_backend_name()) is not self.dialect",
        "if session.dialect is not self.dialect: ...",
        "raise ConfigError(f'{self.dialect.name} has no schemas')",
    ],
)
def test_code_that_uses_a_dialect_is_not(code: str) -> None:
    assert asks_for_the_database(ast.parse(code)) == []


def test_only_some_modules_know_which_database_is_in_use() -> None:
    asking = {
        str(path.relative_to(PACKAGE)): found
        for path in modules()
        if path.relative_to(PACKAGE).parts[0] not in KNOWS_THE_DATABASE
        and (found := asks_for_the_database(ast.parse(path.read_text())))
    }
    assert asking == {}


def test_the_repository_uses_no_engine_and_no_event_loop() -> None:
    for path in modules("repository"):
        assert ENGINES.isdisjoint(imported(ast.parse(path.read_text()))), path


def test_no_module_has_more_than_350_lines() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in modules()}
    assert {module: length for module, length in lengths.items() if length > 350} == {}
