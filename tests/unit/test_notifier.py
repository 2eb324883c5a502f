"""Notifiers decode payloads and call subscribers, and each database has the one that fits."""

import base64
import gzip
import logging
from typing import Any

import pytest

from oban import clock
from oban.database.aio import Database
from oban.errors import ConfigError
from oban.notifier import make
from oban.notifier.base import Notifier, decode
from oban.notifier.listen import ListenNotifier
from oban.notifier.poll import DataVersionNotifier, PollNotifier

Heard = list[tuple[str, dict[str, Any]]]


class Silent(Notifier):
    async def _open(self) -> None:
        return None

    async def _close(self) -> None:
        return None


@pytest.fixture
def notifier() -> Silent:
    return Silent(Database("sqlite+aiosqlite://"))


def recorder(heard: Heard, channel: str) -> Any:
    return lambda payload: heard.append((channel, payload))


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"queue": "media"}', {"queue": "media"}),
        ('{"queue": "quo\\"te"}', {"queue": 'quo"te'}),
        ("{}", {}),
        (base64.b64encode(gzip.compress(b'{"action": "pkill"}', mtime=0)).decode(), {"action": "pkill"}),
        # The result of `:zlib.gzip(json) |> Base.encode64()` in Oban for Elixir.
        (
            "H4sIAAAAAAAAA6tWSkwuyczPU7JSKkgsLU5V0lHKTEnNKwHyE/MqgbzC0tTSVCAvNzUlM1GpFgCoD5QRMAAAAA==",
            {"action": "pause", "ident": "any", "queue": "media"},
        ),
    ],
)
def test_payloads_are_json_plain_or_zipped(text: str, payload: dict[str, Any]) -> None:
    assert decode(text) == payload


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "{", '{"a": }', "[1]", '"text"', "null", "5", "\x00", "ä", "=", "a" * 8000),
        base64.b64encode(b"not zipped").decode(),
        base64.b64encode(gzip.compress(b"[1]", mtime=0)).decode(),
        base64.b64encode(gzip.compress(b"{", mtime=0)).decode(),
        base64.b64encode(gzip.compress(b'{"a": 1}', mtime=0)[:-4]).decode(),
        base64.b64encode(gzip.compress(b'{"a": 1}' * 5, mtime=0)[:12] + b"\xff" * 20).decode(),
        base64.b64encode(gzip.compress(b'{"a": "' + b" " * 100_000 + b'"}', mtime=0)).decode(),
    ],
    ids=lambda text: text[:20],
)
def test_garbage_is_ignored_without_an_error(text: str) -> None:
    assert decode(text) is None


def test_each_channel_has_its_own_subscribers(notifier: Silent) -> None:
    heard: Heard = []
    notifier.subscribe("insert", recorder(heard, "first"))
    notifier.subscribe("insert", recorder(heard, "second"))
    notifier.subscribe("signal", recorder(heard, "signal"))
    notifier.dispatch("insert", {"queue": "a"})
    assert heard == [("first", {"queue": "a"}), ("second", {"queue": "a"})]
    heard.clear()
    notifier.dispatch("nobody", {"queue": "a"})
    assert heard == []
    notifier.dispatch("signal", {"n": 1})
    notifier.dispatch("insert", {"n": 2})
    assert heard == [("signal", {"n": 1}), ("first", {"n": 2}), ("second", {"n": 2})]
    heard.clear()
    notifier.wake_all()
    assert sorted(heard) == [("first", {}), ("second", {}), ("signal", {})]


def test_a_subscriber_that_fails_does_not_stop_the_others(
    notifier: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    heard: Heard = []

    def fail(_: dict[str, Any]) -> None:
        raise ValueError("bad subscriber")

    notifier.subscribe("insert", fail)
    notifier.subscribe("insert", recorder(heard, "insert"))
    with caplog.at_level(logging.ERROR):
        notifier.dispatch("insert", {"queue": "a"})
    assert heard == [("insert", {"queue": "a"})]
    assert "bad subscriber" in caplog.text


def test_garbage_is_logged_once_a_minute_with_its_count(
    notifier: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    class Stopped(clock.Clock):
        at = 0.0

        def monotonic(self) -> float:
            return self.at

    with clock.use(Stopped()) as stopped, caplog.at_level(logging.WARNING):
        assert isinstance(stopped, Stopped)
        for stopped.at in (5.0, 5.0, 60.0, 66.0, 66.0):
            notifier.receive("insert", "x" * 7_000)
        notifier.receive("signal", "y")
        notifier.receive("signal", '{"action": "stage"}')
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == [
        "ignored garbage on channel insert (1 since the last report)",
        "ignored garbage on channel insert (3 since the last report)",
        "ignored garbage on channel signal (1 since the last report)",
    ]
    assert max(map(len, said)) < 200


def test_a_subscriber_that_fails_again_and_again_is_logged_once(
    notifier: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: dict[str, Any]) -> None:
        raise ValueError("bad subscriber")

    notifier.subscribe("insert", fail)
    for _ in range(100):
        notifier.dispatch("insert", {})
    assert len(caplog.records) == 1


def test_a_subscriber_that_cannot_interpret_payloads_is_logged_once_without_a_traceback(
    notifier: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise ConfigError("no sense")

    notifier.subscribe("signal", refuse)
    for _ in range(100):
        notifier.dispatch("signal", {"action": "?"})
    (record,) = caplog.records
    assert record.getMessage() == "ignored a payload on channel signal: no sense (1 since the last report)"
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


def test_without_listening_a_notifier_only_polls() -> None:
    assert type(make(Database("postgresql+asyncpg://h/d"), "poll")) is PollNotifier
    assert type(make(Database("sqlite+aiosqlite://"), "poll")) is PollNotifier


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql+asyncpg://nobody@localhost/none", ListenNotifier),
        ("postgresql+psycopg://nobody@localhost/none", ListenNotifier),
        ("sqlite+aiosqlite://", DataVersionNotifier),
        ("sqlite+aiosqlite:///some.db", DataVersionNotifier),
    ],
)
def test_each_database_has_the_notifier_that_fits(url: str, kind: type[Notifier]) -> None:
    assert type(make(Database(url))) is kind
