"""From the bytes of a cache file to the services that are in force: the rules, without I/O.

**Damaged as a whole** is a file without a separator (an empty one too) or without one acceptable
record. Nothing is learned from it: what was known stays in force.

**A refused record** costs no other. The service that it seems to be about, if known, stays in force
with what it announced last: a record that cannot be read proves nothing about its service.

**A record that is gone** means that the service has left. The exception is a file that is cut off:
when its last record breaks off in the middle, the records behind the cut are missing for that
reason, so all known services stay in force, while what stands before the cut is taken. If the
next version of the file ends in the very same broken record, it was not a cut but a bad record, and
absence counts again. (A file that is cut exactly between two records cannot be told from one that
some services have left.)

**Replay**: of several records of one service in one file the newest counts. A record that is older
than the newest seen of its service is refused, by the rules of `replay`. A record has no expiry: it
is live as long as it stands in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from scamp import limits
from scamp.discovery.announcement import (
    identity_hint,
    is_cut,
    parse_announcement,
    parse_renewed,
)
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.cachefile import first_record, scan
from scamp.discovery.model import (
    Announcement,
    count_actions,
    held_actions,
    packed_actions,
    permitted,
    with_actions,
)
from scamp.discovery.pace import no_pause, paced
from scamp.discovery.registry import Key
from scamp.discovery.replay import TOLERANCE, is_set_right
from scamp.errors import AnnouncementError, DiscoveryError

Rejection = tuple[str, str, str]  # identity or "?", reason, detail


class FileDamagedError(DiscoveryError):
    """The file as a whole is no good; what was known stays in force."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record and what came of it: an announcement, or the reason for refusing it."""

    raw: bytes
    service: Announcement | None
    key: Key  # of a refused record: no fingerprint, and the identity or ""
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """A service in the index: its record, and what remains of it after authorization."""

    record: Record
    offered: Announcement
    unauthorized: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known after reading a version of the file. Never changed, only succeeded."""

    records: tuple[Record, ...] = ()
    raws: tuple[bytes, ...] = ()
    places: dict[bytes, int] = field(default_factory=dict)
    in_force: dict[Key, InForce] = field(default_factory=dict)
    newest: dict[Key, float] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    authorized: AuthorizedServices | None = None
    kept: int = 0
    unauthorized: int = 0
    cut_tail: bytes | None = None  # the broken record at the end, believed to be a cut or not
    cut: bool = False

    def parts(self) -> list[object]:
        """What it is made of, for who wants to let go of it bit by bit."""
        return [*self.records, *self.in_force.values()]


@dataclass(frozen=True, slots=True)
class Step:
    """The way from one state to the next. `verified` counts signatures that were checked."""

    state: Loaded
    added: tuple[Announcement, ...]
    removed: tuple[Key, ...]
    verified: int


_NO_CACHE: Final = "no separator in the file, so it is no discovery cache"


def load(
    before: Loaded,
    data: bytes,
    authorized: AuthorizedServices | None,
    pause: Callable[[], None] = no_pause,
    wall: float | None = None,
) -> Step:
    """Read one version of the file. Heavy for what is new in it, light for the rest.

    `authorized` None permits everything. `pause` is called between records, for a worker thread to
    let others run. `wall` is the time now, in seconds since 1970, by which services are known whose
    clock was wrong. Raises `FileDamagedError`.
    """
    if first_record(data) < 0:
        raise FileDamagedError(_NO_CACHE if data else "the file is empty")
    raws: list[bytes] = []
    for raw in scan(data, before.raws, before.places, pause):
        if len(raws) == limits.MAX_SERVICES:
            raise FileDamagedError(f"more than {limits.MAX_SERVICES} records")
        raws.append(raw)
    same = (
        bool(raws)
        and len(raws) == len(before.raws)
        and all(new is old for new, old in zip(raws, before.raws, strict=True))
    )
    if same:
        return authorize(before, authorized, pause)
    records, verified = _parse(before, raws, pause)
    if all(record.service is None for record in records):
        raise FileDamagedError(f"not one of {len(records)} records is acceptable")
    last = records[-1]
    cut_tail = last.raw if last.service is None and is_cut(last.raw) else None
    cut = cut_tail is not None and cut_tail != before.cut_tail
    return _settle(before, records, verified, cut_tail, cut, authorized, pause, wall)


def authorize(
    before: Loaded,
    authorized: AuthorizedServices | None,
    pause: Callable[[], None] = no_pause,
) -> Step:
    """The same version of the file under (perhaps) other permissions."""
    if authorized is before.authorized:
        return Step(before, (), (), 0)
    return _settle(before, before.records, 0, before.cut_tail, before.cut, authorized, pause, None)


def _parse(
    before: Loaded, raws: Iterable[bytes], pause: Callable[[], None]
) -> tuple[tuple[Record, ...], int]:
    """A record for each of `raws`, old ones as they were, and the number of new ones."""
    records: list[Record] = []
    verified = 0
    by_identity: dict[str, Record] | None = None
    for raw in raws:
        pause()
        place = before.places.get(raw)
        if place is not None:
            record = before.records[place]
        else:
            if by_identity is None:
                by_identity = {key[1]: held.record for key, held in before.in_force.items()}
            known = by_identity.get(identity_hint(raw) or "")
            if known is not None and known.raw == raw:
                record = known
            else:
                verified += 1
                record = _read(raw, known, pause)
        records.append(record)
    return tuple(records), verified


def _read(raw: bytes, known: Record | None, pause: Callable[[], None]) -> Record:
    try:
        service = None
        if known is not None and known.service is not None:
            service = parse_renewed(raw, known.raw, known.service)
        if service is None:
            service = parse_announcement(raw, pause=pause)
    except AnnouncementError as exc:
        identity = identity_hint(raw)
        return Record(raw, None, ("", identity or ""), (identity or "?", exc.reason, exc.detail))
    return Record(raw, service, service.key)


def _settle(
    before: Loaded,
    records: tuple[Record, ...],
    verified: int,
    cut_tail: bytes | None,
    cut: bool,
    authorized: AuthorizedServices | None,
    pause: Callable[[], None],
    wall: float | None,
) -> Step:
    """Decide what is in force, and what that changes."""
    rejections = [record.rejection for record in records if record.rejection is not None]
    chosen = _choose(before, records, rejections, pause, wall)
    kept = _keep(before, records, chosen, cut)

    in_force: dict[Key, InForce] = {}
    added: list[Announcement] = []
    unauthorized = 0
    for key, record in _both(chosen, kept):
        pause()
        held = before.in_force.get(key)
        new = held if authorized is before.authorized else None
        if new is not None and new.record is not record:
            new = _renewed(record, new)
        if new is None:
            new = _authorize(record, authorized, held)
        if held is None or new.offered is not held.offered:
            added.append(new.offered)
        in_force[key] = new
        unauthorized += new.unauthorized
    removed = tuple(key for key in before.in_force if key not in in_force)

    raws = tuple(record.raw for record in records)
    state = Loaded(
        records,
        raws,
        {raw: place for place, raw in enumerate(paced(raws, pause))},
        in_force,
        _remember(before.newest, chosen, in_force, pause),
        tuple(rejections),
        authorized,
        len(kept),
        unauthorized,
        cut_tail,
        cut,
    )
    return Step(state, tuple(added), removed, verified)


def _choose(
    before: Loaded,
    records: Iterable[Record],
    rejections: list[Rejection],
    pause: Callable[[], None],
    wall: float | None,
) -> dict[Key, Record]:
    """The newest record of each service, without replays and what is too much."""
    chosen: dict[Key, Record] = {}
    for record in paced(records, pause):
        service = record.service
        if service is None:
            continue
        other = chosen.get(record.key)
        if other is not None and other.service is not None:
            older = record if service.timestamp < other.service.timestamp else other
            if other.raw != record.raw:
                detail = "a newer one stands in the same file"
                rejections.append((service.identity, "replay", detail))
            if older is record:
                continue
        chosen[record.key] = record
    for key, record in paced(tuple(chosen.items()), pause):
        newest = before.newest.get(key)
        if newest is None or record.service is None:
            continue
        behind = newest - record.service.timestamp
        if behind > TOLERANCE and not is_set_right(newest, record.service.timestamp, wall):
            del chosen[key]
            detail = f"{behind:.1f} s older than the newest seen"
            rejections.append((record.service.identity, "replay", detail))
            if key in before.in_force:
                chosen[key] = before.in_force[key].record
    _limit(chosen, rejections, pause)
    return chosen


def _limit(
    chosen: dict[Key, Record], rejections: list[Rejection], pause: Callable[[], None]
) -> None:
    """Leave out the services that have no room in the index any more."""
    total = 0
    for key, record in paced(tuple(chosen.items()), pause):
        size = 0 if record.service is None else count_actions(record.service)
        if total + size > limits.MAX_ACTIONS:
            del chosen[key]
            detail = f"more than {limits.MAX_ACTIONS} actions in the file"
            rejections.append((key[1], "limit", detail))
        else:
            total += size


def _keep(
    before: Loaded, records: Iterable[Record], chosen: dict[Key, Record], cut: bool
) -> dict[Key, Record]:
    """Known services that stay in force although no acceptable record stands for them."""
    missing = [key for key in before.in_force if key not in chosen]
    if not missing:
        return {}
    hints = {record.key[1] for record in records if record.service is None}
    return {key: before.in_force[key].record for key in missing if cut or key[1] in hints}


def _both(first: dict[Key, Record], second: dict[Key, Record]) -> Iterator[tuple[Key, Record]]:
    yield from first.items()
    yield from second.items()


def _authorize(
    record: Record, authorized: AuthorizedServices | None, held: InForce | None
) -> InForce:
    """What the service may offer; the very object of before when nothing is different."""
    service = record.service
    if service is None:  # pragma: no cover - only accepted records are chosen
        raise AssertionError("a refused record cannot be in force")
    offered, unauthorized = service, 0
    if authorized is not None:
        offered, unauthorized = permitted(service, authorized.permits)
    same_record = held is not None and held.record is record
    if held is not None and same_record and held_actions(held.offered) == held_actions(offered):
        offered = held.offered
    return InForce(record, offered, unauthorized)


def _renewed(record: Record, held: InForce) -> InForce | None:
    """What a service that announces the very actions of before may offer under the same rules,
    without asking them again; None for any other. Half of the time that a file full of renewals
    takes beside its signatures."""
    service, before = record.service, held.record.service
    if service is None or before is None or held_actions(service) is not held_actions(before):
        return None
    offered = service
    if held.unauthorized:
        offered = with_actions(service, packed_actions(held.offered), service.timestamp)
    return InForce(record, offered, held.unauthorized)


def _remember(
    newest: dict[Key, float],
    chosen: dict[Key, Record],
    in_force: dict[Key, InForce],
    pause: Callable[[], None],
) -> dict[Key, float]:
    """The newest timestamp of every service; when there are too many, past ones are forgotten."""
    found = dict(newest)
    for key, record in paced(chosen.items(), pause):
        if record.service is not None:
            known, timestamp = found.get(key, 0.0), record.service.timestamp
            # What was chosen and is much older was allowed to be: a clock that was set right.
            if timestamp > known or known - timestamp > TOLERANCE:
                found[key] = timestamp
    if len(found) > limits.MAX_TIMESTAMPS:
        for key in [key for key in found if key not in in_force]:
            del found[key]
            if len(found) <= limits.MAX_TIMESTAMPS:
                break
    return found


def count_reasons(rejections: Iterable[Rejection]) -> dict[str, int]:
    """How many records were refused, by reason."""
    return dict(Counter(reason for _, reason, _ in rejections))
