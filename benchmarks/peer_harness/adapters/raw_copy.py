"""The limit for bulk inserts with COPY; otherwise as raw."""

from __future__ import annotations

from typing import ClassVar

from . import raw


class Adapter(raw.Adapter):
    bulk_mode = "copy"
    variants: ClassVar = {}
