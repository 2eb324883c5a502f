"""The names of the package `oban`, which are imported when they are first used."""

import importlib
import subprocess
import sys

import pytest

import oban


def run(code: str) -> str:
    """Run Python code in a new interpreter, and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_imports_nothing_that_takes_long() -> None:
    code = "import sys, oban; print({'sqlalchemy', 'asyncio', 'click', 'typing'} & sys.modules.keys())"
    assert run(code) == "set()\n"


def test_the_command_line_imports_only_what_every_command_needs() -> None:
    code = "import sys, oban.cli; print({'pydantic', 'pydantic_settings', 'alembic'} & sys.modules.keys())"
    assert run(code) == "set()\n"


def test_every_public_name_is_listed_and_can_be_imported() -> None:
    assert set(oban.__all__) <= set(dir(oban))
    names: dict[str, object] = {}
    exec("from oban import *", names)
    assert set(oban.__all__) == names.keys() - {"__builtins__"}
    assert all(names[name] is getattr(oban, name) for name in oban.__all__)


def test_the_decorator_is_not_replaced_by_the_module_of_the_same_name() -> None:
    code = "import oban.worker; from oban import worker; print(worker is oban.worker, callable(worker))"
    assert run(code) == "True True\n"


def test_modules_of_the_package_are_its_attributes() -> None:
    code = "import oban; print(oban.errors.__name__, oban.outcomes.__name__)"
    assert run(code) == "oban.errors oban.outcomes\n"


def test_other_names_are_missing() -> None:
    assert not hasattr(oban, "Worcer")
    assert not hasattr(oban, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'Worcer' from 'oban'"):
        exec("from oban import Worcer")
    with pytest.raises(AttributeError, match="module 'oban' has no attribute 'Worcer'"):
        getattr(importlib.import_module("oban"), "Worcer")  # noqa: B009


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("oban.otel", "opentelemetry", "otel"),
        ("oban.prometheus", "prometheus_client", "prometheus"),
        ("oban.web", "starlette", "web"),
    ],
)
def test_a_package_whose_extra_is_missing_names_the_extra(module: str, package: str, extra: str) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
try:
    import {module}
except ModuleNotFoundError as error:
    print(error, error.name)
"""
    assert run(code) == (
        f"{module} needs the package {package}: pip install 'oban-sqlalchemy[{extra}]' {package}\n"
    )
