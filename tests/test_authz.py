"""The privilege table, and the source that fetches it once and stands in while Auth is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp import limits
from scamp.authz import AuthzSource, AuthzTable, file_fetcher
from scamp.errors import (
    AuthzTableUnavailable,
    ConfigError,
    MissingPrivilege,
    UnconfiguredAction,
)
from scamp.tickets import Ticket

TABLE = {
    "product.sku.fetch": [3, "12"],
    "order.list": [],
    "_NAMES": [None, "admin", "", "fetch products"],
}


def body(table: object = TABLE) -> bytes:
    return json.dumps(table).encode()


def holder(*privileges: int) -> Ticket:
    return Ticket(1, 7, 9, 0, 100, frozenset(privileges))


# -- the table --------------------------------------------------------------------------


def test_action_is_found_without_case_and_privileges_may_be_text() -> None:
    table = AuthzTable.parse(body())
    assert table.required("Product.Sku.FETCH") == frozenset({3, 12})
    assert table.required("order.list") == frozenset()
    assert table.required("order.gone") is None
    assert table.required("_NAMES") is None
    assert len(table) == 2


def test_the_actions_that_are_listed_can_be_asked_for() -> None:
    assert set(AuthzTable.parse(body({**TABLE, "A.B": [1]})).actions()) == {
        *("product.sku.fetch", "order.list", "a.b"),
    }


def test_ticket_with_every_privilege_passes() -> None:
    table = AuthzTable.parse(body())
    table.check("Product.Sku.fetch", holder(1, 3, 12))
    table.check("Order.list", holder())


def test_lowest_missing_privilege_is_named() -> None:
    table = AuthzTable.parse(body())
    with pytest.raises(MissingPrivilege) as caught:
        table.check("Product.Sku.fetch", holder(1))
    assert (caught.value.privilege, caught.value.name) == (3, "fetch products")
    assert caught.value.action == "Product.Sku.fetch"
    with pytest.raises(MissingPrivilege) as caught:
        table.check("Product.Sku.fetch", holder(3))
    assert (caught.value.privilege, caught.value.name) == (12, "12")


def test_action_that_is_not_listed_is_refused() -> None:
    with pytest.raises(UnconfiguredAction, match="unconfigured"):
        AuthzTable.parse(body()).check("Order.gone", holder(*range(100)))


@pytest.mark.parametrize("number", [-1, 0, 2, 99])
def test_privilege_without_a_name_goes_by_its_number(number: int) -> None:
    assert AuthzTable.parse(body()).name_of(number) == str(number)


def test_name_that_would_break_a_line_is_not_used() -> None:
    table = AuthzTable.parse(body({"_NAMES": [None, "a\r\nSet-Cookie: b"]}))
    assert table.name_of(1) == "1"


def test_names_are_optional() -> None:
    assert AuthzTable.parse(b'{"a.b": [1]}').name_of(1) == "1"


def test_equal_sets_of_privileges_are_one_object() -> None:
    table = AuthzTable.parse(body({f"a.b{n}": [300, str(n % 2)] for n in range(10)}))
    assert len({id(table.required(action)) for action in table.actions()}) == 2


def test_two_spellings_of_one_action_take_the_privileges_of_both() -> None:
    assert AuthzTable.parse(body({"A.b": [1], "a.B": [2]})).required("a.b") == frozenset({1, 2})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'{"a.b": null}',
        b'{"a.b": 1}',
        b'{"a.b": {"1": true}}',
        b'{"a.b": [1.0]}',
        b'{"a.b": [true]}',
        b'{"a.b": [null]}',
        b'{"a.b": [-1]}',
        b'{"a.b": [1000000000000000000]}',
        b'{"a.b": ["x"]}',
        b'{"a.b": [""]}',
        b'{"a.b": [" 1"]}',
        b'{"a.b": ["\xd9\xa7"]}',
        b'{"a.b": [[1]]}',
        b'{"_NAMES": {}}',
        b'{"_NAMES": [null, 1]}',
        b'{"a.b": [NaN]}',
        b'{"\xff": []}',
        b"[" * 100_000,
    ],
)
def test_other_shapes_are_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        AuthzTable.parse(content)


def test_table_beyond_its_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_AUTHZ_TABLE", 20)
    assert len(AuthzTable.parse(b'{"a.b": [1, 2, 345]}')) == 1
    with pytest.raises(ConfigError, match="larger"):
        AuthzTable.parse(b'{"a.b": [1, 2, 3456]}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text(max_size=8) | st.just("_NAMES"), json_values) | json_values)
def test_any_json_is_a_table_or_a_config_error(value: object) -> None:
    try:
        table = AuthzTable.parse(body(value))
    except ConfigError:
        return
    assert isinstance(value, dict)
    assert all(table.required(action) is not None for action in value if action != "_NAMES")


# -- the source -------------------------------------------------------------------------


class Auth:
    """An Auth service whose answers the test gives, one by one, and whose time it sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[asyncio.Future[bytes]] = []
        self._called = asyncio.Event()
        self.source = AuthzSource(
            self.fetch, ttl=300, grace=900, clock=lambda: self.now, retry_interval=5
        )

    async def fetch(self) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.calls.append(answer)
        self._called.set()
        return await answer

    async def called(self, count: int) -> None:
        while len(self.calls) < count:
            self._called.clear()
            await self._called.wait()

    async def answer(self, count: int, content: bytes | Exception) -> None:
        """Answer the fetch of this number, counted from 1, and let the source take it in."""
        await self.called(count)
        if isinstance(content, Exception):
            self.calls[count - 1].set_exception(content)
        else:
            self.calls[count - 1].set_result(content)
        for _ in range(5):
            await asyncio.sleep(0)

    async def loaded(self) -> AuthzTable:
        getting = asyncio.create_task(self.source.get())
        await self.answer(1, body())
        return await getting


@pytest.fixture
async def auth() -> AsyncIterator[Auth]:
    auth = Auth()
    yield auth
    await auth.source.close()


async def unavailable(source: AuthzSource) -> AuthzTableUnavailable:
    with pytest.raises(AuthzTableUnavailable) as caught:
        await source.get()
    return caught.value


async def test_first_callers_share_one_fetch(auth: Auth) -> None:
    assert auth.source.current() is None
    assert auth.source.age() is None
    getting = [asyncio.create_task(auth.source.get()) for _ in range(50)]
    await auth.answer(1, body())
    tables = await asyncio.gather(*getting)
    assert len(auth.calls) == 1
    assert all(table is tables[0] for table in tables)
    assert auth.source.current() is tables[0]
    assert auth.source.age() == 0


async def test_cancelling_one_caller_leaves_the_fetch_to_the_others(auth: Auth) -> None:
    first = asyncio.create_task(auth.source.get())
    second = asyncio.create_task(auth.source.get())
    await auth.called(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await auth.answer(1, body())
    assert len(await second) == 2
    assert len(auth.calls) == 1


async def test_fresh_table_is_not_fetched_again(auth: Auth) -> None:
    table = await auth.loaded()
    auth.now += 299.9
    assert auth.source.current() is table
    assert await auth.source.get() is table
    assert len(auth.calls) == 1


async def test_old_table_is_used_at_once_and_replaced_behind(auth: Auth) -> None:
    table = await auth.loaded()
    auth.now += 300
    assert auth.source.current() is None
    for _ in range(10):
        assert await auth.source.get() is table
    await auth.answer(2, body({"a.b": [1]}))
    assert len(auth.calls) == 2
    assert (await auth.source.get()).required("a.b") == frozenset({1})
    assert auth.source.age() == 0


@pytest.mark.parametrize(
    "failure", [OSError("no route"), b"not json", TimeoutError()], ids=["error", "shape", "time"]
)
async def test_failed_refresh_leaves_the_old_table_and_waits_before_the_next(
    auth: Auth, failure: bytes | Exception
) -> None:
    table = await auth.loaded()
    auth.now += 300
    await auth.source.get()
    await auth.answer(2, failure)
    assert auth.source.last_error
    auth.now += 4.9
    assert await auth.source.get() is table
    assert len(auth.calls) == 2
    auth.now += 0.1
    assert await auth.source.get() is table
    await auth.answer(3, body())
    assert auth.source.last_error is None
    assert auth.source.current() is not None


async def test_beyond_its_grace_the_table_is_no_longer_used(auth: Auth) -> None:
    table = await auth.loaded()
    auth.now += 1199.9
    assert await auth.source.get() is table
    await auth.answer(2, OSError("no route"))
    auth.now += 0.1
    error = await unavailable(auth.source)
    assert "no route" in str(error)
    assert error.retry_after == pytest.approx(4.9)
    assert len(auth.calls) == 2


async def test_beyond_its_grace_callers_wait_for_a_new_table(auth: Auth) -> None:
    await auth.loaded()
    auth.now += 1200
    getting = asyncio.create_task(auth.source.get())
    await auth.answer(2, body({"a.b": [1]}))
    assert len(await getting) == 1


async def test_failed_first_fetch_refuses_all_who_wait_and_is_not_repeated_at_once(
    auth: Auth,
) -> None:
    waiting = [asyncio.create_task(unavailable(auth.source)) for _ in range(3)]
    await auth.answer(1, OSError("no route"))
    for error in await asyncio.gather(*waiting):
        assert error.retry_after == 5
    auth.now += 2
    assert (await unavailable(auth.source)).retry_after == 3
    assert len(auth.calls) == 1
    auth.now += 3
    getting = asyncio.create_task(auth.source.get())
    await auth.answer(2, body())
    assert len(await getting) == 2


async def test_fetch_that_hangs_is_given_up() -> None:
    async def never() -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return await answer

    source = AuthzSource(never, fetch_timeout=0)
    error = await unavailable(source)
    assert "no answer in time" in str(error)
    await source.close()


async def test_refresh_takes_a_new_table_before_its_time(auth: Auth) -> None:
    await auth.loaded()
    refreshing = asyncio.create_task(auth.source.refresh())
    await auth.answer(2, body({"a.b": [1]}))
    assert await refreshing is auth.source.current()
    assert (await auth.source.get()).required("a.b") == frozenset({1})


async def test_refresh_does_not_trust_a_fetch_that_began_before_it(auth: Auth) -> None:
    getting = asyncio.create_task(auth.source.get())
    await auth.called(1)
    refreshing = [asyncio.create_task(auth.source.refresh()) for _ in range(2)]
    await asyncio.sleep(0)
    await auth.answer(1, body())
    await getting
    await auth.answer(2, body({"a.b": [1]}))
    for refreshed in await asyncio.gather(*refreshing):
        assert refreshed.required("a.b") == frozenset({1})
    assert len(auth.calls) == 2


async def test_the_same_text_is_the_same_table_and_counts_as_fetched(auth: Auth) -> None:
    async def fetched(content: bytes) -> AuthzTable:
        auth.now += 10
        refreshing = asyncio.create_task(auth.source.refresh())
        await auth.answer(len(auth.calls) + 1, content)
        assert auth.source.age() == 0
        return await refreshing

    first = await auth.loaded()
    assert await fetched(body()) is first
    assert (await fetched(body({"a.b": [1]}))).required("a.b") == frozenset({1})
    assert (await fetched(body())).required("a.b") is None


async def test_failed_refresh_says_so_and_the_old_table_stays(auth: Auth) -> None:
    table = await auth.loaded()
    refreshing = asyncio.create_task(auth.source.refresh())
    await auth.answer(2, b"[]")
    with pytest.raises(AuthzTableUnavailable, match="not a JSON object"):
        await refreshing
    assert await auth.source.get() is table


async def test_invalidated_table_is_used_until_the_next_is_there(auth: Auth) -> None:
    table = await auth.loaded()
    auth.source.invalidate()
    assert auth.source.current() is None
    assert await auth.source.get() is table
    await auth.answer(2, body({"a.b": [1]}))
    assert auth.source.current() is not table


async def test_invalidating_lifts_the_wait_after_a_failure(auth: Auth) -> None:
    waiting = asyncio.create_task(unavailable(auth.source))
    await auth.answer(1, OSError("no route"))
    await waiting
    auth.source.invalidate()
    getting = asyncio.create_task(auth.source.get())
    await auth.answer(2, body())
    assert len(await getting) == 2


async def test_closing_ends_the_fetch_and_refuses_those_who_wait(auth: Auth) -> None:
    waiting = asyncio.create_task(unavailable(auth.source))
    await auth.called(1)
    await auth.source.close()
    assert "shutting down" in str(await waiting)
    assert auth.calls[0].cancelled()
    await unavailable(auth.source)
    assert len(auth.calls) == 1
    await auth.source.close()


# -- a table in a file ------------------------------------------------------------------


async def test_table_is_read_from_a_file_and_again_after_a_refresh(tmp_path: Path) -> None:
    path = tmp_path / "authz.json"
    path.write_bytes(body())
    source = AuthzSource(file_fetcher(path))
    assert len(await source.get()) == 2
    path.write_bytes(body({"a.b": [1]}))
    assert len(await source.refresh()) == 1
    await source.close()


async def test_large_table_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "authz.json"
    path.write_bytes(body({f"name.space.action{number}": [number] for number in range(10_000)}))
    source = AuthzSource(file_fetcher(path))
    assert (await source.get()).required("Name.Space.action9999") == frozenset({9999})
    await source.close()


async def test_where_a_bad_table_came_from_is_told(tmp_path: Path) -> None:
    path = tmp_path / "authz.json"
    path.write_bytes(b"[]")
    for origin, told in ((None, "the privilege"), (str(path), f"{path}: the privilege")):
        source = AuthzSource(file_fetcher(path), origin=origin)
        with pytest.raises(AuthzTableUnavailable):
            await source.get()
        assert (source.last_error or "").startswith(told)
        await source.close()


async def test_missing_or_oversized_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "authz.json"
    with pytest.raises(ConfigError, match=r"authz\.json: No such file"):
        await file_fetcher(path)()
    path.write_bytes(body())
    monkeypatch.setattr(limits, "MAX_AUTHZ_TABLE", 10)
    with pytest.raises(ConfigError, match=r"authz\.json: larger"):
        await file_fetcher(path)()
