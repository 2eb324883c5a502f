"""`job.log` logs like any logger, with the fields of the job, and hands lines to be kept."""

import logging
import sys
from typing import Any

import orjson
import pytest

from oban import Job
from oban.job_log import JobLogger
from oban.runner.execution.report import MAX_LINE, MAX_LOG, Report

FIELDS = {"job_id": 7, "worker": "app.Mail", "queue": "mail", "attempt": 2}


class Kept:
    """The lines that a logger hands over."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def keep(self, level: int, make_text: Any) -> None:
        self.lines.append((level, make_text()))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def log(kept: Kept) -> JobLogger:
    return JobLogger(FIELDS, kept.keep)


def test_records_have_the_fields_of_the_job_and_of_the_call(
    log: JobLogger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="oban.job")
    log.info("sent %s of %s", 1, 2, extra={"address": "a@b", "queue": "another"})
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("oban.job", "sent 1 of 2")
    assert vars(record).items() >= {**FIELDS, "address": "a@b"}.items()


def test_records_name_the_line_of_the_worker(log: JobLogger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="oban.job")
    log.info("one")
    log.log(logging.WARNING, "two")
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("three")
    name = sys._getframe().f_code.co_name
    assert [(record.filename, record.funcName) for record in caplog.records] == [
        ("test_job_log.py", name)
    ] * 3


def test_info_is_kept_even_if_it_is_not_logged(
    log: JobLogger, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="oban.job")
    log.debug("no")
    log.info("yes %(a)s", {"a": 1})
    assert kept.lines == [(logging.INFO, "yes 1")]
    assert caplog.records == []
    assert (log.isEnabledFor(logging.DEBUG), log.isEnabledFor(logging.INFO)) == (False, True)


def test_debug_is_kept_if_it_is_logged(log: JobLogger, kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oban.job")
    log.debug("yes")
    assert kept.lines == [(logging.DEBUG, "yes")]


@pytest.mark.parametrize("how", ["exception", "true", "error", "tuple"])
def test_a_traceback_is_kept(log: JobLogger, kept: Kept, how: str) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        match how:
            case "exception":
                log.exception("failed")
            case "true":
                log.error("failed", exc_info=True)
            case "error":
                log.error("failed", exc_info=error)
            case "tuple":
                log.error("failed", exc_info=sys.exc_info())
    ((_, text),) = kept.lines
    first, *_, last = text.splitlines()
    assert (first, last) == ("failed", "ValueError: broken")
    assert "test_a_traceback_is_kept" in text


def test_a_message_that_cannot_be_formatted_fails_no_job(
    log: JobLogger, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    # pytest's own handler would raise the error.
    caplog.set_level(logging.CRITICAL, logger="oban.job")

    class Opaque:
        def __str__(self) -> str:
            raise RuntimeError("opaque")

        __repr__ = __str__

    log.info("%s and %s", 1)
    log.info("%s", Opaque())
    assert [text for _, text in kept.lines] == [
        "%s and %s (TypeError: not enough arguments for format string)",
        "%s (RuntimeError: opaque)",
    ]


def test_without_a_run_lines_are_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="oban.job")
    job = Job(worker="app.Mail\n", queue="mail")
    job.log.info("hello")
    (record,) = caplog.records
    expected = {"job_id": None, "worker": "'app.Mail\\n'", "queue": "mail", "attempt": 0}
    assert vars(record).items() >= expected.items()
    assert not job.log.isEnabledFor(logging.DEBUG)


def report(max_lines: int = 100) -> Report:
    return Report(Job(worker="a"), max_lines, None)


def texts(made: Report) -> list[str]:
    return [line["text"] for line in made.take_lines()]


def test_the_last_lines_are_kept() -> None:
    made = report(3)
    for number in range(5):
        made.add_line(logging.INFO, f"line {number}".format)
    lines = made.take_lines()
    assert [line["text"] for line in lines] == ["line 2", "line 3", "line 4"]
    assert {line["level"] for line in lines} == {"INFO"}
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_the_size_of_a_log_is_limited() -> None:
    made = report(10_000)
    for number in range(10_000):
        made.add_line(logging.INFO, f"line {number} \u0001ü🎉".format)
    lines = made.take_lines()
    assert lines[-1]["text"].startswith("line 9999 ")
    assert 100 < len(lines) < 10_000
    assert len(orjson.dumps(lines)) <= MAX_LOG


def test_a_long_line_is_cut_in_the_middle() -> None:
    made = report()
    made.add_line(logging.INFO, lambda: "begin " + "x" * 10**6 + " end")
    (text,) = texts(made)
    assert text.startswith("begin x")
    assert text.endswith("x end")
    assert len(text) <= MAX_LINE


def test_what_databases_refuse_is_replaced() -> None:
    made = report()
    made.add_line(logging.INFO, lambda: "a\x00b\ud800c\nsecond line")
    assert texts(made) == ["a\ufffdb?c\nsecond line"]


def test_unnamed_levels_have_numbers() -> None:
    made = report()
    made.add_line(25, lambda: "a")
    assert [line["level"] for line in made.take_lines()] == ["Level 25"]
