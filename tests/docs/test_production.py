"""The examples of `docs/guides/production.md` run, and its figures match the code."""

from pathlib import Path

import pytest

from oban import Oban
from oban.config import Options
from oban.runner import runner
from oban.runner.execution import session_pool
from tests.docs.commands import URL, define, run
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/guides/production.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBAN_DATABASE_URL", raising=False)
    run(["oban", "install", "--database-url", URL], tmp_path)
    return tmp_path


async def test_a_node_runs_with_the_retention_of_the_page(folder: Path) -> None:
    oban = define(PAGE)["oban"]
    assert isinstance(oban, Oban)
    async with oban:
        kept = oban.options.retention
        assert (kept.completed, kept.discarded) == (6 * 3600, None)
        assert kept.queues["audit"].completed is None
        assert kept.workers["app.workers.Ping"].completed == 60


def test_the_figures_of_the_page_match_the_code() -> None:
    text = " ".join((ROOT / PAGE).read_text().split())
    options = Options()
    assert f"within one lease ({options.lease:g} seconds" in text
    assert options.heartbeat_interval == options.election_interval == options.lease / 4
    assert f"the grace period, {options.shutdown_grace_period:g} seconds" in text
    assert f"`statement_timeout`, {options.statement_timeout:g} seconds" in text
    assert f"at most 2N + {runner.SERVICE_CONNECTIONS} connections" in text
    assert f"(never more than {runner.MAX_CONNECTIONS})" in text
    assert f"`session_connections` ({options.session_connections} by default)" in text
    assert f"up to {session_pool.OPENED_AHEAD}, and the others" in text
    day = 86_400
    kept = options.retention
    assert (kept.completed, kept.cancelled, kept.discarded) == (day, day, 7 * day)
    assert "Completed and cancelled jobs are kept for a day, discarded jobs for a week" in text


def test_these_tests_run_every_fenced_block_of_the_page() -> None:
    assert len(fenced(PAGE, "python")) == 1
    # The other one is output, which tests/cli/test_banner.py compares.
    assert (ROOT / PAGE).read_text().count("```") == 4
