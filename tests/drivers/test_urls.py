"""Clients that connect with the parameters of libpq in their URL, on every driver of PostgreSQL."""

import socket

import pytest
from sqlalchemy import text

from oban import Oban, SyncOban
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import socket_of
from tests.support.relay import Relay

QUERY = {
    "sslmode": "prefer",
    "application_name": "web",
    "options": "-c search_path=public --statement-timeout=7s",
    "client_encoding": "utf8",
}
SETTINGS = text(
    "SELECT current_setting('application_name'), current_setting('search_path'),"
    " current_setting('statement_timeout')"
)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_parameters_of_a_url_have_an_effect_with_asyncio(
    driver: str, postgresql_factory: PostgreSQLFactory
) -> None:
    url = postgresql_factory.through(driver).create()
    oban = Oban(url.update_query_dict(QUERY), listen_url=str(url.update_query_dict(QUERY)))
    async with oban.engine.connect() as connection:
        row = (await connection.execute(SETTINGS)).one()
    assert oban.engine.url.query["application_name"] == "web"
    await oban.stop()
    postgresql_factory.drop(url)
    assert tuple(row) == ("web", "public", "7s")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_the_parameters_of_a_url_have_an_effect_without_asyncio(
    driver: str, postgresql_factory: PostgreSQLFactory
) -> None:
    url = postgresql_factory.through(driver).create()
    oban = SyncOban(url.update_query_dict(QUERY))
    with oban.engine.connect() as connection:
        row = connection.execute(SETTINGS).one()
    oban.stop()
    postgresql_factory.drop(url)
    assert tuple(row) == ("web", "public", "7s")


async def test_asyncpg_sets_the_keepalives_of_its_socket(postgresql_factory: PostgreSQLFactory) -> None:
    url = postgresql_factory.create()
    keepalives = {"keepalives_idle": "7", "keepalives_interval": "3", "keepalives_count": "2"}
    async with Relay(url) as relay:
        oban = Oban(relay.url.set(query=keepalives))
        async with oban.engine.connect() as connection:
            sock = socket_of((await connection.get_raw_connection()).driver_connection)
            options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            values = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        await oban.stop()
    postgresql_factory.drop(url)
    assert values == [7, 3, 2]
