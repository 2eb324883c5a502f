"""How the lines of the screen are divided among the tables of `oban top`."""

from collections.abc import Sequence

#: The lines that a table needs at least: its headings and a row.
LEAST = 2


def divide(lines: int, wanted: Sequence[int], focused: int) -> list[int]:
    """The height of each table, given how many lines each of them could use.

    The focused one gets more than its share if there are not enough for all; if there is no room for several,
    it gets everything.
    """
    if lines < LEAST * len(wanted):
        return [lines if place == focused else 0 for place in range(len(wanted))]
    heights = [LEAST] * len(wanted)
    bonus = lines // 4
    for _ in range(lines - sum(heights)):
        growing = [place for place, height in enumerate(heights) if height < wanted[place]]
        if not growing:
            break
        least = min(growing, key=lambda place: heights[place] - (bonus if place == focused else 0))
        heights[least] += 1
    return heights
