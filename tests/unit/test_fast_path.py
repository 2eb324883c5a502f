"""The switch of the fast path."""

import pytest

from oban.database.fast import PARTS, FastPath
from oban.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "parts"),
    [("on", PARTS), ("off", set()), (" OFF ", set()), ("compiled,autocommit", {"compiled", "autocommit"})],
)
def test_the_environment_turns_it_on_and_off(
    value: str, parts: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBAN_FAST_PATH", value)
    assert FastPath.from_environment().parts == parts


def test_it_is_on_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBAN_FAST_PATH", raising=False)
    assert FastPath.from_environment().parts == PARTS


@pytest.mark.parametrize("value", ["0", "", "fast", "on,off"])
def test_anything_else_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBAN_FAST_PATH", value)
    with pytest.raises(ConfigError, match="OBAN_FAST_PATH must be on or off"):
        FastPath.from_environment()
