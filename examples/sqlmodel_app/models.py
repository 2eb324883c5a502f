"""The application's own table, and what requests and responses look like. Oban's tables are next to it."""

from typing import Annotated

from pydantic import StringConstraints
from sqlalchemy.orm import relationship
from sqlmodel import Field, Relationship, SQLModel

from oban import Job, filters

Name = Annotated[str, StringConstraints(pattern=r"^[\w .'-]{1,80}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[\w.+-]+@[\w.-]+$", max_length=254)]


class NewMember(SQLModel):
    name: Name
    email: Email


class Member(NewMember, table=True):
    id: int = Field(default=None, primary_key=True)
    email: Email = Field(unique=True)
    welcomed: bool = False

    #: The jobs whose args name this member.
    jobs: list[Job] = Relationship(
        sa_relationship=relationship(
            Job,
            primaryjoin=lambda: filters.args("member_id") == Member.id,
            foreign_keys=Job.args,
            viewonly=True,
            order_by=Job.id,
        )
    )


class MemberShown(NewMember):
    id: int
    welcomed: bool


class NewEmail(SQLModel):
    email: Email
