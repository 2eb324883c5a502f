"""Checks queries for Prometheus against the metrics that exist."""

import re
from typing import Any

import promql_parser as promql

from oban import JobState
from oban.prometheus.catalog import SERIES

_STATES = {*JobState, "lost"}
_OUTCOMES = {"completed", "failed", "cancelled", "snoozed", "discarded", "released"}
#: The values that labels can have, where these are known.
VALUES: dict[str, set[str]] = {"state": _STATES, "outcome": _OUTCOMES, "status": {"alive", "dead"}}


def labels_of(query: str) -> set[str]:
    """The labels of the result of a query. Fails if it names a metric, label or value that does not exist.

    Variables of Grafana are allowed where it replaces them.
    """
    return _labels(promql.parse(re.sub(r"\$__rate_interval\b", "5m", query))) or set()


def _labels(expr: Any) -> set[str] | None:
    """The labels of the result of an expression; None for a scalar."""
    if isinstance(expr, promql.VectorSelector):
        return _of_selector(expr)
    if isinstance(expr, promql.MatrixSelector):
        return _of_selector(expr.vector_selector)
    if isinstance(expr, promql.AggregateExpr):
        return _of_aggregate(expr)
    if isinstance(expr, promql.BinaryExpr):
        return _of_binary(expr)
    if isinstance(expr, promql.Call):
        vectors = [found for found in map(_labels, expr.args) if found is not None]
        if not vectors:
            return None
        [found] = vectors
        return found - {"le"} if expr.func.name == "histogram_quantile" else found
    if isinstance(expr, promql.ParenExpr):
        return _labels(expr.expr)
    assert isinstance(expr, promql.NumberLiteral), expr
    return None


def _of_selector(selector: Any) -> set[str]:
    assert selector.name in SERIES, f"there is no metric {selector.name}"
    labels = set(SERIES[selector.name])
    for matcher in selector.matchers.matchers:
        assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
        if not matcher.value.startswith("$") and matcher.name in VALUES:
            assert set(matcher.value.split("|")) <= VALUES[matcher.name], matcher
    return labels


def _of_aggregate(expr: Any) -> set[str]:
    inner = _labels(expr.expr)
    assert inner is not None
    if "topk" in str(expr.op):
        return inner
    kept = set() if expr.modifier is None else set(expr.modifier.labels)
    assert kept <= inner, f"{expr.prettify()} groups by {kept - inner}, which it has not"
    return kept


def _of_binary(expr: Any) -> set[str] | None:
    left, right = _labels(expr.lhs), _labels(expr.rhs)
    if left is None or right is None:
        return left if right is None else right
    matching = expr.modifier.matching if expr.modifier else None
    if matching is None:
        # Otherwise no element of one side has a partner on the other.
        assert left == right, expr.prettify()
    else:
        assert set(matching.labels) <= left & right, expr.prettify()
    return left
