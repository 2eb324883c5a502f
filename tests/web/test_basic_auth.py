"""`basic_auth` lets users in by name and password, and takes its time for wrong ones."""

import asyncio
import base64

import pytest
from sqlalchemy import URL

from oban import Oban
from oban.errors import ConfigError
from oban.web import Access, basic_auth, dashboard, passwords
from tests.support.web import Visitor

PASSWORDS = {"ada": "correct horse", "böb": "battery:stäple"}


def header(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, as nothing here depends on it."""
    return sqlite_url


@pytest.fixture(autouse=True)
def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "PAUSE", 0.0)


async def test_the_right_password_lets_in_and_tells_who_it_is(oban: Oban) -> None:
    app = dashboard(oban, authorize=basic_auth(PASSWORDS))
    async with Visitor(app, client="203.0.113.7") as visitor:
        for user, password in PASSWORDS.items():
            response = await visitor.get("/queues", headers=header(user, password))
            assert response.status_code == 200
            assert user in response.text
    await app.aclose()


@pytest.mark.parametrize(
    "value",
    [
        *(
            header(user, password)["Authorization"]
            for user in ("ada", "eve", "")
            for password in ("", "wrong")
        ),
        header("ada", "battery:stäple")["Authorization"],
        "Basic",
        "Basic !!!",
        "Basic YWRh",
        "Basic /////w==",
        f"Basic {'A' * 100_000}",
        "Bearer YWRhOmNvcnJlY3QgaG9yc2U=",
    ],
)
async def test_anything_else_asks_again(oban: Oban, value: str) -> None:
    async with Visitor(dashboard(oban, authorize=basic_auth(PASSWORDS))) as visitor:
        response = await visitor.get("/", headers={"Authorization": value})
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Basic ")
    assert "oban_csrf" not in response.cookies


async def test_what_a_user_may_do_can_depend_on_the_name(oban: Oban) -> None:
    app = dashboard(oban, authorize=basic_auth(PASSWORDS, Access.read_only))
    async with Visitor(app) as visitor:
        visitor.http.headers.update(header("ada", PASSWORDS["ada"]))
        response = await visitor.post("/jobs/1/cancel")
    assert response.status_code in (403, 404)


async def test_an_address_gets_no_answer_to_more_than_ten_wrong_passwords_at_a_time(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "PAUSE", 60.0)
    app = dashboard(oban, authorize=basic_auth(PASSWORDS))
    async with Visitor(app, client="203.0.113.7") as guesser, Visitor(app, client="203.0.113.8") as user:
        guesses = [
            asyncio.create_task(guesser.get("/", headers=header("ada", f"guess {number}")))
            for number in range(passwords.ATTEMPTS)
        ]
        for _ in range(passwords.ATTEMPTS):
            await asyncio.sleep(0)
        refused = await guesser.get("/queues", headers=header("ada", PASSWORDS["ada"]))
        while refused.status_code != 429:
            refused = await guesser.get("/queues", headers=header("ada", PASSWORDS["ada"]))
        assert refused.headers["retry-after"] == "1"
        let_in = await user.get("/queues", headers=header("ada", PASSWORDS["ada"]))
        assert let_in.status_code == 200
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
        again = await guesser.get("/queues", headers=header("ada", PASSWORDS["ada"]))
        assert again.status_code == 200
    await app.aclose()


@pytest.mark.parametrize(
    "wrong",
    [{}, None, {"ada": "short"}, {"": "long enough"}, {"a:b": "long enough"}, {"ada": b"long enough"}],
)
def test_wrong_arguments_are_refused_without_the_password(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"^basic_auth") as caught:
        basic_auth(wrong)  # type: ignore[arg-type]
    assert "long enough" not in str(caught.value)


def test_the_function_does_not_show_its_passwords() -> None:
    assert repr(basic_auth(PASSWORDS)) == "<BasicAuth of 2 users>"
