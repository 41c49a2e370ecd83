"""Tickets: shape, signature, time, what is remembered, and key files that change."""

from __future__ import annotations

import base64
import os
import pickle
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scamp import keys, limits
from scamp.errors import (
    ConfigError,
    TicketBadSignature,
    TicketError,
    TicketExpired,
    TicketMalformed,
    TicketNotYetValid,
)
from scamp.tickets import Ticket, TicketKeys, TicketVerifier, issue_ticket, parse_ticket

START = 1_700_000_000
LENGTH = 3600


class Key(NamedTuple):
    private: RSAPrivateKey
    public: RSAPublicKey
    public_pem: bytes
    certificate: bytes


def make_key(name: str) -> Key:
    private, certificate = keys.generate(name, now=datetime(2024, 1, 1, tzinfo=UTC))
    loaded = keys.load_private_key(private)
    return Key(loaded, loaded.public_key(), keys.public_key_pem(private), certificate)


@pytest.fixture(scope="session")
def old() -> Key:
    return make_key("old")


@pytest.fixture(scope="session")
def new() -> Key:
    return make_key("new")


def issue(key: Key, user: int = 7, privileges: Iterable[int] = (1, 2), start: int = START) -> str:
    return issue_ticket(
        key.private,
        user_id=user,
        client_id=9,
        privileges=privileges,
        start=start,
        length=LENGTH,
    )


def sign(key: Key, payload: str) -> str:
    signature = key.private.sign(payload.encode(), PKCS1v15(), SHA256())
    return f"{payload},{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


# -- shape ------------------------------------------------------------------------------


def test_issued_ticket_reads_back(old: Key) -> None:
    ticket = parse_ticket(issue(old, privileges=(3, 1, 3)))
    assert ticket == Ticket(1, 7, 9, START, LENGTH, frozenset({1, 3}))
    assert ticket.expires == START + LENGTH


@pytest.mark.parametrize("payload", ["1,7,9,1700000000,3600", "1,7,9,1700000000,3600,"])
def test_privileges_may_be_missing_or_empty(old: Key, payload: str) -> None:
    ticket = TicketVerifier([old.public]).verify(sign(old, payload), START)
    assert ticket.privileges == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,7,9,1,1",
        "1,7,9,1,1,",
        "1,7,9,1,1,2,",
        "2,7,9,1,1,,AAAA",
        "one,7,9,1,1,,AAAA",
        "1,-7,9,1,1,,AAAA",
        "1,+7,9,1,1,,AAAA",
        "1,7,,1,1,,AAAA",
        "1,7, 9,1,1,,AAAA",
        "1,7,9,1.5,1,,AAAA",
        "1,7,9,1,1_0,,AAAA",
        "1,7,9,1," + "9" * 19 + ",,AAAA",
        "1,7,9,1,1,2+,AAAA",
        "1,7,9,1,1,+2,AAAA",
        "1,7,9,1,1,2 3,AAAA",
        "1,7,9,1,1,2,3,AAAA",
        "1,7,9,1,1,,AAA=",
        "1,7,9,1,1,,AAA+",
        "1,7,9,1,1,,AAA/",
        "1,7,9,1,1,,A",
        "1,7,9,1,1,,AB",
        "1,7,9,1,1,,AAAA\n",
        " 1,7,9,1,1,,AAAA",
        "1,7,9,1,1\x00,,AAAA",
        "1,\u0667,9,1,1,,AAAA",
        "1,7,9,1,1,,AAA\ud800",
        "1,7,9,1,1,,AAAÄ",
    ],
)
def test_other_shapes_are_malformed(old: Key, text: str) -> None:
    with pytest.raises(TicketMalformed):
        parse_ticket(text)
    with pytest.raises(TicketMalformed):
        TicketVerifier([old.public]).verify(text, START)


def test_longest_ticket_is_read_and_one_character_more_is_not() -> None:
    head = "1,7,9,1,1,,"
    fits = head + "A" * (limits.MAX_TICKET - len(head))
    fits = fits if (len(fits) - len(head)) % 4 != 1 else fits[:-1]
    assert parse_ticket(fits).user_id == 7
    with pytest.raises(TicketMalformed, match="at most"):
        parse_ticket(head + "A" * (limits.MAX_TICKET - len(head) + 1))


@pytest.mark.parametrize("privileges", [[-1], [10**18], range(10_000)])
def test_ticket_that_nobody_could_read_is_not_issued(old: Key, privileges: Iterable[int]) -> None:
    with pytest.raises(TicketMalformed):
        issue(old, privileges=privileges)


@given(st.text() | st.text(alphabet="0123456789,+-_AB=\n", max_size=60))
def test_any_text_raises_ticket_errors_only(text: str) -> None:
    verifier = TicketVerifier([])
    with pytest.raises(TicketError):
        verifier.verify(text, START)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_changing_any_character_makes_a_genuine_ticket_worthless(
    old: Key, data: st.DataObject
) -> None:
    text = issue(old)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda c: c != text[at]))
    with pytest.raises(TicketError):
        TicketVerifier([old.public]).verify(text[:at] + other + text[at + 1 :], START)


# -- signature and time -----------------------------------------------------------------


def test_shape_comes_before_signature_and_signature_before_time(old: Key, new: Key) -> None:
    verifier = TicketVerifier([old.public])
    with pytest.raises(TicketMalformed):
        verifier.verify(sign(new, "1,7,x,0,0"), START)
    with pytest.raises(TicketBadSignature):
        verifier.verify(issue(new, start=0), START)
    with pytest.raises(TicketExpired):
        verifier.verify(issue(old, start=0), START)


@pytest.mark.parametrize("warm", [False, True], ids=["first", "remembered"])
@pytest.mark.parametrize(
    ("now", "error"),
    [
        (START - 30.01, TicketNotYetValid),
        (START - 30, None),
        (START, None),
        (START + LENGTH - 0.01, None),
        (START + LENGTH, TicketExpired),
    ],
)
def test_window_is_the_same_for_a_first_and_a_remembered_ticket(
    old: Key, now: float, error: type[TicketError] | None, warm: bool
) -> None:
    verifier = TicketVerifier([old.public], leeway=30)
    text = issue(old)
    if warm:
        verifier.verify(text, START)
    if error is None:
        assert verifier.verify(text, now).user_id == 7
    else:
        with pytest.raises(error):
            verifier.verify(text, now)


def test_without_leeway_a_ticket_begins_on_the_second(old: Key) -> None:
    with pytest.raises(TicketNotYetValid):
        TicketVerifier([old.public], leeway=0).verify(issue(old), START - 1)


def test_each_key_is_tried(old: Key, new: Key) -> None:
    verifier = TicketVerifier([old.public, new.public])
    assert verifier.verify(issue(old, user=1), START).user_id == 1
    assert verifier.verify(issue(new, user=2), START).user_id == 2


def test_without_keys_nothing_is_genuine(old: Key) -> None:
    with pytest.raises(TicketBadSignature):
        TicketVerifier([]).verify(issue(old), START)


# -- what is remembered -----------------------------------------------------------------


def test_remembered_ticket_is_not_checked_again(old: Key) -> None:
    verifier = TicketVerifier([old.public])
    text = issue(old)
    assert verifier.verify(text, START) is verifier.verify(text, START + 1)


def test_replaced_keys_end_what_was_remembered(old: Key, new: Key) -> None:
    verifier = TicketVerifier([old.public])
    text = issue(old)
    verifier.verify(text, START)
    verifier.replace_keys([new.public])
    with pytest.raises(TicketBadSignature):
        verifier.verify(text, START)


def test_memory_is_bounded_and_forgets_the_least_used(old: Key) -> None:
    verifier = TicketVerifier([old.public], cache_size=3)
    texts = [issue(old, user=user) for user in range(10)]
    first = verifier.verify(texts[0], START)
    for text in texts[1:]:
        verifier.verify(text, START)
        assert verifier.verify(texts[0], START) is first
        assert len(verifier) <= 3


def test_failures_and_expired_tickets_are_not_remembered(old: Key, new: Key) -> None:
    verifier = TicketVerifier([old.public])
    for text, now in [(issue(new), START), ("rubbish", START), (issue(old), START - 9999)]:
        with pytest.raises(TicketError):
            verifier.verify(text, now)
    text = issue(old)
    verifier.verify(text, START)
    with pytest.raises(TicketExpired):
        verifier.verify(text, START + LENGTH)
    assert len(verifier) == 0


def test_memory_can_be_switched_off(old: Key) -> None:
    verifier = TicketVerifier([old.public], cache_size=0)
    assert verifier.verify(issue(old), START).user_id == 7
    assert len(verifier) == 0


def test_no_text_of_a_ticket_is_shown_or_kept(old: Key, new: Key) -> None:
    text = issue(old)
    secret = text.rpartition(",")[2]
    verifier = TicketVerifier([old.public])
    ticket = verifier.verify(text, START)
    remembered = {name: getattr(verifier, name) for name in vars(verifier) if name != "_keys"}
    assert secret[:20] not in repr(ticket) + repr(verifier) + repr(remembered)
    assert secret[:20].encode() not in pickle.dumps(remembered)
    for attempt, now in [(issue(new), START), (text, 0.0), (text, START * 2), (text + "=", START)]:
        with pytest.raises(TicketError) as caught:
            verifier.verify(attempt, now)
        shown = repr(caught.value) + str(caught.value) + repr(vars(caught.value))
        assert attempt[-60:-40] not in shown
        assert attempt[:20] not in shown


# -- key files --------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """Replace the file as an operator's tool does: a new inode under the old name."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def test_keys_are_read_from_public_keys_and_certificates(
    tmp_path: Path, old: Key, new: Key
) -> None:
    write(tmp_path / "old.pem", old.public_pem)
    write(tmp_path / "new.crt", new.certificate)
    files = TicketKeys([tmp_path / "old.pem", tmp_path / "new.crt"])
    assert files.load() == [old.public, new.public]
    assert files.poll() is None


@pytest.mark.parametrize("content", [None, b"no key", b"x" * 100_000])
def test_first_load_of_a_bad_file_names_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ticket.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ticket\.pem: "):
        TicketKeys([path]).load()


def test_changed_file_gives_the_new_key_once(tmp_path: Path, old: Key, new: Key) -> None:
    path = tmp_path / "ticket.pem"
    write(path, old.public_pem)
    files = TicketKeys([path])
    files.load()
    write(path, new.public_pem)
    assert files.poll() == [new.public]
    assert files.poll() is None


def test_file_written_anew_with_the_same_key_is_no_change(tmp_path: Path, old: Key) -> None:
    path = tmp_path / "ticket.pem"
    write(path, old.public_pem)
    files = TicketKeys([path])
    files.load()
    write(path, old.public_pem + b"\n")
    assert files.poll() is None


@pytest.mark.parametrize("content", [None, b"half a k"], ids=["gone", "damaged"])
def test_bad_file_is_reported_once_and_its_last_good_key_stays(
    tmp_path: Path, old: Key, new: Key, content: bytes | None
) -> None:
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    write(first, old.public_pem)
    write(second, old.public_pem)
    files = TicketKeys([first, second])
    files.load()
    if content is None:
        first.unlink()
    else:
        write(first, content)
    with pytest.raises(ConfigError, match=r"first\.pem: "):
        files.poll()
    assert files.poll() is None
    assert list(files.errors) == [first]
    write(second, new.public_pem)
    assert files.poll() == [old.public, new.public]
    write(first, new.public_pem)
    assert files.poll() == [new.public, new.public]
    assert files.errors == {}


def test_good_change_beside_a_bad_one_comes_with_the_next_look(
    tmp_path: Path, old: Key, new: Key
) -> None:
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    write(first, old.public_pem)
    write(second, old.public_pem)
    files = TicketKeys([first, second])
    files.load()
    write(first, b"damaged")
    write(second, new.public_pem)
    with pytest.raises(ConfigError):
        files.poll()
    assert files.poll() == [old.public, new.public]
