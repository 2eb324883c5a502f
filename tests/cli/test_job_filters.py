"""Each filter of `oban jobs`, by the jobs that it lists, and what is wrong usage."""

import asyncio
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban import Oban
from oban.cli.instance import Instance
from tests.cli.shop import Shop
from tests.support.rows import row

NOW = datetime.now(UTC)
MAIL: dict[str, Any] = {
    "queue": "mail",
    "worker": "app.SendEmail",
    "priority": 0,
    "args": {"customer": {"id": 7, "name": "Ann Lee"}, "items": [{"sku": "A-1"}], "cc": None},
    "meta": {"source": "api", "a.b": 1},
    "tags": ["eu", "vip"],
    "attempted_by": ["node-1", "0b5f"],
    "inserted_at": NOW - timedelta(hours=3),
}
REPORT: dict[str, Any] = {
    "queue": "Reports & more",
    "worker": "app.Report",
    "priority": 9,
    "args": {"customer": {"id": "7"}, "items": {"0": {"sku": "A-1"}}, "done": True},
    "meta": {"source": 7},
    "tags": ["eu"],
    "attempted_by": ["node-2", "1c6a"],
    "inserted_at": NOW - timedelta(minutes=5),
}
OTHER: dict[str, Any] = {"args": {}, "priority": 4, "inserted_at": NOW - timedelta(days=20)}

#: By the arguments, the jobs that are listed: 1 is of MAIL, 2 of REPORT, 3 is the other one.
FILTERS: dict[str, list[int]] = {
    "": [1, 2, 3],
    "--state completed": [1],
    "--state COMPLETED --state retryable": [1, 2],
    "--queue mail": [1],
    "--queue mail --queue default": [1, 3],
    "--queue 'Reports & more'": [2],
    "--queue nothing": [],
    "--worker app.Report": [2],
    "--worker app.Report --worker app.SendEmail": [1, 2],
    "--tag eu": [1, 2],
    "--tag EU --tag vip": [1],
    "--priority 0": [1],
    "--priority 0 --priority 9": [1, 2],
    "--node node-1": [1],
    "--older-than 2h": [1, 3],
    "--older-than 1w": [3],
    "--older-than 1h30m --newer-than 1d": [1],
    "--newer-than 600s": [2],
    "--newer-than 0.5h": [2],
    "--args customer.id=7": [1],
    "--args customer.id='\"7\"'": [2],
    "--args customer.name='Ann Lee'": [1],
    "--args customer.name='\"Ann Lee\"'": [1],
    "--args customer.name=": [],
    "--args customer": [1, 2],
    "--args cc": [1],
    "--args cc=null": [1],
    "--args done=true": [2],
    "--args done='\"true\"'": [],
    "--args items.0.sku=A-1": [1, 2],
    "--args items.1.sku=A-1": [],
    '--args items=\'[{"sku": "A-1"}]\'': [1],
    '--args \'{"customer": {"id": 7}}\'': [1],
    '--args \'{"customer": {"id": 7}, "cc": null}\'': [1],
    '--args \'{"customer": {"id": 7}, "cc": 1}\'': [],
    "--args missing.path=7": [],
    "--args missing": [],
    "--args customer.id=NaN": [],
    "--meta source=api": [1],
    "--meta source=7": [2],
    "--meta source": [1, 2],
    "--meta '{\"a.b\": 1}'": [1],
    "--queue mail --args customer.id=7 --state completed --tag vip": [1],
    "--queue mail --args customer.id=7 --state retryable": [],
    "--args customer --args done": [2],
    "--limit 2 --sort oldest": [1, 2],
}


def ids(jobs: Iterable[dict[str, Any]]) -> list[int]:
    return sorted(job["id"] for job in jobs)


def test_each_filter_finds_its_jobs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add_all([row("completed", **MAIL), row("retryable", **REPORT), row(**OTHER)])
    oban = Oban(shop.url)
    # Connecting takes most of the time of a command.
    with asyncio.Runner() as runner:
        monkeypatch.setattr(Instance, "call", lambda _, function, **__: runner.run(function(oban)))
        found = {command: ids(shop.json("list", *shlex.split(command))) for command in FILTERS}
        runner.run(oban.engine.dispose())
    assert found == FILTERS


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("--state done", "'done' is not one of 'available', 'scheduled'"),
        ("--older-than 2", "'2' is not a duration such as 90s, 15m, 2h, 7d or 1w."),
        ("--older-than 2y", "'2y' is not a duration"),
        ("--older-than -1h", "'-1h' is not a duration"),
        ("--newer-than 99999999999d", "'99999999999d' is too long."),
        ("--newer-than 999999d", "--newer-than: the time is before the year 1."),
        ("--priority 10", "10 is not in the range 0<=x<=9."),
        ("--limit 0", "0 is not in the range"),
        ("--args =7", "--args: '=7' is not PATH=VALUE, such as customer.id=7"),
        ("--args a..b=7", "--args: 'a..b=7' is not PATH=VALUE"),
        ("--args ''", "--args: '' is not PATH=VALUE"),
        ("--meta '{\"a\": '", "--meta: '{\"a\": ' is not a JSON object."),
        ("--meta {}", "--meta: an empty object is contained in every job's: leave it out."),
        ("--args a.1.1.1.1.1=7", "the path a.1.1.1.1.1 has more than 4 numbers; use a JSON object."),
        ("--tag ' '", "at least a tag that is not blank is needed"),
        ("--worker ' '", "worker must not be blank"),
        ("--queue '\udcff'", "queue"),
        ("--sort id", "'id' is not one of 'newest', 'oldest', 'due'"),
    ],
)
def test_a_wrong_filter_is_wrong_usage(sqlite_shop: Shop, command: str, problem: str) -> None:
    result = sqlite_shop.invoke("list", *shlex.split(command))
    assert result.exit_code == 2, result.output
    assert problem in result.stderr.replace("\n", " ")
