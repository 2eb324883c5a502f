"""What the checks of an instance's health are about."""

from typing import NamedTuple

from oban.diagnosis.health_findings import Thresholds
from oban.diagnosis.texts import Commands


class Subject(NamedTuple):
    """The instance that is checked."""

    name: str
    #: From which figures on something is a problem.
    thresholds: Thresholds
    #: Makes the commands that advice names.
    commands: Commands
