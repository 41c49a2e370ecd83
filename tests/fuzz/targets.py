"""One harness for each parser of foreign bytes: a function that takes any bytes and returns.

It raises only when the parser has a defect: when something else comes out than the declared
errors, when what comes out is larger than the input can justify, or when an invariant breaks.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from scamp import keys, limits
from scamp.authz import AuthzTable
from scamp.cli.spec import read_spec
from scamp.config import ScampConf
from scamp.discovery import (
    AnnouncementSpec,
    AuthorizedServices,
    build_announcement,
    parse_announcement,
    split_records,
)
from scamp.discovery.announcement import identity_hint, is_cut
from scamp.discovery.cachefile import SEPARATOR, scan
from scamp.discovery.certificate import load_certificate
from scamp.discovery.live import Kind, LiveIndex
from scamp.discovery.loader import FileDamagedError, Loaded, load
from scamp.discovery.model import Announcement, count_actions
from scamp.discovery.multicast import decode_packet, encode_packet
from scamp.discovery.replay import TOLERANCE
from scamp.discovery.runlength import compress, expand, expanded_length
from scamp.errors import (
    AnnouncementError,
    AuthorizationError,
    AuthorizedServicesError,
    ConfigError,
    LocalProtocolError,
    RemoteProtocolError,
    ScampError,
    TicketError,
)
from scamp.testing import make_identity
from scamp.tickets import TicketVerifier, parse_ticket
from scamp.wire import (
    DataReceived,
    Event,
    MessageEnded,
    MessageStarted,
    MessageWhole,
    Packet,
    PacketReader,
    PacketType,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    Role,
    WireConnection,
    encode_header,
    parse_header,
)
from scamp.wire import (
    encode_packet as encode_wire_packet,
)
from scamp.wire.subdata import encode_event, encode_record, parse_filter, parse_records
from tests.fuzz import browser_targets, event_targets, http_targets, openapi_targets, seeds

MAX_ERROR_TEXT: Final = 4_096
"""Characters in the text of an error: it stands in logs, whatever a stranger has sent."""

_REASONS: Final = {"malformed", "version", "certificate", "signature", "limit", "replay"}


@contextlib.contextmanager
def only(*declared: type[ScampError]) -> Iterator[None]:
    """Lets the declared errors pass unseen, if their text is of bearable length."""
    error: ScampError | None = None
    try:
        yield
    except declared as exc:
        error = exc
    if error is not None:
        bearable(error)


def bearable(error: ScampError) -> None:
    """What is said of an error can stand in a log and in a metric."""
    assert len(str(error)) <= MAX_ERROR_TEXT, f"{len(str(error))} characters of error text"
    if isinstance(error, AnnouncementError):
        assert error.reason in _REASONS, error.reason


def chunks(data: bytes, step: int) -> Iterator[bytes]:
    """`data` in pieces of `step` bytes, or of growing size when that is 0."""
    at, size = 0, step or 1
    while at < len(data):
        yield data[at : at + size]
        at += size
        size += not step


# -- the wire ---------------------------------------------------------------------------


def packets(data: bytes) -> None:
    """Any chunking gives the same packets, those of a plain reader; and they go back."""
    whole, broken = _read([data])
    assert (whole, broken) == _read_plainly(data)
    for step in (1, 0, 1 + len(data) % 97):
        assert _read(chunks(data, step)) == (whole, broken), f"chunks of {step}"
    assert sum(len(packet.body) for packet in whole) <= len(data)
    again = b"".join(encode_wire_packet(packet.kind, packet.msgno, packet.body) for packet in whole)
    assert _read([again]) == (whole, False)


def _read(pieces: Any) -> tuple[list[Packet], bool]:
    """The packets, pieces of DATA joined, and whether an error ended them."""
    reader, found = PacketReader(), list[Packet]()
    broken = False
    with only(RemoteProtocolError):
        broken = True
        for piece in pieces:
            reader.feed(piece, found)
        broken = False
    return _joined(found), broken


def _joined(packets: list[Packet]) -> list[Packet]:
    """The same without seams between pieces of DATA."""
    joined: list[Packet] = []
    for packet in packets:
        last = joined[-1] if joined else None
        if last and packet.kind is last.kind is PacketType.DATA and packet.msgno == last.msgno:
            joined[-1] = Packet(packet.kind, packet.msgno, last.body + packet.body)
        else:
            joined.append(packet)
    return joined


_LINE: Final = re.compile(rb"(HEADER|DATA|EOF|TXERR|ACK|PING|PONG) ([0-9]{1,19}) ([0-9]{1,19})\r\n")


def _read_plainly(data: bytes) -> tuple[list[Packet], bool]:
    """What `_read` gives, by the shortest code that does it."""
    found: list[Packet] = []
    while data:
        line = _LINE.match(data[: limits.MAX_HEADER_LINE])
        if line is None:
            return _joined(found), b"\n" in data or len(data) >= limits.MAX_HEADER_LINE
        kind, msgno, size = PacketType(line[1]), int(line[2]), int(line[3])
        small = kind is not PacketType.DATA
        if size > (limits.MAX_PACKET_BODY if small else limits.MAX_DATA_SIZE):
            return _joined(found), True
        body, data = data[line.end() :][:size], data[line.end() + size :]
        whole = len(body) == size and len(data) >= len(b"END\r\n")
        ends = data.startswith(b"END\r\n")
        if (whole and ends) or (not small and (body or not size)):
            found.append(Packet(kind, msgno, body))
        if not whole or not ends:
            return _joined(found), whole
        data = data[len(b"END\r\n") :]
    return _joined(found), False


def connection(data: bytes) -> None:
    """Any chunking gives the same events; what is answered is well-formed and not more than came.

    The first byte chooses the role and what is under way on our side.
    """
    choice, data = (data[0] if data else 0), data[1:]
    one, whole = _receive(choice, [data])
    for step in (1, 0):
        other, events = _receive(choice, chunks(data, step))
        assert events == whole, f"chunks of {step}"
    for pieces in ([data], chunks(data, 0)):
        fast, events = _receive(choice, pieces, at_once=True)
        assert events == whole, "taken at once where that can be"
    for state in (one, other, fast):
        if whole and isinstance(whole[-1], ProtocolBroken):
            assert state.receive(b"PING 1 0\r\nEND\r\n") == []
        for event in whole:
            if isinstance(event, DataReceived):
                state.consumed(event.msgno, len(event.data))
        answers, broken = _read([state.data_to_send()])
        assert not broken
        assert {packet.kind for packet in answers} <= {PacketType.ACK, PacketType.PONG}
        assert state.open_incoming <= limits.MAX_OPEN_MESSAGES
        for msgno in range(state.open_outgoing):
            assert 0 <= state.window(msgno) <= limits.MAX_INFLIGHT
        assert len(answers) <= len(data) // len(b"PING 1 0\r\nEND\r\n") + 1


_BROKEN: Final = ProtocolBroken(RemoteProtocolError("broken"))  # errors do not compare


def _receive(
    choice: int, pieces: Any, *, at_once: bool = False
) -> tuple[WireConnection, list[Event]]:
    state = WireConnection(Role.SERVER if choice & 1 else Role.CLIENT)
    for number in range(choice >> 1 & 3):
        msgno = state.open_message(ReplyHeader(number))
        state.send_data(msgno, bytes(100 * number))
        if choice & 8:
            state.end_message(msgno)
    state.data_to_send()
    events: list[Event] = []
    for piece in pieces:
        events += _unfolded(state.receive_whole(piece)) if at_once else state.receive(piece)
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, ProtocolBroken):
            bearable(event.error)
            joined.append(_BROKEN)
        elif (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and last.msgno == event.msgno
        ):
            joined[-1] = DataReceived(event.msgno, last.data + event.data)
        else:
            joined.append(event)
    return state, joined


def _unfolded(events: list[Event]) -> Iterator[Event]:
    """As it would have come piece by piece."""
    for event in events:
        if isinstance(event, MessageWhole):
            yield MessageStarted(event.msgno, event.header)
            if event.body:
                yield DataReceived(event.msgno, event.body)
            yield MessageEnded(event.msgno)
        else:
            yield event


def header(data: bytes) -> None:
    """A header that may be sent comes back as it was."""
    for kind in ("request", "reply"):
        with only(RemoteProtocolError):
            parsed = parse_header(data, kind)
            if isinstance(parsed, RequestHeader):
                assert type(parsed.version) is int
                assert type(parsed.client_id) in (int, type(None))
            with only(LocalProtocolError):
                encoded = encode_header(parsed)
                assert parse_header(encoded, kind) == parsed


def subscription(data: bytes) -> None:
    """Filters and events; what an event says can be said again."""
    with only(RemoteProtocolError):
        codes = parse_filter(data)
        assert codes is None or len(codes) <= limits.MAX_FILTER_CODES
    with only(RemoteProtocolError):
        records, malformed = parse_records(data)
        assert malformed + len(records) <= len(data)
        again = encode_event([encode_record(record) for record in records])
        assert parse_records(again) == (records, 0)


# -- announcements ----------------------------------------------------------------------


def announcement(data: bytes) -> None:
    """The JSON of an announcement; what was read can be announced again."""
    raw = b"%b\n\n%b\n\nAAAA\n" % (data, seeds.CERTIFICATE)
    identity_hint(raw)
    with only(AnnouncementError):
        parsed = parse_announcement(raw, verify=False)
        assert count_actions(parsed) <= limits.MAX_ANNOUNCED_ACTIONS
        for action in parsed.actions[:1_000]:
            assert ":" not in action.sector + action.spelling
            assert "." not in action.name
            assert 0 <= action.version < 1 << 31
        if count_actions(parsed) <= 1_000:
            _announce_again(parsed)


def _announce_again(parsed: Announcement) -> None:
    spec = AnnouncementSpec(
        parsed.identity,
        parsed.sector,
        parsed.weight,
        parsed.interval,
        parsed.uri,
        parsed.envelopes,
        parsed.actions,
    )
    identity = make_identity()
    key = keys.load_private_key(identity.key)
    with only(AnnouncementError):
        raw = build_announcement(spec, key, identity.certificate, timestamp=parsed.timestamp)
        again = parse_announcement(raw)
        assert (again.identity, again.sector, again.uri) == (
            parsed.identity,
            parsed.sector,
            parsed.uri,
        )
        # Actions without envelopes get the service's; those have no spelling of "none at all".
        offered = {action for action in parsed.actions if action.envelopes}
        assert offered <= set(again.actions), offered - set(again.actions)


def signed(data: bytes) -> None:
    """Nothing is accepted but what was signed.

    The certificate is not part of that: around the same key another one makes another service.
    """
    identity_hint(data)
    is_cut(data)
    with only(AnnouncementError):
        parsed = replace(parse_announcement(data), fingerprint=seeds.FINGERPRINT)
        assert parsed in seeds.ANNOUNCEMENTS, "forged"
    with only(AnnouncementError):
        load_certificate(data)


def runlength(data: bytes) -> None:
    """Run-length coded lists never grow beyond the limit, and come back as they were."""
    try:
        runs = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    with only(AnnouncementError):
        length = expanded_length(runs, "acname")
        assert length <= limits.MAX_ANNOUNCED_ACTIONS
        values = expand(runs, "acname", length)
        assert len(values) == length
        if all(type(value) in (str, int) for value in values):
            coded = compress(values)
            assert len(coded) <= max(1, length)
            assert expand(coded, "acname", length) == values


def multicast(data: bytes) -> None:
    """Datagrams, as they come and as the content of a compressed one."""
    with only(AnnouncementError):
        assert len(decode_packet(data)) <= limits.MAX_ANNOUNCEMENT
    if data:
        with only(AnnouncementError):
            assert decode_packet(encode_packet(data)) == data
    with only(AnnouncementError):
        decode_packet(b"R" + zlib.compress(data)[:-1])
        raise AssertionError("a packet that is cut off was accepted")


def live(data: bytes) -> None:
    """What is alive is what was announced and has not left or expired.

    Each byte is a step: an announcement, one that is damaged, or time that passes.
    """
    index, now = LiveIndex(), 0.0
    model: dict[tuple[str, str], Announcement] = {}
    for step in data[:200]:
        raw = seeds.RECORDS[step % len(seeds.RECORDS)]
        heard = []
        with only(AnnouncementError):
            if step < 96:
                heard = [index.hear(raw, now)]
            elif step < 128:
                index.hear(_damaged(raw, step), now)
                raise AssertionError("a damaged record was accepted")
            else:
                now += (step - 128) / 8
                heard = list(index.expire(now))
        for one in heard:
            if one.kind in (Kind.LEFT, Kind.EXPIRED):
                del model[one.service.key]
            elif one.kind is not Kind.AWAY:
                assert (one.kind is Kind.NEW) == (one.service.key not in model)
                model[one.service.key] = one.service
        assert {service.key for service in index.services()} == set(model)
        assert len(index.records()) == len(model)


# -- files ------------------------------------------------------------------------------


def cachefile(data: bytes) -> None:
    """Records, and the same ones when an earlier version of the file is known.

    A byte FF separates the versions.
    """
    before: list[bytes] = []
    for version in data.split(b"\xff")[:8]:
        found = split_records(version)
        places = {raw: place for place, raw in enumerate(before)}
        assert list(scan(version, before, places)) == found
        assert sum(map(len, found)) <= len(version)
        assert not any(SEPARATOR in record or not record.strip() for record in found)
        before = found


def loader(data: bytes) -> None:
    """Versions of a cache file: what is in force was signed, and every step leads to it.

    Each byte is a step: a record, one that is damaged or cut off, anything else, or (FF) the end of
    a version.
    """
    state, offered = Loaded(), dict[tuple[str, str], Announcement]()
    for version in data[:400].split(b"\xff")[:8]:
        authorized = seeds.AUTHORIZED if version[:1] > b"\x80" else None
        before = state
        with only(FileDamagedError):
            step = load(state, _cache(version), authorized)
            state = step.state
            for key in step.removed:
                del offered[key]
            offered.update({service.key: service for service in step.added})
        assert offered == {key: one.offered for key, one in state.in_force.items()}
        for one in state.in_force.values():
            assert one.record.service in seeds.ANNOUNCEMENTS, "forged"
        for key, newest in before.newest.items():
            if key in state.in_force:
                service = state.in_force[key].record.service
                assert service is not None
                assert service.timestamp >= newest - TOLERANCE, "replayed"


def _cache(steps: bytes) -> bytes:
    """A cache file made in steps."""
    parts = []
    for step in steps:
        raw = seeds.RECORDS[step % len(seeds.RECORDS)]
        if step < 96:
            parts.append(SEPARATOR + raw)
        elif step < 160:
            parts.append(SEPARATOR + _damaged(raw, step))
        elif step < 224:
            parts.append(SEPARATOR + raw[: len(raw) * (step - 160) // 64])
        else:
            parts.append(seeds.JUNK[step % len(seeds.JUNK)])
    return b"".join(parts)


def _damaged(raw: bytes, step: int) -> bytes:
    """One character of the JSON is another."""
    at = 2 + step * 7 % 60
    return raw[:at] + (b"x" if raw[at : at + 1] != b"x" else b"y") + raw[at + 1 :]


def authorized(data: bytes) -> None:
    """The authorized_services file."""
    with only(AuthorizedServicesError):
        found = AuthorizedServices.parse(data)
        assert len(found) + len(found.problems) <= data.count(b"\n") + 1
        assert all(len(str(problem)) <= MAX_ERROR_TEXT for problem in found.problems)
        assert found.same_as(AuthorizedServices.parse(data))
        for name in ("main", "Web", "a:b", ""):
            assert not found.permits(seeds.FINGERPRINT, name, "A:b")
            assert found.permits(seeds.FINGERPRINT, name, "_meta.x") == (":" not in name)
            found.permits(seeds.FINGERPRINT, name, "Product.Sku.fetch")


def configuration(data: bytes) -> None:
    """``scamp.conf`` with every property."""
    text = data.decode("utf-8", "replace")
    conf = ScampConf.parse(text)
    assert sum(map(len, conf.warnings)) <= 2 * len(text) + 200 * (text.count("\n") + 1)
    for name, member in vars(ScampConf).items():
        if isinstance(member, property):
            with only(ConfigError):
                getattr(conf, name)
    for interfaces in ({}, {"eth0": ["10.0.0.1"], "lo": ["127.0.0.1"], "down": []}):
        with only(ConfigError):
            assert conf.service_addresses(interfaces)
        with only(ConfigError):
            assert conf.discovery_addresses(interfaces)
    with only(ConfigError):
        conf.key_path("shop")
        conf.cert_path("shop")


def key_file(data: bytes) -> None:
    """Files that should hold a key or a certificate."""
    readers: tuple[Callable[[bytes], object], ...] = (
        keys.load_public_key,
        keys.load_private_key,
        keys.public_key_pem,
        keys.fingerprint,
    )
    for read in readers:
        with only(ConfigError):
            read(data)


def service_spec(data: bytes) -> None:
    """The file for ``scamp announce``; what it says can be announced, or that is refused."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with only(ConfigError):
            spec = read_spec(Path(file.name)).announced()
            if len(spec.actions) <= 1_000:
                identity = make_identity()
                key = keys.load_private_key(identity.key)
                with only(AnnouncementError):
                    build_announcement(spec, key, identity.certificate, timestamp=1.0)


# -- tickets ----------------------------------------------------------------------------


def ticket(data: bytes) -> None:
    """Nothing is a ticket but what was signed, and no error repeats it."""
    text = data.decode("utf-8", "surrogateescape")
    with only(TicketError):
        parse_ticket(text)
    verifier = TicketVerifier([keys.load_public_key(seeds.PUBLIC_KEY)])
    with only(TicketError):
        try:
            verifier.verify(text, seeds.TIME)
        except TicketError as exc:
            if len(text) > 20 and text in str(exc):
                raise AssertionError("an error repeats the ticket") from exc
            raise
        assert text in seeds.TICKETS, "forged"


def authz_table(data: bytes) -> None:
    """The privilege table."""
    with only(ConfigError):
        table = AuthzTable.parse(data)
        holder = parse_ticket(seeds.TICKETS[0])
        listed = json.loads(data)
        for action in list(listed)[:100]:
            with only(AuthorizationError):
                table.check(action, holder)
            needed = table.required(action)
            assert action == "_NAMES" or needed is not None
            for privilege in needed or ():
                assert table.name_of(privilege)


@dataclass(frozen=True, slots=True)
class Target:
    """A harness, what good inputs look like, and the largest input to try, in bytes."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    limit: int = 8_192


TARGETS: Final[dict[str, Target]] = {
    "packets": Target(packets, seeds.PACKETS),
    "connection": Target(connection, seeds.CONVERSATIONS),
    "header": Target(header, seeds.HEADERS),
    "subscription": Target(subscription, seeds.SUBSCRIPTIONS),
    "announcement": Target(announcement, seeds.ANNOUNCED_JSON),
    "signed": Target(signed, seeds.RECORDS),
    "runlength": Target(runlength, seeds.RUNS),
    "multicast": Target(multicast, seeds.DATAGRAMS),
    "live": Target(live, seeds.STEPS, 200),
    "cachefile": Target(cachefile, seeds.CACHE_FILES, 32_768),
    "loader": Target(loader, seeds.STEPS, 400),
    "authorized": Target(authorized, seeds.AUTHORIZED_FILES),
    "configuration": Target(configuration, seeds.CONFIGURATIONS),
    "key_file": Target(key_file, seeds.KEY_FILES),
    "service_spec": Target(service_spec, seeds.SPECS),
    "ticket": Target(ticket, tuple(text.encode() for text in seeds.TICKETS)),
    "authz_table": Target(authz_table, seeds.AUTHZ_TABLES),
    "request_target": Target(http_targets.request_target, http_targets.TARGETS),
    "route_body": Target(http_targets.route_body, http_targets.BODIES),
    "request_head": Target(browser_targets.request_head, browser_targets.HEADS),
    "compressed_body": Target(browser_targets.compressed_body, browser_targets.BODIES, 1_024),
    "routes_file": Target(http_targets.routes_file, http_targets.FILES),
    "documentation": Target(openapi_targets.documentation, openapi_targets.DOCUMENTATIONS),
    "event_stream": Target(event_targets.event_stream, event_targets.ASKED),
}
