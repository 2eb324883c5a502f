"""The parameters of a PostgreSQL URL: those of libpq are checked, and translated for the driver."""

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL

from oban import suggestions
from oban.dialects.postgresql import translation
from oban.errors import ConfigError

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
#: Values of the parameters that have a fixed set of them.
_CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
#: An option of the engine, not of the connection.
PRE_PING = "pool_pre_ping"
_INTEGERS = {
    *("connect_timeout", "tcp_user_timeout"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
}
#: All other parameters of libpq: https://www.postgresql.org/docs/current/libpq-connect.html
_TEXTS = {
    *("host", "hostaddr", "port", "application_name", "fallback_application_name", "client_encoding"),
    *("options", "passfile", "service", "servicefile", "require_auth", "requirepeer", "replication"),
    *("sslcert", "sslkey", "sslpassword", "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni"),
    *("sslkeylogfile", "sslcompression", "min_protocol_version", "max_protocol_version"),
    *("krbsrvname", "gsslib", "gssdelegation", "scram_client_key", "scram_server_key"),
    *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
}
_LIBPQ = _TEXTS | _INTEGERS | _CHOICES.keys()
#: Parameters of tools other than libpq, and what to write instead.
_FOREIGN = {
    "schema": "pass prefix=… (--prefix), or write options=-csearch_path%3D…",
    "currentschema": "write options=-csearch_path%3D…",
    "pgbouncer": "pass notifier='poll' or listen_url=… behind a pooler",
    "connection_limit": "pass an engine with pool_size=… instead of a URL",
    "pool_size": "pass an engine with pool_size=… instead of a URL",
    "max_overflow": "pass an engine with max_overflow=… instead of a URL",
    "pool_recycle": "pass an engine with pool_recycle=… instead of a URL",
    "requiressl": "write sslmode=require",
}
# Several hosts, as libpq takes them: SQLAlchemy cannot parse more than one port there.
_HOSTS = re.compile(
    r"(?P<start>postgres[a-z0-9+_]*://(?:[^/?@]*@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<path>(?:/[^?]*)?)\??(?P<query>.*)"
)


def spread_hosts(url: str) -> str:
    """Write several hosts as SQLAlchemy reads them: `//a:1,b:2/name` becomes `///name?host=a:1&host=b:2`."""
    if (match := _HOSTS.fullmatch(url)) is None:
        return url
    query = "&".join([f"host={host}" for host in match["hosts"].split(",")] + [match["query"]])
    return f"{match['start']}{match['path'] or '/'}?{query}"


def _with_ports(hosts: str | tuple[str, ...], ports: list[str]) -> tuple[str, ...]:
    """Several hosts, each with its port: asyncpg needs them all."""
    names = hosts.split(",") if isinstance(hosts, str) else hosts
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ConfigError(f"the database URL has {len(names)} hosts, but {len(ports)} ports")
    return tuple(
        name if re.search(r":\d+$", name) else f"{name.rstrip(':')}:{port or 5432}"
        for name, port in zip(names, ports, strict=True)
    )


def normalized(url: URL, driver: str) -> URL:
    """The URL with its parameters checked, and those in the spelling of other tools written as libpq does.

    Raises:
        ConfigError: A parameter is unknown, has a wrong value, or the driver has nothing like it.
    """
    native = translation.NATIVE[driver]
    query: dict[str, Any] = {}
    for key, values in url.query.items():
        value = values if isinstance(values, str) else values[-1]
        if key == "host":
            query[key] = values
        elif key == "options" and not isinstance(values, str):
            query[key] = " ".join(values)
        elif key == "ssl":
            # libpq takes ssl=true of JDBC, and SQLAlchemy's users write sslmode as ssl for asyncpg.
            mode = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
            query.setdefault("sslmode", mode.get(value.lower(), value))
        elif key in ("dbname", "database"):
            url = url.set(database=value)
        elif key == "user":
            url = url.set(username=value)
        elif key == "password":
            url = url.set(password=value)
        elif key in _LIBPQ or key in native or key in ("plugin", PRE_PING):
            query[key] = value
        else:
            raise ConfigError(_unknown(key, (*_LIBPQ, *native)))
    if url.host and url.host.lower().startswith("%2f"):
        query["host"] = unquote(url.host)
        url = url.set(host=None)
    if not isinstance(hosts := query.get("host", ""), str) or "," in hosts:
        query["host"] = _with_ports(hosts, query.pop("port", str(url.port or 5432)).split(","))
        url = url.set(port=None)
    for key, value in query.items():
        _check_value(key, value)
        if key in native:
            _convert(key, value, native[key])
    url = url.set(query=query)
    arguments(url, driver)
    return url


def arguments(url: URL, driver: str) -> tuple[URL, dict[str, Any]]:
    """The URL to give to SQLAlchemy, and the driver's arguments that stand for the rest of its parameters."""
    query: dict[str, Any] = dict(url.query)
    query.pop(PRE_PING, None)
    native = translation.NATIVE[driver]
    own = {key: _convert(key, query.pop(key), kind) for key, kind in native.items() if key in query}
    kept, translated = translation.DRIVERS[driver](query, url)
    return url.set(query=kept), own | translated


def _check_value(key: str, value: Any) -> None:
    choices = _CHOICES.get(key)
    if choices and value not in choices:
        raise ConfigError(f"{key} in the database URL must be one of {', '.join(choices)}, not {value!r}")
    if key in _INTEGERS:
        _convert(key, value, int)
    if key == PRE_PING:
        _convert(key, value, translation.boolean)


def pre_ping(url: URL) -> bool:
    """Whether a URL asks for a test of each connection before its use."""
    return translation.boolean(str(url.query.get(PRE_PING, "false")))


def _convert(key: str, value: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        return kind(value)
    except ValueError:
        number = "a whole number" if kind is int else "a number" if kind is float else "true or false"
        raise ConfigError(f"{key} in the database URL must be {number}, not {value!r}") from None


def _unknown(key: str, known: Iterable[str]) -> str:
    problem = f"the database URL has the unknown parameter {key}"
    if advice := _FOREIGN.get(key.lower()):
        return f"{problem}; {advice}"
    near = suggestions.similar(key.lower(), known)
    hint = f"did you mean {near}? A" if near else "a"
    return f"{problem}; {hint} setting of the server is written as options=-c{key}%3D…"
