"""What `oban start` prints before it runs jobs, and what it warns about."""

import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

import oban as package
from oban import Oban
from oban.cli import banner
from oban.registry import registry
from tests.support.commands import node, text, until
from tests.support.workers import Noop

POSTGRESQL = "postgresql://me:secret@host/shop?passfile=secret&sslpassword=secret"


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An empty registry."""
    saved = dict(registry)
    registry.clear()
    yield registry
    registry.clear()
    registry.update(saved)


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "oban")


def define(workers: dict[str, Any], queue: str, *names: str) -> None:
    for name in names:

        class Defined(Noop, queue=queue, name=name):
            pass

        assert name in workers


def test_the_banner_names_queues_that_start_paused(capsys: pytest.CaptureFixture[str]) -> None:
    queues: dict[str, Any] = {"media": {"limit": 2, "paused": True}, "mail": 10}
    banner.show(Oban("postgresql://host/shop", queues=queues), "web-1", as_record=False)
    assert "  queues    media:2 (paused), mail:10\n" in capsys.readouterr().err


def test_the_banner_names_version_database_queues_and_workers_without_passwords(
    workers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    define(workers, "media", "app.Resize", "app.Crop")
    banner.show(Oban(POSTGRESQL, prefix="jobs", queues={"media": 2, "mail": 10}), "web-1", as_record=False)
    assert capsys.readouterr().err == (
        f"oban {package.__version__}\n"
        "  node      web-1, instance Oban\n"
        "  database  postgresql+asyncpg://me:***@host/shop?passfile=***&sslpassword=***, schema jobs\n"
        "  queues    media:2, mail:10\n"
        "  workers   app.Crop, app.Resize\n"
    )


def test_the_banner_is_a_record_with_fields_for_json(
    workers: dict[str, Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    define(workers, "media", *(f"w{number:02}" for number in range(banner.SHOWN + 3)))
    banner.show(Oban(POSTGRESQL, queues={"media": 2}), "web-1", as_record=True)
    [record] = caplog.records
    assert record.getMessage() == f"oban {package.__version__}"
    fields = vars(record)
    assert (fields["version"], fields["node"], fields["prefix"]) == (package.__version__, "web-1", None)
    assert fields["queues"] == {"media": 2}
    assert (fields["workers"][-1], fields["worker_count"]) == ("w07", banner.SHOWN + 3)
    assert "secret" not in str(fields)
    assert capsys.readouterr().err == ""


def test_only_the_first_of_many_workers_are_named(
    workers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    define(workers, "default", *(f"w{number:04}" for number in range(1_010)))
    banner.show(Oban("sqlite://", queues={"default": 2}), "a", as_record=False)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "workers" in line]
    assert line.endswith("w0006, w0007 and 1,002 more")


def test_a_node_without_workers_says_how_to_name_them(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    banner.show(Oban("sqlite://", queues={"default": 2}), "a", as_record=False)
    assert "  workers   none\n" in capsys.readouterr().err
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "--import MODULE" in record.getMessage()
    assert "oban start MODULE:INSTANCE" in record.getMessage()


def test_a_worker_whose_queue_does_not_run_here_is_a_warning(
    workers: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    define(workers, "media", "app.Resize", "app.Crop")
    define(workers, "mail", "app.Send")
    define(workers, "default", "app.Runs")
    banner.show(Oban("sqlite://", queues={"default": 2}), "a", as_record=False)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "this node does not run the queues mail, media of the workers app.Crop, app.Resize, app.Send: add"
        " --queues mail:10,media:10, unless another node does"
    ]


def test_a_level_above_info_leaves_out_the_banner_but_not_the_warning(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING, "oban")
    banner.show(Oban("sqlite://", queues={"default": 2}), "a", as_record=False)
    assert capsys.readouterr().err == ""
    assert "no worker is known" in caplog.text


def test_several_processes_print_the_banner_once(folder: Path, sqlite_url: URL) -> None:
    options = ["--import", "app.workers", "--node", "web", "--processes", "2", "--log-format", "json"]
    with node("--database-url", text(sqlite_url), "--queues", "other:3", *options) as process:
        lines = until(process, "node web-2 runs other:3")
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        lines += list(process.stdout)
    records = [json.loads(line) for line in lines]
    assert [record["node"] for record in records if "worker_count" in record] == ["web-1 to web-2"]
    warned = [record["message"] for record in records if record["level"] == "WARNING"]
    assert [message.split(" of the workers ")[0] for message in warned] == [
        "this node does not run the queue default"
    ]
