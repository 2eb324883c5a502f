"""Values in error messages, whatever their methods do."""


def shown(value: object, limit: int = 200) -> str:
    """A value for an error message: its `repr` of up to `limit` characters, in one line. Never raises."""
    name = type.__dict__["__name__"].__get__(type(value))
    try:
        text = repr(value)
        if len(text) > limit:
            text = f"{text[:limit]}…"
        return " ".join(text.split()) if "\n" in text else text
    except RecursionError:
        return f"<{name} that is nested too deeply to be shown>"
    # Its methods can do anything, and an integer can have too many digits.
    except Exception:
        return f"<{name} that cannot be shown>"


def can_be_printed(value: object) -> bool:
    """Whether `repr` works: it raises for values that are nested too deeply, and can raise for any object."""
    try:
        repr(value)
    except Exception:
        return False
    return True
