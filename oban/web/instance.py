"""`Instance`: one instance of Oban that a dashboard shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from oban.client import Oban
from oban.web.live import Live
from oban.web.sessions import Sessions
from oban.web.summaries import Summaries


@dataclass(slots=True, eq=False)
class Instance:
    """One instance of Oban that a dashboard shows.

    Attributes:
        key: Its part of the address, where the dashboard shows several.
        oban: Its client.
        sessions: The dashboard's own connections to its database.
        live: Tells open pages when to refresh.
        summaries: What the overview shows.
        paths: The path of each instance of the dashboard below that of the dashboard, by key.
        streams: Whether pages get events. Without, they ask at an interval.
    """

    key: str
    oban: Oban
    paths: Mapping[str, str]
    streams: bool = True
    sessions: Sessions = field(init=False)
    live: Live = field(init=False)
    summaries: Summaries = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.oban)
        self.live = Live(self.oban, self.sessions, enabled=self.streams)
        self.summaries = Summaries(self.oban, self.sessions)

    async def close(self) -> None:
        await self.live.close()
        await self.summaries.close()
        await self.sessions.close()
