"""Invalid options, URLs and worker declarations are refused by name before anything starts."""

import contextlib
import dataclasses
import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker

from oban import Job, Oban, ObanError, Periodic, QueueOptions, SyncOban, Worker, job, worker
from oban.config import Options, Retention
from oban.errors import ConfigError, InstanceNotFound, InvalidJob, UnknownWorker, UnsupportedDatabase
from oban.registry import registry

SQLITE = "sqlite+aiosqlite://"

#: Values that are easily taken for "nothing".
NOTHING: list[Any] = [False, 0, "", ()]
BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"queues": {"default": {"limt": 3}}}, r"queue 'default': unknown option 'limt'; did you mean limit\?"),
    (
        {"queues": {"default": {"wizardry": 3}}},
        "queue 'default': unknown option 'wizardry'; known are limit, paused",
    ),
    ({"queues": {"default": {"limit": 3, 7: 1}}}, "queue 'default': unknown option 7"),
    ({"queues": {"default": 0}}, "queue 'default': limit must be an integer from 1 to 10000, not 0"),
    ({"queues": {"default": -1}}, "limit must be an integer"),
    ({"queues": {"default": 10_001}}, "limit must be an integer"),
    ({"queues": {"default": True}}, "limit must be an integer from 1 to 10000, not True"),
    ({"queues": {"default": "5"}}, "limit must be an integer from 1 to 10000, not '5'"),
    ({"queues": {"default": 1.5}}, "limit must be an integer"),
    ({"queues": {"default": None}}, "limit must be an integer"),
    *(
        ({"queues": {"default": {"paused": value}}}, "queue 'default': paused must be True or False, not")
        for value in [None, 1, "no", *NOTHING[1:]]
    ),
    *(
        ({option: value}, f"{option} must be True or False, not")
        for option in ("leadership", "history")
        for value in [1, "no", *NOTHING[1:]]
    ),
    *(
        ({option: value}, f"{option} must be (at least 0.001|seconds or a timedelta|finite)")
        for option in ("heartbeat_interval", "election_interval", "rescue_interval")
        for value in [*NOTHING, 0.0, True, timedelta(0), -1, float("nan"), float("inf")]
    ),
    *(({"queues": value}, "queues must be a dict") for value in NOTHING),
    *(({"retention": value}, "retention must be a dict") for value in NOTHING),
    ({"retention": {"completed": False}}, "retention: completed must be seconds or a timedelta, not bool"),
    ({"retention": {"completed": -1}}, "retention: completed must be at least 0"),
    ({"retention": {"completed": float("nan")}}, "retention: completed must be finite"),
    ({"retention": {"limit": 0}}, "retention: limit must be an integer from 1"),
    ({"retention": {"limit": True}}, "retention: limit must be an integer from 1"),
    ({"retention": {"queues": []}}, "retention: queues must be a dict"),
    ({"retention": {"queues": {"": {}}}}, "retention: the keys of queues must not be blank"),
    ({"retention": {"workers": {" ": {}}}}, "retention: the keys of workers must not be blank"),
    *(({"session": value}, "session must be an async_sessionmaker") for value in NOTHING),
    *(({"middleware": value}, "middleware must be a list of functions") for value in NOTHING[:3]),
    *(({"lifespan": value}, "lifespan must be a function") for value in NOTHING),
    *(({"listen_url": value}, "listen_url must be a database URL, not") for value in [5, " ", *NOTHING]),
    *(({"prefix": value}, "is not a schema name") for value in NOTHING[:2]),
    *(({"name": value}, "name must be a string that is not blank") for value in NOTHING[:2]),
    *(({"notifier": value}, "notifier must be listen or poll") for value in NOTHING),
    ({"queues": {"a b": 1}}, "queue 'a b' is not a queue name"),
    ({"queues": {"": 1}}, "queue '' is not a queue name"),
    ({"queues": {3: 1}}, "queue must be a string, not int"),
    ({"queues": ["default"]}, "queues must be a dict of names and limits, not list"),
    ({"queues": "default:5"}, "queues must be a dict of names and limits, not str"),
    ({"node": " "}, "node must be a string that is not blank"),
    ({"node": 5}, "node must be a string"),
    ({"name": ""}, "name must be a string that is not blank"),
    ({"prefix": "Jobs"}, "prefix 'Jobs' is not a schema name"),
    ({"prefix": 'a"; DROP'}, "is not a schema name"),
    ({"prefix": ""}, "prefix '' is not a schema name"),
    ({"prefix": "jobs"}, "sqlite has no schemas: leave out the prefix"),
    ({"poll_interval": 0}, "poll_interval must be at least 0.001 and less than 1e9 seconds, not 0"),
    ({"poll_interval": float("nan")}, "poll_interval must be finite, not nan"),
    ({"stage_interval": float("inf")}, "stage_interval must be finite, not inf"),
    ({"stage_interval": True}, "stage_interval must be seconds or a timedelta, not bool"),
    ({"watch_interval": "1"}, "watch_interval must be seconds or a timedelta, not str"),
    ({"shutdown_grace_period": -1}, "shutdown_grace_period must be at least 0 and less"),
    ({"node": "n" * 256}, "node must have up to 255 characters"),
    ({"name": "a\0"}, "name must have up to 255 characters and no NUL"),
    ({"notifier": "listen "}, "notifier must be listen or poll, not 'listen '"),
    ({"notifier": "poll", "listen_url": "postgresql://h/d"}, "contradict each other"),
    ({"listen_url": "postgresql://h/d"}, "listen_url is for PostgreSQL; sqlite has no LISTEN"),
    ({"lease": 0.05}, "lease must be at least 0.1 and less than 1e9 seconds, not 0.05"),
    ({"lease": "60"}, "lease must be seconds or a timedelta, not str"),
    ({"lease": 10, "heartbeat_interval": 6}, "heartbeat_interval must be at most half of the lease of 10 s"),
    ({"lease": 10, "election_interval": 60}, "election_interval must be at most half of the lease"),
    ({"rescue_interval": -1}, "rescue_interval must be at least 0.001 and less"),
    ({"prune_interval": timedelta(0)}, "prune_interval must be at least 0.001 and less"),
    ({"control_interval": 1e9}, "control_interval must be .* less than 1e9"),
    ({"rescue_after": 0}, "rescue_after must be at least 0.1 and less"),
    ({"timeout": 0}, "timeout must be at least 0.001 and less"),
    ({"timeout": -5}, "timeout must be at least 0.001 and less"),
    ({"timeout": "60"}, "timeout must be seconds or a timedelta, not str"),
    ({"max_attempts": 0}, "max_attempts must be an integer from 1 to 32767, not 0"),
    ({"max_attempts": 32768}, "max_attempts must be an integer from 1 to 32767"),
    ({"max_attempts": True}, "max_attempts must be an integer from 1 to 32767"),
    *(
        ({"session_connections": value}, "session_connections must be an integer from 1 to 10000, not")
        for value in [*NOTHING, True, -1, 10_001, 5.0, "5"]
    ),
    *(
        ({"log_lines": value}, "log_lines must be an integer from 0 to 10000, not")
        for value in [True, -1, 10_001, 5.0, "5"]
    ),
    ({"statement_timeout": 0}, "statement_timeout must be at least 0.1 and less"),
    ({"retention": {"complete": 1}}, r"unknown option 'complete'; did you mean completed\?"),
]
BAD_URLS: list[tuple[Any, type[ConfigError], str]] = [
    (
        "mysql+aiomysql://u:s3cret@h/d",
        UnsupportedDatabase,
        "mysql is not supported; use postgresql or sqlite",
    ),
    ("oracle://u:s3cret@h/d", UnsupportedDatabase, "oracle is not supported"),
    (make_url("mssql+aioodbc://u:s3cret@h/d"), UnsupportedDatabase, "mssql is not supported"),
    ("nothing+known://u:s3cret@h/d", UnsupportedDatabase, "nothing is not supported"),
    ("postgresql+pygresql://u:s3cret@h/d", UnsupportedDatabase, "the driver pygresql is not supported"),
    ("sqlite+pysqlite:///x.db", ConfigError, "pysqlite does not work with asyncio; use aiosqlite"),
    ("s3cret", ConfigError, "the database URL cannot be read; it looks like"),
    ("", ConfigError, "the database URL cannot be read"),
    ("sqlite://x.db", ConfigError, "three slashes before a path"),
    ("sqlite+aiosqlite://u:s3cret@h/d", ConfigError, "three slashes before a path"),
    (None, ConfigError, "an AsyncEngine or a database URL is needed, not NoneType"),
    (b"sqlite://", ConfigError, "an AsyncEngine or a database URL is needed, not bytes"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[text[:50] for _, text in BAD_OPTIONS])
def test_an_invalid_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Oban(SQLITE, **{"name": "never", **options})
    assert isinstance(caught.value, ObanError)
    with pytest.raises(InstanceNotFound, match="there is no Oban named 'never'"):
        Oban.get_instance("never")


@pytest.mark.parametrize("client", [Oban, SyncOban])
def test_an_unknown_option_is_named_with_the_one_that_was_meant(client: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'quees'; did you mean queues\?"):
        client("sqlite://", quees={"default": 1})


@pytest.mark.parametrize(("url", "error", "message"), BAD_URLS)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    url: Any, error: type[ConfigError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Oban(url, name="never")
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, ObanError)


def test_each_option_is_a_documented_keyword_of_both_clients() -> None:
    keywords = inspect.signature(Oban).parameters.keys() - {"engine", "unknown"}
    assert keywords == {field.name for field in dataclasses.fields(Options) if field.init}
    assert inspect.signature(SyncOban).parameters.keys() - {"engine", "unknown"} == keywords
    described = re.findall(r"^    (\w+): ", inspect.getdoc(Oban.__init__) or "", re.MULTILINE)
    assert [name for name in described if name in keywords] == [*inspect.signature(Oban).parameters][1:-1]


def test_each_keyword_sets_its_option() -> None:
    defaults = Oban(SQLITE).options
    for field in (field for field in dataclasses.fields(Options) if field.init):
        value = getattr(defaults, field.name)
        other: Any = {"prefix": None, "queues": {"a": QueueOptions()}, "retention": Retention(limit=1)}
        other |= {"session": async_sessionmaker(), "middleware": (lambda job, call_next: call_next(job),)}
        other |= {"lifespan": lambda oban: contextlib.nullcontext(), "leadership": False, "history": False}
        other |= {"timeout": 9.0, "max_attempts": 9, "session_connections": 9, "log_lines": 9}
        other |= {"periodic": (Periodic("a", "@daily", Job(worker="a")),)}
        changed = other.get(field.name, value * 1.1 if isinstance(value, float) else "poll")
        if field.name != "listen_url":
            assert getattr(Oban(SQLITE, **{field.name: changed}).options, field.name) == changed
    assert Oban("postgresql+asyncpg://a/b", listen_url="postgresql://c/b").options.listen_url


def test_each_option_in_seconds_takes_a_timedelta() -> None:
    defaults = Options()
    names = [
        item.name for item in dataclasses.fields(Options) if isinstance(getattr(defaults, item.name), float)
    ]
    names.append("timeout")
    assert "lease" in names
    client: Any = Oban
    for name in names:
        value = getattr(client(SQLITE, **{name: timedelta(seconds=9)}).options, name)
        assert (value, type(value)) == (9.0, float), name
    assert SyncOban("sqlite://", lease=timedelta(minutes=1)).options.lease == 60.0
    assert Options(lease=timedelta(seconds=10)).heartbeat_interval == 2.5  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at most half of the lease of 10 s"):
        Options.make(lease=timedelta(seconds=10), election_interval=timedelta(seconds=6))
    assert Retention(completed=timedelta(hours=1), discarded=60).completed == 3600.0


def test_intervals_that_depend_on_the_lease_follow_it() -> None:
    options = Options(lease=10, rescue_interval=1)
    assert (options.heartbeat_interval, options.election_interval, options.rescue_interval) == (2.5, 2.5, 1)


def test_replaced_options_keep_intervals_that_were_set_and_derive_the_others_again() -> None:
    options = Options(lease=10, rescue_interval=2.5)
    longer = options.replace(lease=100)
    assert (longer.heartbeat_interval, longer.election_interval, longer.rescue_interval) == (25, 25, 2.5)
    shorter = longer.replace(lease=4).replace(poll_interval=2)
    assert (shorter.heartbeat_interval, shorter.election_interval, shorter.rescue_interval) == (1, 1, 2.5)
    assert shorter.replace(rescue_interval=None).rescue_interval == 1
    assert shorter.replace(heartbeat_interval=2).replace(lease=8).heartbeat_interval == 2


@pytest.mark.parametrize("option", ["heartbeat_interval", "election_interval", "rescue_interval"])
def test_an_interval_of_none_is_a_quarter_of_the_lease(option: str) -> None:
    client: Any = SyncOban
    assert getattr(client("sqlite://", lease=8, **{option: None}).options, option) == 2


@pytest.mark.parametrize("value", NOTHING[:3])
def test_a_sync_client_refuses_a_session_that_is_not_none(value: Any) -> None:
    with pytest.raises(ConfigError, match="SyncOban runs no jobs: leave out session"):
        SyncOban("sqlite://", session=value)


def test_queues_are_given_as_limits_options_or_mappings() -> None:
    parsed = Options.make(queues={"a": 1, "b": QueueOptions(limit=2), "c": {"limit": 3}, "d": {}}).queues
    assert {name: queue.limit for name, queue in parsed.items()} == {"a": 1, "b": 2, "c": 3, "d": 10}
    assert Options.make(queues={"a": {"paused": True}}).queues["a"] == QueueOptions(limit=10, paused=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quue": "media"}, r"Wrong: unknown option 'quue'; did you mean queue\?"),
        ({"scheduled_at": 1}, "Wrong: unknown option 'scheduled_at'"),
        ({"queue": "a b"}, "Wrong: queue 'a b' is not a queue name"),
        ({"max_attempts": 0}, "Wrong: max_attempts must be 1 to"),
        ({"priority": 10}, "Wrong: priority must be 0 to 9"),
        ({"tags": [1]}, "Wrong: tags must be strings"),
        ({"meta": {"a": b""}}, r'Wrong: meta\["a"\] is not JSON: bytes'),
        ({"name": " "}, "Wrong: worker must not be blank"),
        ({"name": ""}, "Wrong: worker must not be blank"),
        ({"name": 0}, "Wrong: worker must be a string, not int"),
        *(({"oban": value}, "Wrong: oban must be a string that is not blank") for value in NOTHING),
        *(({"executor": value}, "Wrong: executor must be") for value in NOTHING),
        *(({"timeout": value}, "Wrong: timeout must") for value in [-1, timedelta(0), *NOTHING]),
    ],
)
def test_a_worker_with_invalid_options_is_refused(options: dict[str, Any], message: str) -> None:
    class Plain:
        def process(self, job: Job) -> None: ...

    def function() -> None: ...

    declare: Any = type
    before = list(registry)
    with pytest.raises(ConfigError, match=f"{message}"):
        declare("Wrong", (Worker,), {"__qualname__": "Wrong"}, **options)
    Plain.__qualname__ = function.__qualname__ = "Wrong"
    with pytest.raises(ConfigError, match=message):
        worker(**options)(Plain)
    function.__name__ = "Wrong"
    with pytest.raises(ConfigError, match=message):
        job(**options)(function)
    assert list(registry) == before


def test_things_that_cannot_be_workers_or_job_functions_are_refused() -> None:
    class Idle:
        pass

    loose: Any = job()
    with pytest.raises(ConfigError, match="Idle needs a process method"):
        worker()(Idle)
    with pytest.raises(ConfigError, match="@job needs a function"):
        loose(Idle())
    with pytest.raises(UnknownWorker, match=r"no worker named 'os\.system' is registered"):
        registry["os.system"]


def test_a_job_function_refuses_arguments_that_it_does_not_take() -> None:
    @job()
    def send(to: str, *, subject: str = "") -> None: ...

    loose: Any = send
    for arguments, keywords in [((), {}), (("a", "b"), {}), (("a",), {"sbject": "x"}), (("a",), {"to": "b"})]:
        with pytest.raises(InvalidJob, match=r"^args of .*send: "):
            loose.new(*arguments, **keywords)
    with pytest.raises(InvalidJob, match=r'args\["to"\] is not JSON: bytes'):
        loose.new(b"a")
    assert send.new("a", subject="s").args == {"to": "a", "subject": "s"}
