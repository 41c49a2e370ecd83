"""Cancel work at each place where it can be suspended, one after another.

A coroutine is suspended wherever what it awaits is not there yet, and nowhere else can it be
cancelled. `Stepped` runs one by hand and counts these places; at one of them it has its task
cancelled, so going through the numbers until the work gets to its end misses none::

    async for stepped in every_step("waiting", at_least=5):
        await stepped.run(work())
        ...                                     # what has to be true after that
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")

How = Literal["waiting", "resumed"]
"""``waiting``: while it waits. ``resumed``: in the turn of the loop in which what it waits for has
come, so that there is a result and a cancellation."""

HOWS: Final[tuple[How, ...]] = ("waiting", "resumed")

MAX_STEPS: Final = 400
"""More than any work here has; what never ends is a mistake in the test."""


class Stepped:
    """Runs a coroutine up to its suspension number `at`, from 1; at that it is cancelled."""

    def __init__(self, at: int, how: How = "waiting") -> None:
        self.at = at
        self.how = how
        self.seen = 0
        """Suspensions so far."""
        self.cut = False
        """Suspension number `at` was reached."""
        self.counting = True
        self.cancel: Callable[[], object] | None = None
        """Instead of cancelling the task that is run."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> _Steps[T]:
        """To be awaited in place of `work`."""
        return _Steps(self, work)

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run `work` in a task of its own; None when it was cancelled."""

        async def stepped() -> T:
            return await self(work)

        task = asyncio.create_task(stepped())
        try:
            return await task
        except asyncio.CancelledError:
            assert self.cut, "cancelled by something else"
            return None

    def at_step(self, awaited: Any) -> None:
        """Suspended, to wait for `awaited`; None is for one turn of the loop."""
        if not self.counting:
            return
        self.seen += 1
        if self.seen != self.at:
            return
        self.cut = True
        cancel = self.cancel
        if cancel is None:
            task = asyncio.current_task()
            assert task is not None
            cancel = task.cancel
        if self.how == "resumed" and awaited is not None:
            awaited.add_done_callback(lambda _: cancel())  # before the task's own
        else:
            cancel()


class _Steps(Coroutine[Any, Any, T]):
    def __init__(self, stepped: Stepped, work: Coroutine[Any, Any, T]) -> None:
        self._stepped = stepped
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = self.send(value) if error is None else self.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            value, error = None, None
            try:
                value = yield awaited
            except BaseException as exc:  # for the work to see
                error = exc

    def send(self, value: Any) -> Any:
        awaited = self._work.send(value)
        self._stepped.at_step(awaited)
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._work.throw(*error)
        self._stepped.at_step(awaited)
        return awaited

    def close(self) -> None:
        self._work.close()


async def every_step(how: How = "waiting", *, at_least: int) -> AsyncIterator[Stepped]:
    """One after another, until the work ends before its number comes. Fails when there were fewer
    than `at_least` suspensions, or the loop was told of something that nobody has handled."""
    for at in range(1, MAX_STEPS):
        stepped = Stepped(at, how)
        with nothing_unhandled():
            yield stepped
            await asyncio.sleep(0)
        if not stepped.cut:
            assert stepped.seen >= at_least, f"only {stepped.seen} suspensions"
            return
    raise AssertionError(f"more than {MAX_STEPS} suspensions")


@contextmanager
def nothing_unhandled() -> Iterator[None]:
    """Fails when the loop's exception handler was called: errors of callbacks, and of tasks and
    futures that nobody has asked for theirs."""
    loop = asyncio.get_running_loop()
    told: list[str] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, what: told.append(f"{what}"))
    try:
        yield
        gc.collect(1)
    finally:
        loop.set_exception_handler(before)
    assert not told, told


@contextmanager
def in_any_task(stepped: Stepped) -> Iterator[None]:
    """Count the suspensions of all tasks that begin meanwhile, and cancel what `stepped.cancel`
    says: the work is cancelled at every stage of what others do for it, too."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def factory(loop: Any, work: Any, **more: Any) -> asyncio.Task[Any]:
        async def counted() -> Any:
            return await _Steps(stepped, work)

        return asyncio.Task(counted(), loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)
