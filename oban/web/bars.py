"""`Bar`: a bar of a small chart, drawn with SVG's attributes, as the pages allow no inline styles."""

import math
from dataclasses import dataclass
from typing import Self

#: The height of a chart, in pixels.
HEIGHT = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a small chart.

    Attributes:
        height: Pixels, up to `HEIGHT`.
        title: What it stands for, as a sentence.
        kind: The class that gives it its colour: a state of jobs, or "unknown".
        job_id: The job that it stands for; None if it stands for several, or none.
    """

    height: int
    title: str
    kind: str
    job_id: int | None = None

    @classmethod
    def of(
        cls,
        value: float,
        highest: float,
        title: str,
        *,
        kind: str,
        job_id: int | None = None,
        root: bool = False,
    ) -> Self:
        """A bar for a value. A value that is not 0 is always visible.

        Args:
            value, highest: The value, and the highest one of the chart.
            title, kind, job_id: As the attributes.
            root: Whether the height follows the square root of the value, for values that differ a lot.
        """
        share = value / highest if value > 0 and highest > 0 else 0.0
        height = round(HEIGHT * (math.sqrt(share) if root else share))
        return cls(max(height, 3 if value > 0 else 1), title, kind, job_id)
