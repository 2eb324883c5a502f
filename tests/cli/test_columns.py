"""The columns of tables: which of them are shown in a width, and how their texts are shortened."""

import pytest
from rich.text import Text

from oban.cli.columns import Column, fit, line, time_column

TIME = "2026-11-29 19:57:25"


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        # Everything fits, and no column is wider than its texts.
        (60, {0: 10, 1: 30, 2: 5}),
        # The long column gets what is left.
        (40, {0: 10, 1: 21, 2: 5}),
        (31, {0: 10, 1: 12, 2: 5}),
        # The column with the highest rank goes, and then the long one.
        (30, {0: 10, 1: 18}),
        (24, {0: 10, 1: 12}),
        (23, {0: 10}),
        # One column stays, however narrow the terminal is.
        (8, {0: 8}),
    ],
)
def test_columns_that_do_not_fit_are_shortened_and_then_left_out(width: int, widths: dict[int, int]) -> None:
    columns = (Column("A"), Column("B", rank=1, least=12), Column("C", rank=2))
    assert fit(columns, [10, 30, 5], width) == widths


def test_long_columns_become_equally_wide() -> None:
    columns = (Column("A", least=10), Column("B", rank=1, least=10), Column("C", rank=2, least=10))
    assert fit(columns, [40, 12, 40], 55) == {0: 20, 1: 12, 2: 19}


def test_a_heading_is_not_shortened_while_a_column_can_be_left_out() -> None:
    assert fit((Column("A"), Column("EXPRESSION", rank=1, least=3)), [3, 20], 14) == {0: 3}


@pytest.mark.parametrize(
    ("width", "at"), [(22, TIME), (21, "…11-29 19:57:25"), (18, "…11-29 19:57:25"), (17, "")]
)
def test_a_time_is_shown_whole_or_without_its_year(width: int, at: str) -> None:
    columns, cells = (Column("A"), time_column("AT", rank=1)), (Text("x"), Text(TIME))
    widths = fit(columns, [1, len(TIME)], width)
    assert line(columns, cells, widths).plain == (f"x  {at}" if at else "x")


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (Column("", least=6), "shop.…"),
        (Column("", least=6, tail=True), "…_mail"),
    ],
)
def test_an_ellipsis_stands_where_a_text_is_cut(column: Column, shown: str) -> None:
    text = "shop.jobs.send_mail"
    assert line([column], [Text(text)], fit([column], [len(text)], 6)).plain == shown


@pytest.mark.parametrize("tail", [True, False])
def test_a_column_of_wide_characters_is_not_wider_than_its_width(tail: bool) -> None:
    column = Column("", least=6, tail=tail)
    assert line([column], [Text("漢字漢字漢字")], {0: 6}).cell_len == 6
