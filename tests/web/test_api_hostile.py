"""Requests that are made up from the description of the API never make it fail."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from oban import Job, Oban, Periodic
from oban.web import dashboard
from oban.web.api import openapi
from tests.support.api import ApiVisitor, validate

_DOCUMENT = openapi.stored()
OPERATIONS = [(method, path) for path, operations in _DOCUMENT["paths"].items() for method in operations]
_TEXT = st.text(max_size=12) | st.sampled_from(["mail", "nightly", "*", "@daily", "a.b=1", "\0", "\ud800"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values that mostly fit a schema, and sometimes do not."""
    if "$ref" in schema:
        schema = _DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fitting: st.SearchStrategy[Any]
    if "anyOf" in schema:
        fitting = st.one_of([values(each) for each in schema["anyOf"]])
    elif "enum" in schema:
        fitting = st.sampled_from(schema["enum"])
    else:
        match schema.get("type"):
            case "object" if "properties" in schema:
                fitting = _objects(schema)
            case "array":
                fitting = st.lists(values(schema["items"]), max_size=3)
            case "integer":
                fitting = st.integers(-1, 100) | st.integers()
            case "number":
                fitting = st.floats(0, 1000) | st.floats(allow_nan=False, allow_infinity=False)
            case "boolean":
                fitting = st.booleans()
            case "string":
                fitting = _TEXT | st.datetimes().map(lambda time: f"{time.isoformat()}Z")
            case _:
                fitting = _JSON
    # One wrong value is enough for a refusal.
    return st.integers(0, 19).flatmap(lambda number: fitting if number else _JSON)


def _objects(schema: Any) -> st.SearchStrategy[Any]:
    required = schema.get("required", [])
    found = {name: values(each) for name, each in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: found[name] for name in required},
        optional={name: each for name, each in found.items() if name not in required},
    )


def requests(operation: tuple[str, str]) -> st.SearchStrategy[Any]:
    """Requests of an operation: the path, the query and the body."""
    method, path = operation
    described = _DOCUMENT["paths"][path][method]
    parameters = [each for each in described.get("parameters", []) if each["in"] == "query"]
    query = st.fixed_dictionaries({}, optional={each["name"]: values(each["schema"]) for each in parameters})
    content = described.get("requestBody", {}).get("content", {})
    body = values(content["application/json"]["schema"]) if content else st.none()
    job_id = st.integers(1, 9) | st.integers(0, 2**70)
    return st.tuples(st.just(method), job_id.map(lambda each: path.replace("{id}", str(each))), query, body)


@pytest.mark.slow
def test_no_request_makes_the_api_fail(sqlite_url: URL) -> None:
    with asyncio.Runner() as runner:
        oban = Oban(sqlite_url)
        app = dashboard(oban)
        api = ApiVisitor(app)
        runner.run(oban.add_periodic(Periodic("nightly", "@daily", Job(worker="app.Report"))))
        runner.run(oban.enqueue_many([Job(worker="app.Send", queue="mail") for _ in range(9)]))

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.sampled_from(OPERATIONS).flatmap(requests))
        def check(request: tuple[str, str, dict[str, Any], Any]) -> None:
            method, path, query, body = request
            try:
                sent = api.http.build_request(method.upper(), path, params=_texts(query), json=body)
            except (UnicodeError, ValueError):
                # The client cannot encode lone surrogates.
                return
            response = runner.run(api.http.send(sent))
            assert response.status_code < 500, (request, response.text)
            validate(method, path.removeprefix("/api/"), response)

        try:
            check()
        finally:
            runner.run(api.http.aclose())
            runner.run(app.aclose())
            runner.run(oban.engine.dispose())


def _texts(query: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [str(each) for each in value] if isinstance(value, list) else str(value)
        for name, value in query.items()
    }
