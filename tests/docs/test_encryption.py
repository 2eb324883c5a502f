"""Every snippet of `docs/guides/encryption.md` runs unchanged and has the documented effect."""

import os

import pytest
from sqlalchemy import URL, select

from oban import Job, JobState, Oban, Worker, filters, job
from oban.encryption import generate_key, key_id
from oban.errors import DecryptionFailed
from oban.testing import assert_enqueued, drain_queue
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage

PAGE = Page("guides/encryption.md")
CARD = "4111-1111-1111-1111"

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    return sqlite_url


@pytest.fixture
def stage(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> Stage:
    old, new = generate_key(), generate_key()
    monkeypatch.setenv("CHARGE_KEY", old)
    monkeypatch.setenv("CHARGE_KEYS", f"{new},{old}")
    stage = Stage(oban)
    stage.names |= {"__name__": "app", "os": os, "Job": Job, "Worker": Worker, "job": job, "select": select}
    stage.names |= {"filters": filters, "assert_enqueued": assert_enqueued}
    return stage


def containing(part: str) -> Snippet:
    (snippet,) = (snippet for snippet in PAGE.snippets if part in snippet.code)
    return snippet


async def test_the_page_from_its_first_to_its_last_snippet(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    async def run(part: str) -> str:
        ran.append(containing(part))
        await stage.run(ran[-1])
        return capsys.readouterr().out

    assert (await run("print(charge.args)")).startswith("{'encrypted': 'gAAAAA")
    assert await run("async def refund") == ""
    assert await run("print(Charge.args_of(charge)") == "5\n"
    await run("oban.update_job(")
    await run("await assert_enqueued(")
    assert await run("class Invoice") == "True True\n"
    await drain_queue(oban=stage.oban)
    printed = capsys.readouterr().out
    assert printed.splitlines() == [f"charging {CARD}", f"refunding 5 to {CARD}", "invoice for 12"]

    waiting = await stage.names["Charge"].enqueue({"card": CARD})
    await run('os.environ["CHARGE_KEYS"]')
    await run("def encrypt_again(")
    new_key, _ = os.environ["CHARGE_KEYS"].split(",")

    class WithNewKey(Worker, encrypt=new_key, name="app.Charge"):
        async def process(self, job: Job) -> None:
            assert job.args == {"card": CARD}

    await drain_queue(oban=stage.oban)
    ended = await stage.oban.get_job(waiting.id)
    assert ended is not None
    assert ended.state == JobState.COMPLETED
    assert {snippet.line for snippet in ran} == {snippet.line for snippet in PAGE.snippets}


async def test_the_error_of_a_wrong_key_is_the_one_that_is_shown(stage: Stage) -> None:
    await stage.run(containing("print(charge.args)"))
    charge = stage.names["Charge"]
    sealed = charge.new({"card": CARD})
    keys = [generate_key(), generate_key()]

    class Other(Worker, encrypt=keys, name="app.Charge"):
        async def process(self, job: Job) -> None: ...

    with pytest.raises(DecryptionFailed) as caught:
        Other.args_of(sealed)
    (shown,) = fenced("docs/guides/encryption.md", "text")
    told = " ".join(shown.split()).removeprefix("DecryptionFailed: ")
    told = told.replace("1f0c9a3b", key_id(keys[0])).replace("77aa01de", key_id(keys[1]))
    told_before, told_after = told.split("2026-01-31 08:30")
    assert str(caught.value).startswith(told_before)
    assert str(caught.value).endswith(told_after)
