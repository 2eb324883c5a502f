"""Annotations of functions and classes, evaluated."""

import types
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints


def evaluate(annotation: Any, names: Mapping[str, Any]) -> Any:
    """The value of an annotation that may be a string. Raises what evaluating it raises."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(holder, {**names}, include_extras=True)["it"]


def unalias(annotation: Any) -> Any:
    """The type behind a NewType, `type X = …` or `Annotated`."""
    while True:
        if get_origin(annotation) is Annotated:
            alias_of = get_args(annotation)[0]
        else:
            alias_of = getattr(annotation, "__supertype__", getattr(annotation, "__value__", None))
        if alias_of is None:
            return annotation
        annotation = alias_of


def show(annotation: Any) -> str:
    """An annotation as one would write it."""
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__qualname__ if plain else str(annotation)
