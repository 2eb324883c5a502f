"""Async fixtures for tests that pytest-asyncio or anyio runs.

pytest-asyncio sets up an `async def` fixture only in its auto mode, and not always on the event loop of the
test. So each async fixture is a plain one that requests a variant of itself: one for anyio, or one for
pytest-asyncio that runs on the loop of the test. That needs only the public interfaces of both.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")

_functions: dict[str, FunctionType] = {}


def async_fixture(function: Callable[..., AsyncIterator[Any]]) -> Any:
    """Make a fixture of an async generator function, which is called on the event loop of the test."""
    assert isinstance(function, FunctionType)  # noqa: S101
    _functions[name := function.__name__] = function

    def request_variant(request: pytest.FixtureRequest, **_: Any) -> Any:
        return request.getfixturevalue(_variant(request, name))

    # The variant's arguments are arguments here as well, so that pytest knows them when it collects the test.
    parameters = dict(inspect.signature(function).parameters)
    parameters["request"] = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    request_variant.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    request_variant.__doc__, request_variant.__module__ = function.__doc__, function.__module__
    return pytest.fixture(name=name)(request_variant)


def _variant(request: pytest.FixtureRequest, name: str) -> str:
    """The name of the variant for the test that requests the fixture."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is None and "anyio_backend" in request.fixturenames:
        _check_backend(request, name)
        return _name(name, "anyio")
    if not request.config.pluginmanager.hasplugin("asyncio"):
        pytest.fail(
            f"the fixture {name} needs an event loop, and no plugin runs one for this test: install"
            " pytest-asyncio, or mark the test with pytest.mark.anyio; without asyncio, use the fixtures"
            " sync_oban, sync_oban_session and sync_oban_connection",
            pytrace=False,
        )
    options = {} if marker is None else marker.kwargs
    scope = options.get("loop_scope") or options.get("scope")
    return _name(name, scope or request.config.getini("asyncio_default_test_loop_scope"))


def register_variants(config: pytest.Config) -> None:
    """Define the variants, before tests are collected."""
    variants = ModuleType("oban.testing.variants")
    for name, function in _functions.items():
        setattr(variants, _name(name, "anyio"), pytest.fixture(_copy(function)))
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio

        for name, function in _functions.items():
            for scope in LOOP_SCOPES:
                made = pytest_asyncio.fixture(loop_scope=scope)(_copy(function))
                setattr(variants, _name(name, scope), made)
    config.pluginmanager.register(variants, variants.__name__)


def _name(name: str, runner: str) -> str:
    return f"_{name}_{runner}"


def _copy(function: FunctionType) -> Callable[..., AsyncIterator[Any]]:
    # pytest-asyncio marks the function itself.
    return FunctionType(function.__code__, function.__globals__, function.__name__)


def _check_backend(request: pytest.FixtureRequest, name: str) -> None:
    backend = request.getfixturevalue("anyio_backend")
    library = backend if isinstance(backend, str) else backend[0]
    if library != "asyncio":
        pytest.fail(
            f"the fixture {name} works with asyncio, and anyio runs this test with {library}: define a"
            ' fixture anyio_backend that returns "asyncio"',
            pytrace=False,
        )
