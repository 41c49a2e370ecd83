"""What may stand in a routes file, as types; ``docs/routes.md`` says it in words."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from gateway.routes.model import ParameterType

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

ALL: Final = "*"

MAX_PATH: Final = 1024
MAX_SEGMENTS: Final = 32

_MEMBER: Final = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/(?:\*|[a-z0-9!#$&^_.+-]{1,100})")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _member(value: str) -> str:
    if not _MEMBER.fullmatch(value):
        raise ValueError("a member's name has 1 to 200 characters and no control characters")
    return value


def _media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value.lower()):
        raise ValueError("not a media type such as image/png or image/*")
    return value.lower()


# What is of the wrong type raises ValueError all the same: pydantic tells no other.


def _parameter(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("write a type, or a table with a type and more")  # noqa: TRY004 - as said
    return {"type": value} if isinstance(value, str) else value


def _query(value: object) -> object:
    if value == ALL:
        return {ALL: {}}
    if not isinstance(value, dict):
        raise ValueError('write "*" for all parameters, or a table of those there are')  # noqa: TRY004 - as said
    return value


Member = Annotated[str, Field(strict=True), AfterValidator(_member)]
MediaType = Annotated[str, Field(strict=True), AfterValidator(_media_type)]
Text = Annotated[str, StringConstraints(strict=True, max_length=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueryEntry(_Entry):
    """One query parameter; a bare text stands for its type."""

    type: ParameterType = "string"
    member: Member | None = None
    required: Switch = False
    many: Switch = False
    description: Text = ""


Query = Annotated[
    dict[Member, Annotated[QueryEntry, BeforeValidator(_parameter)]], BeforeValidator(_query)
]
"""By name; `ALL` as the one name for whatever comes."""


class Shared(_Entry):
    """What routes and resources have in common."""

    timeout: Seconds | None = None
    retry: Switch = True
    ticket: Switch | None = None
    rate: Text | None = None
    defaults: dict[Member, Any] = Field(default_factory=dict)
    description: Text = ""


class RouteEntry(Shared):
    """``[[routes]]``."""

    method: Annotated[list[Method], BeforeValidator(_listed), Field(min_length=1)]
    path: Text
    action: Text
    body: Member | None = None
    query: Query | None = None
    members: dict[Member, Member] = Field(default_factory=dict)
    envelope: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]{1,100}$")] | None = None
    consumes: Annotated[list[MediaType], BeforeValidator(_listed)] = Field(default_factory=list)
    produces: MediaType | None = None
    status: Annotated[int, Field(strict=True, ge=200, le=299)] = 200
    summary: Text = ""

    @field_validator("status")
    @classmethod
    def _has_a_body(cls, value: int) -> int:
        if value in (204, 205, 206):
            raise ValueError("an answer has a body, which 204, 205 and 206 do not allow")
        return value

    @field_validator("produces")
    @classmethod
    def _is_one(cls, value: str | None) -> str | None:
        if value is not None and value.endswith("*"):
            raise ValueError("a reply has one media type, not a range of them")
        return value


Verb = Annotated[str, Field(strict=True)] | Literal[False] | None


class ResourceEntry(Shared):
    """``[[resources]]``: the usual URLs of something that has CRUD actions."""

    path: Text
    namespace: Text
    id: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    id_type: ParameterType = "string"
    version: Annotated[int, Field(strict=True, ge=0, lt=10**9)] = 1
    query: Query | None = None
    list_: Verb = Field(None, alias="list")
    read: Verb = None
    create: Verb = None
    update: Verb = None
    destroy: Verb = None


class RoutesFile(_Entry):
    """The whole file."""

    routes: list[RouteEntry] = Field(default_factory=list)
    resources: list[ResourceEntry] = Field(default_factory=list)
