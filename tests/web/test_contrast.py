"""The contrast of texts in both themes, computed from the tokens in app.css."""

import re
from importlib import resources
from itertools import product

import pytest

CSS = resources.files("oban.web").joinpath("static/app.css").read_text()
_PAIR = re.compile(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);")
TOKENS = {name: (light, dark) for name, light, dark in _PAIR.findall(CSS)}
PLAIN = ("ground", "surface", "raised")
WASHES = {"danger": "danger-wash", "warning": "warning-wash", "good": "good-wash", "info": "info-wash"}
TEXTS = [
    *product(("text", "muted", "accent"), (*PLAIN, *WASHES.values())),
    *product((*WASHES, "idle"), PLAIN),
    *WASHES.items(),
    ("on-accent", "accent"),
]


def luminance(colour: str) -> float:
    def linear(part: str) -> float:
        value = int(part, 16) / 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(colour[start : start + 2]) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_black_on_white_has_the_greatest_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXTS)
def test_each_text_can_be_read_on_each_ground(text: str, ground: str, theme: int) -> None:
    assert contrast(TOKENS[text][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("line", "ground"), list(product(("edge", "accent"), PLAIN)))
def test_the_edge_of_a_control_and_the_focus_can_be_seen(line: str, ground: str, theme: int) -> None:
    assert contrast(TOKENS[line][theme], TOKENS[ground][theme]) >= 3
