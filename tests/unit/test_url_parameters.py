"""The parameters of a PostgreSQL URL: which ones each driver gets, and which ones are refused."""

from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import URL

from oban import dialects, migration
from oban.errors import ConfigError, UnsupportedDatabase

POSTGRESQL = dialects.by_name("postgresql")


def arguments(url: str, asynchronous: bool | None = None) -> dict[str, Any]:
    """What the driver's `connect` would get for a URL."""
    parsed = dialects.parse_url(url, asynchronous=asynchronous)
    driver_url = POSTGRESQL.driver_url(parsed)
    passed = dict(driver_url.get_dialect()().create_connect_args(driver_url)[1])
    passed |= POSTGRESQL.engine_options(parsed).get("connect_args", {})
    passed.pop("context", None)
    return passed


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgres+asyncpg", "postgresql+asyncpg"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_asyncpg_gets_the_mode_of_tls_in_a_connection_string_of_its_own(scheme: str, mode: str) -> None:
    passed = arguments(f"{scheme}://u:p@h:5433/d?sslmode={mode}", True)
    address = {"user": "u", "password": "p", "host": "h", "port": 5433, "database": "d"}
    assert passed == address | {"dsn": f"postgresql://?sslmode={mode}"}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_drivers_with_libpq_get_its_parameters_as_they_are(driver: str) -> None:
    query = (
        "sslmode=verify-full&channel_binding=require&connect_timeout=5&keepalives_idle=30&gssencmode=disable"
    )
    passed = arguments(f"postgresql+{driver}://h/d?{query}&options=-csearch_path%3Dpublic")
    expected = dict(pair.split("=") for pair in query.split("&"))
    assert passed == {"host": "h", "dbname": "d", "options": "-csearch_path=public", **expected}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("application_name=web", {"server_settings": {"application_name": "web"}}),
        ("fallback_application_name=web", {"server_settings": {"application_name": "web"}}),
        ("application_name=a&fallback_application_name=b", {"server_settings": {"application_name": "a"}}),
        ("fallback_application_name=b&application_name=a", {"server_settings": {"application_name": "a"}}),
        ("connect_timeout=5", {"timeout": 5.0}),
        ("connect_timeout=0", {"timeout": None}),
        ("options=-csearch_path%3Da", {"server_settings": {"options": "-csearch_path=a"}}),
        ("options=-ca%3D1&options=--b%3D2", {"server_settings": {"options": "-ca=1 --b=2"}}),
        ("channel_binding=prefer&gssencmode=prefer&client_encoding=utf8&load_balance_hosts=disable", {}),
        ("sslmode=&application_name=", {}),
        ("keepalives=0", {}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("passfile=/p&service=s&krbsrvname=k", {"passfile": "/p", "service": "s", "krbsrvname": "k"}),
        ("ssl=true", {"dsn": "postgresql://?sslmode=require"}),
        ("ssl=false", {"dsn": "postgresql://?sslmode=disable"}),
        ("ssl=verify-ca", {"dsn": "postgresql://?sslmode=verify-ca"}),
        ("sslmode=verify-full&sslrootcert=system", {"ssl": True}),
        (
            "sslnegotiation=direct&sslmode=require",
            {"dsn": "postgresql://?sslmode=require", "direct_tls": True},
        ),
        ("command_timeout=2.5&statement_cache_size=0", {"command_timeout": 2.5, "statement_cache_size": 0}),
        ("prepared_statement_cache_size=0", {"prepared_statement_cache_size": 0}),
        ("pool_pre_ping=true", {}),
    ],
)
def test_asyncpg_gets_what_stands_for_a_parameter_of_libpq(query: str, expected: dict[str, Any]) -> None:
    assert arguments(f"postgresql+asyncpg://h/d?{query}") == {"host": "h", "database": "d", **expected}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sslmode=disable", {"ssl_context": False}),
        ("sslmode=prefer", {"ssl_context": None}),
        ("sslmode=require", {"ssl_context": True}),
        ("application_name=web", {"application_name": "web"}),
        ("options=-csearch_path%3Da", {"startup_params": {"options": "-csearch_path=a"}}),
        ("keepalives=0", {"tcp_keepalive": False}),
        ("host=/run/pg&port=5433", {"host": None, "unix_sock": "/run/pg/.s.PGSQL.5433", "port": 5433}),
        ("host=db&port=5433", {"host": "db", "port": 5433}),
    ],
)
def test_pg8000_gets_what_stands_for_a_parameter_of_libpq(query: str, expected: dict[str, Any]) -> None:
    assert arguments(f"postgresql+pg8000:///d?{query}") == {"database": "d", **expected}


def test_pg8000_checks_the_certificate_and_the_name_of_the_server_as_the_mode_says() -> None:
    authority = arguments("postgresql+pg8000://h/d?sslmode=verify-ca&sslrootcert=system")["ssl_context"]
    full = arguments("postgresql+pg8000://h/d?sslmode=verify-full")["ssl_context"]
    assert (authority.check_hostname, full.check_hostname) == (False, True)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("u@/d?host=/run/pg", "/run/pg", None),
        ("u@/d?host=/run/pg&port=5433", "/run/pg", 5433),
        ("u@%2Frun%2Fpg:5433/d", "/run/pg", 5433),
        ("u@a:1,b:2/d", ["a", "b"], [1, 2]),
        ("u@a,b/d", ["a", "b"], [5432, 5432]),
        ("u:a%2Cb@a,b:1/d?sslmode=disable", ["a", "b"], [5432, 1]),
        ("u@/d?host=a,b&port=1,2", ["a", "b"], [1, 2]),
        ("u@/d?host=a:1&host=b:2", ["a", "b"], [1, 2]),
        ("?host=a&port=1&user=u&dbname=d", "a", 1),
    ],
)
def test_sockets_and_several_hosts_are_written_as_libpq_takes_them(
    address: str, host: object, port: object
) -> None:
    passed = arguments(f"postgresql+asyncpg://{address}")
    assert (passed["user"], passed["database"], passed["host"]) == ("u", "d", host)
    assert passed.get("port") == port
    libpq = arguments(f"postgresql+psycopg://{address}")
    as_text = [",".join(map(str, value)) if isinstance(value, list) else value for value in (host, port)]
    assert [libpq["host"], libpq.get("port")] in (as_text, [as_text[0], str(port)])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslmod=require", "unknown parameter sslmod; did you mean sslmode?"),
        ("SSLMODE=require", "unknown parameter SSLMODE; did you mean sslmode?"),
        ("statement_timeout=5", "is written as options=-cstatement_timeout%3D"),
        ("schema=public", "unknown parameter schema; pass prefix="),
        ("pgbouncer=true", "behind a pooler"),
        ("sslmode=on", "sslmode in the database URL must be one of disable, allow, prefer, require"),
        ("channel_binding=yes", "channel_binding in the database URL must be one of"),
        ("target_session_attrs=master", "must be one of any, read-write"),
        ("connect_timeout=2s", "connect_timeout in the database URL must be a whole number, not '2s'"),
        ("pool_pre_ping=maybe", "pool_pre_ping in the database URL must be true or false"),
        ("command_timeout=x", "command_timeout in the database URL must be a number"),
        (
            "channel_binding=require",
            "asyncpg does not support channel_binding=require, .* leave it out, or use",
        ),
        ("gssencmode=require", "asyncpg does not support gssencmode=require"),
        ("hostaddr=127.0.0.1", "write the address in place of the host name"),
        ("load_balance_hosts=random", "asyncpg does not support load_balance_hosts=random"),
        ("scram_client_key=secret", "asyncpg does not support scram_client_key, which"),
        (
            "sslmode=require&sslrootcert=/no/ca.pem",
            "sslrootcert in the database URL: there is no file /no/ca.pem",
        ),
        ("sslcert=/no/client.pem", "sslcert in the database URL: there is no file /no/client.pem"),
        ("sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("host=a,b&port=1,2,3", "2 hosts, but 3 ports"),
    ],
)
def test_what_the_driver_cannot_do_is_refused_in_one_line_without_passwords(query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        dialects.parse_url(f"postgresql://u:secret@/d?{query}&sslpassword=secret", asynchronous=True)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_parameter_that_is_newer_than_the_libpq_of_the_driver_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from psycopg import ProgrammingError, conninfo

    def refuse(**parameters: str) -> str:
        raise ProgrammingError(f"invalid connection option {parameters}")

    monkeypatch.setattr(conninfo, "make_conninfo", refuse)
    with pytest.raises(ConfigError, match="the libpq of psycopg is too old for the parameter sslsni"):
        dialects.parse_url("postgresql+psycopg://h/d?sslsni=0")


def test_parsing_a_url_again_changes_nothing() -> None:
    for driver in ("asyncpg", "psycopg"):
        first = dialects.parse_url(
            f" postgres+{driver}://u@%2Frun/d?ssl=true&connect_timeout=3&dbname=e&options=-ca&options=-cb\n"
        )
        assert dialects.parse_url(first) == first
        assert dialects.parse_url(first.render_as_string(hide_password=False)) == first


def test_other_names_of_databases_and_drivers_are_understood() -> None:
    for given, driver in (("postgres", "asyncpg"), ("postgresql+psycopg3", "psycopg")):
        assert dialects.parse_url(f"{given}://h/d").drivername == f"postgresql+{driver}"
    assert dialects.parse_url("postgres://h/d", asynchronous=False).get_driver_name() == "psycopg"
    with pytest.raises(UnsupportedDatabase, match="the driver cobol is not supported for postgresql"):
        dialects.parse_url("postgres+cobol://h/d")


def test_secrets_in_parameters_are_not_shown() -> None:
    url = URL.create(
        "postgresql", "u", "hunter2", "h", query={"sslpassword": "s1", "oauth_client_secret": "s2"}
    )
    shown = dialects.redacted(dialects.parse_url(url.set(drivername="postgresql+psycopg")))
    assert not any(secret in shown for secret in ("hunter2", "s1", "s2"))


def test_a_migration_refuses_a_url_as_clients_do() -> None:
    with pytest.raises(ConfigError, match="did you mean sslmode"):
        migration.upgrade(f"postgresql://u:{quote('pass')}@h/d?sslmod=require")
