"""Writes `oban/web/api/openapi.json`: `python -m tests.support.openapi`."""

import json
import re
from typing import Any

from pydantic import TypeAdapter

from oban.web.api import openapi
from oban.web.api.problems import MEDIA_TYPE, Problem
from oban.web.api.routes import API_ROUTES
from oban.web.api.routing import ApiAction, ApiPage, ApiRoute
from tests.support.processes import ROOT

PATH = ROOT / "oban" / "web" / "api" / openapi.NAME
_PARAMETER = re.compile(r"\{(\w+):\w+\}")
_GENERAL = {"500": "The dashboard has failed.", "503": "The database has not answered in time."}
_QUERY = {"403": "The user may not do this.", "422": "A value is wrong; `errors` names the fields."}
_BODY = {
    "400": "The body is not JSON.",
    "409": "Another job or entry is in the way.",
    "413": "The body is too large.",
    "415": "The body has another media type.",
}


def document() -> dict[str, Any]:
    """The description of the API."""
    routes: list[ApiRoute] = [*API_ROUTES, openapi.ROUTE]
    inputs: list[Any] = [(("problem", ""), "serialization", TypeAdapter(Problem))]
    for route in routes:
        key = (route.method, route.path)
        inputs.append(((*key, "answer"), "serialization", TypeAdapter(route.answer)))
        if isinstance(route, ApiAction):
            inputs.append(((*key, "body"), "validation", TypeAdapter(route.body)))
    references, schema = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    found = {key: value for (key, _), value in references.items()}
    problem = found["problem", ""]
    paths: dict[str, Any] = {}
    for route in routes:
        key = (route.method, route.path)
        described = _operation(route, found[(*key, "answer")], found.get((*key, "body")), problem)
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Oban",
            "summary": "The jobs, queues, nodes and periodic entries of an instance of Oban",
            "description": "What a user may see and change is what the user may see and change on the"
            " dashboard. Redacted values and hidden fields are in no answer.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "version": "0",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schema.get("$defs", {})},
    }


def _operation(route: ApiRoute, answer: Any, body: Any, problem: Any) -> dict[str, Any]:
    errors = {**_GENERAL, **_QUERY}
    operation: dict[str, Any] = {"operationId": _operation_id(route), "summary": route.summary}
    parameters = _path_parameters(route)
    if parameters or (isinstance(route, ApiPage) and "name" in route.query.model_fields):
        errors["404"] = "There is no such job or entry."
    if isinstance(route, ApiAction):
        errors |= {**_BODY, "404": "There is no such job or entry."}
        operation["description"] = f"{route.about} It needs the permission `{route.permission}`.".strip()
        media = {"schema": body, **({"example": route.example} if route.example else {})}
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    elif route.about:
        operation["description"] = route.about
    if isinstance(route, ApiPage):
        parameters += _query_parameters(route)
    if parameters:
        operation["parameters"] = parameters
    operation["responses"] = {
        str(route.status.value): {
            "description": route.status.phrase,
            "content": {"application/json": {"schema": answer}},
        },
        **{
            status: {"description": text, "content": {MEDIA_TYPE: {"schema": problem}}}
            for status, text in sorted(errors.items())
        },
    }
    return operation


def _operation_id(route: ApiRoute) -> str:
    words = re.findall(r"\w+", _PARAMETER.sub(r"\1", route.path.removeprefix("/api/")))
    return "_".join([route.method.lower(), *words])


def _path_parameters(route: ApiRoute) -> list[dict[str, Any]]:
    schema = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in _PARAMETER.findall(route.path)
    ]


def _query_parameters(route: ApiPage) -> list[dict[str, Any]]:
    schema = route.query.model_json_schema()
    found = []
    for name, each in schema.get("properties", {}).items():
        described = {key: value for key, value in each.items() if key not in ("description", "title")}
        # A parameter is left out, rather than null.
        options = [option for option in described.pop("anyOf", []) if option != {"type": "null"}]
        described |= options[0] if options else {}
        if described.get("default", "") is None:
            del described["default"]
        parameter = {"name": name, "in": "query", "required": False, "schema": described}
        if "description" in each:
            parameter["description"] = each["description"]
        found.append(parameter)
    return found


if __name__ == "__main__":
    PATH.write_text(f"{json.dumps(document(), indent=1)}\n")
