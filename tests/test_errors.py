"""The one tree of exceptions: drawn as it is, and every error survives a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import textwrap
from typing import Final

import pytest

from scamp import errors
from scamp.errors import ScampError

CLASSES: Final = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, BaseException)
}

EXAMPLES: Final[dict[str, ScampError]] = {
    type(example).__name__: example
    for example in (
        errors.ScampError("anything"),
        errors.ProtocolError("bad"),
        errors.LocalProtocolError("too large"),
        errors.RemoteProtocolError("DATA without its END"),
        errors.TransportError("gone"),
        errors.ConnectFailed("10.0.0.1:30100", "refused"),
        errors.FingerprintMismatch("10.0.0.1:30100", "AA:BB", ""),
        errors.ConnectTimeout("10.0.0.1:30100", 10.0),
        errors.ConnectionLost("10.0.0.1:30100", "reset", written=False),
        errors.ScampTimeout(1.5),
        errors.QueueTimeout(2),
        errors.ReplyTimeout(75.0),
        errors.IdleTimeout(60.0),
        errors.RoutingError("nowhere"),
        errors.UnknownAction("A.b"),
        errors.UnknownService("shop"),
        errors.EnvelopeNotOffered("A.b", "x", ("json",)),
        errors.DiscoveryUnavailable("no cache file"),
        errors.NoUsableInstance("A.b", 2.5),
        errors.Saturated("max_waiters"),
        errors.ReplyError("no"),
        errors.ServiceError("not_found", "no such sku", {"sku": 7}),
        errors.DispatchFailed("no worker"),
        errors.ReplyFailed("out of paper"),
        errors.SubscriptionRefused("10.0.0.1:30100", "unknown type"),
        errors.RequestAborted("changed my mind"),
        errors.DiscoveryError("cannot"),
        errors.AnnouncementError("replay", "1.5 s older"),
        errors.AuthorizedServicesError("/etc/authorized", 3, "not UTF-8"),
        errors.TicketError("no"),
        errors.TicketMalformed("7 fields"),
        errors.TicketBadSignature("none of the keys"),
        errors.TicketExpired("over"),
        errors.TicketNotYetValid("not begun"),
        errors.AuthorizationError("A.b", "no"),
        errors.MissingPrivilege("A.b", 7, "sell"),
        errors.UnconfiguredAction("A.b"),
        errors.AuthzTableUnavailable("A.b", "no answer", 3.0),
        errors.ConfigError("scamp.conf:3: no"),
    )
}

_NODE: Final = re.compile(r"(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)\b")


def drawn() -> dict[str, set[str]]:
    """The tree of the docstring: each name with the names it hangs from."""
    tree = textwrap.dedent((errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0])
    found: dict[str, set[str]] = {}
    above: list[str] = []
    for line in tree.splitlines():
        match = _NODE.match(line)
        assert match is not None, line
        depth = len(match["indent"]) // 4
        above[depth:] = [match["name"]]
        found.setdefault(match["name"], set()).update(above[depth - 1 : depth] if depth else ())
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    bases = {
        name: {base.__name__ for base in found.__bases__ if base.__name__ in CLASSES}
        for name, found in CLASSES.items()
    }
    assert drawn() == bases


def test_there_is_an_example_of_every_error() -> None:
    assert set(EXAMPLES) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_says_what_it_is(name: str) -> None:
    error = EXAMPLES[name]
    assert CLASSES[name].__doc__
    assert str(error).strip()
    assert "\n" not in str(error)
    assert repr(error).startswith(f"{name}(")


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_survives_a_copy_and_another_process(name: str) -> None:
    error = copy.copy(EXAMPLES[name])
    error.attempts, error.instance = 2, "10.0.0.1:30100"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(again) is type(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
        assert vars(again) == vars(error)
        assert again.args == error.args
