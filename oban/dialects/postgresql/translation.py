"""How each driver of PostgreSQL takes the parameters of libpq that a URL can have."""

import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

from sqlalchemy import URL

from oban.errors import ConfigError

#: The parameters of a URL.
Query = dict[str, Any]


def boolean(value: str) -> bool:
    """The truth value of a parameter; raises ValueError for any other word."""
    try:
        return {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}[value.lower()]
    except KeyError:
        raise ValueError(value) from None


#: Arguments of the driver's own `connect` that a URL can have besides, and their types.
NATIVE: dict[str, dict[str, Callable[[str], Any]]] = {
    "asyncpg": {
        "timeout": float,
        "command_timeout": float,
        "statement_cache_size": int,
        "prepared_statement_cache_size": int,
        "max_cached_statement_lifetime": int,
        "max_cacheable_statement_size": int,
        "direct_tls": boolean,
    },
    "psycopg": {"prepare_threshold": int},
    "psycopg2": {},
    "pg8000": {"timeout": float, "tcp_keepalive": boolean},
}

#: Values that change nothing for a driver without the parameter.
_HARMLESS: dict[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslnegotiation": ("postgres",),
    "sslsni": ("1",),
    "target_session_attrs": ("any",),
}
#: asyncpg reads these only from a connection string of its own.
_ASYNCPG_DSN = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
_ASYNCPG_SAME = ("passfile", "service", "servicefile", "target_session_attrs", "krbsrvname", "gsslib")
#: Parameters of a socket, with the names of its options.
_KEEPALIVES = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def _asyncpg(query: Query, _: URL) -> tuple[Query, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    dsn, settings, kept = {}, {}, {}
    options = _socket_options(query)
    for key, value in query.items():
        if key in ("host", "port", "plugin"):
            kept[key] = value
        elif key in _ASYNCPG_DSN:
            dsn[key] = value
        elif key in _ASYNCPG_SAME:
            arguments[key] = value
        elif key in ("application_name", "options"):
            settings[key] = value
        elif key == "fallback_application_name":
            settings.setdefault("application_name", query.get("application_name", value))
        elif key == "connect_timeout":
            arguments["timeout"] = float(value) if int(value) > 0 else None
        elif key == "sslnegotiation" and value == "direct":
            arguments["direct_tls"] = True
        # The encoding on the wire is the driver's business, as Python's strings have none.
        elif key not in ("client_encoding", "keepalives", *_KEEPALIVES) and value not in _HARMLESS.get(
            key, ()
        ):
            _refuse("asyncpg", key, value)
    if dsn.get("sslrootcert") == "system":
        _use_system_certificates(dsn, arguments)
    if dsn:
        _check_files(dsn)
        arguments["dsn"] = f"postgresql://?{urlencode(dsn)}"
    if settings:
        arguments["server_settings"] = settings
    if options:
        arguments["connection_class"] = _asyncpg_class(options)
    return kept, arguments


def _use_system_certificates(dsn: Query, arguments: dict[str, Any]) -> None:
    if dsn.get("sslmode", "verify-full") != "verify-full":
        raise ConfigError("sslrootcert=system in the database URL needs sslmode=verify-full")
    if other := [key for key in dsn if key not in ("sslmode", "sslrootcert")]:
        _refuse("asyncpg", f"sslrootcert=system together with {other[0]}")
    dsn.clear()
    # asyncpg's word for the certificates of the system, with the host name checked.
    arguments["ssl"] = True


def _check_files(dsn: Query) -> None:
    """Raise `ConfigError` for a missing file: asyncpg would not say which one."""
    mode = dsn.get("sslmode", "prefer")
    used: tuple[str, ...] = () if mode == "disable" else ("sslcert", "sslkey")
    if mode in ("require", "verify-ca", "verify-full"):
        used += ("sslrootcert", "sslcrl")
    for key in used:
        if (path := dsn.get(key)) and not Path(path).is_file():
            raise ConfigError(f"{key} in the database URL: there is no file {path}")


def _socket_options(query: Query) -> list[tuple[int, int, int]]:
    if not any(key == "keepalives" or key in _KEEPALIVES for key in query) or query.get("keepalives") == "0":
        return []
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for key, name in _KEEPALIVES.items():
        # 0 means the default of the system. Not every system has all of these options.
        if (value := int(query.get(key, 0))) > 0 and hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _asyncpg_class(options: list[tuple[int, int, int]]) -> type:
    """A class of connections that set options of their socket."""
    import asyncpg  # type: ignore[import-untyped]

    class Connection(asyncpg.Connection):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            for argument in arguments:
                # The transport, wherever it is among the arguments.
                if find := getattr(argument, "get_extra_info", None):
                    _set_options(find("socket"), options)

    return Connection


def _set_options(sock: socket.socket | None, options: list[tuple[int, int, int]]) -> None:
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        for option in options:
            sock.setsockopt(*option)


def _psycopg(query: Query, _: URL) -> tuple[Query, dict[str, Any]]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    _check_libpq("psycopg", query, make_conninfo, ProgrammingError)
    return query, {}


def _psycopg2(query: Query, _: URL) -> tuple[Query, dict[str, Any]]:
    from psycopg2 import ProgrammingError  # type: ignore[import-untyped]
    from psycopg2.extensions import make_dsn  # type: ignore[import-untyped]

    _check_libpq("psycopg2", query, make_dsn, ProgrammingError)
    return query, {}


def _check_libpq(driver: str, query: Query, parse: Callable[..., Any], error: type[Exception]) -> None:
    """Raise `ConfigError` for a parameter that is newer than the libpq of the driver."""
    for key, value in query.items():
        if key == "plugin" or not isinstance(value, str):
            continue
        try:
            parse(**{key: value})
        except error:
            raise ConfigError(
                f"the libpq of {driver} is too old for the parameter {key} of the database URL; remove it"
            ) from None


def _pg8000(query: Query, url: URL) -> tuple[Query, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    kept = {}
    for key, value in query.items():
        if key == "host" and isinstance(value, str) and value.startswith("/"):
            port = query.get("port") or url.port or 5432
            arguments |= {"host": None, "unix_sock": f"{value}/.s.PGSQL.{port}"}
        elif key == "host" and isinstance(value, str):
            arguments["host"] = value
        elif key == "port":
            arguments["port"] = int(value)
        elif key in ("application_name", "plugin"):
            kept[key] = value
        elif key == "options":
            arguments["startup_params"] = {"options": value}
        elif key == "keepalives":
            arguments["tcp_keepalive"] = value != "0"
        elif key not in ("sslmode", "sslrootcert", "client_encoding") and value not in _HARMLESS.get(key, ()):
            _refuse("pg8000", key, value)
    # A socket on this machine has no TLS.
    if "sslmode" in query and "unix_sock" not in arguments:
        arguments["ssl_context"] = _ssl_context(query["sslmode"], query.get("sslrootcert"))
    return kept, arguments


def _ssl_context(mode: str, root: str | None) -> Any:
    # pg8000 tries TLS for None, uses none for False, and insists on it for True without a check.
    if mode in ("disable", "allow", "prefer"):
        return False if mode == "disable" else None
    if mode == "require" and not root:
        return True
    if root and root != "system" and not Path(root).is_file():
        raise ConfigError(f"sslrootcert in the database URL: there is no file {root}")
    context = ssl.create_default_context(cafile=None if root == "system" else root)
    context.check_hostname = mode == "verify-full"
    return context


def _refuse(driver: str, key: str, value: object = None) -> NoReturn:
    secret = any(word in key for word in ("pass", "key", "secret"))
    written = f"{key}={value}" if isinstance(value, str) and not secret else key
    advice = "write the address in place of the host name" if key == "hostaddr" else "leave it out"
    raise ConfigError(
        f"{driver} does not support {written}, which is in the database URL: {advice}, or use"
        " postgresql+psycopg://"
    )


#: By driver, the function that splits parameters into those for SQLAlchemy and arguments of `connect`.
DRIVERS: Mapping[str, Callable[[Query, URL], tuple[Query, dict[str, Any]]]] = {
    "asyncpg": _asyncpg,
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "pg8000": _pg8000,
}
