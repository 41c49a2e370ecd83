"""One route: an HTTP method and a path template, the action behind them, and where each part of
the request goes. Made by `load`; immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.actions import Target
from gateway.ratelimit.rate import Rate

ParameterType = Literal["string", "int", "number", "bool"]

JSON_TYPES: Final[Mapping[ParameterType, str]] = {
    "string": "string",
    "int": "integer",
    "number": "number",
    "bool": "boolean",
}
"""The JSON Schema type of what a parameter becomes."""

WHOLE_BODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value out of the path or the query, and the member of the action's JSON object that it
    becomes."""

    name: str
    """In the template or the query string."""
    member: str
    """In the object."""
    type: ParameterType = "string"
    required: bool = False
    many: bool = False
    """Always an array, also with one value (query only)."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """What stands between two slashes of a template: text, or a parameter when `name` is set."""

    text: str = ""
    name: str = ""
    type: ParameterType = "string"

    def __str__(self) -> str:
        if not self.name:
            return self.text
        return f"{{{self.name}}}" if self.type == "string" else f"{{{self.name}:{self.type}}}"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One line of the routes table. `methods` without HEAD and OPTIONS: HEAD goes with GET.

    Compared by identity: a file that is read anew makes other routes.
    """

    methods: tuple[str, ...]
    segments: tuple[Segment, ...]
    target: Target
    """The action, perhaps by an alias such as ``Product.Sku._read``."""
    origin: str = ""
    """``FILE:LINE``, for messages."""
    path_parameters: tuple[Parameter, ...] = ()
    query_parameters: tuple[Parameter, ...] | None = None
    """The query parameters that are known; None: each becomes a member under its own name."""
    body: str | None = None
    """``*``: the body is the object, or goes through as it is; a name: it is that member; None:
    there is no body."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Members that are set when nothing else sets them."""
    expected: bool = True
    """False: the action may be missing, as a resource need not have all of CRUD."""
    timeout: float | None = None
    """Seconds, in place of what the action announces; lowers it or raises it."""
    retry: bool = True
    """False: no second attempt once a request may have been executed, though the action reads."""
    ticket: bool | None = None
    """True: needed even where the action is ``noauth``; False: not needed; None: as the action
    says."""
    rate: Rate | None = None
    """For each caller of this route."""
    envelope: str | None = None
    """What the action is called with, whatever the Content-Type; None: by the Content-Type."""
    consumes: tuple[str, ...] = ()
    """Media types that the body may have; (): by the envelope."""
    produces: str | None = None
    """Media type of the reply; None: by the envelope."""
    status: int = 200
    """Of an answer that is a success."""
    summary: str = ""
    description: str = ""

    @property
    def template(self) -> str:
        """The path as it was written."""
        return "".join(f"/{segment}" for segment in self.segments)

    @property
    def key(self) -> str:
        """Its name, the same after each load of the file: ``GET /skus/{code}``."""
        return f"{','.join(self.methods)} {self.template}"

    @property
    def plain_template(self) -> str:
        """The path without types, as OpenAPI writes it."""
        return "".join(
            f"/{{{segment.name}}}" if segment.name else f"/{segment.text}"
            for segment in self.segments
        )

    @property
    def shape(self) -> tuple[tuple[str, str], ...]:
        """What the template matches: two routes of one shape and method stand for the same URLs."""
        return tuple(
            (segment.text, segment.type if segment.name else "") for segment in self.segments
        )

    def takes(self, method: str) -> bool:
        """Whether it is for this method; HEAD goes with GET."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    @property
    def all_methods(self) -> tuple[str, ...]:
        """`methods`, HEAD included where there is GET."""
        if "GET" not in self.methods:
            return self.methods
        at = self.methods.index("GET") + 1
        return (*self.methods[:at], "HEAD", *self.methods[at:])


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes, in the order of the file; the text's digest as `version`, empty for none."""

    routes: tuple[Route, ...] = ()
    version: str = ""
