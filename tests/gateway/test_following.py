"""What is told of a followed file that is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.following import MAX_REASONS, FollowedRoutes, Following
from gateway.routes.model import RouteTable

ROUTE = '[[routes]]\nmethod = "GET"\npath = "/v1/x"\naction = "A.b"\n'


@pytest.mark.parametrize("mistakes", [1, 3, MAX_REASONS, MAX_REASONS + 7])
async def test_each_mistake_is_a_record_of_its_own(
    mistakes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(ROUTE)
    used: list[RouteTable] = []
    results: list[tuple[str, bool]] = []
    following = Following(
        [FollowedRoutes(path, used.append)], lambda name, good: results.append((name, good))
    )
    path.write_text(ROUTE.replace("A.b", "A") * mistakes)
    await following.look()
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        f"routes not reloaded, the last good one stays: {path}:4: "
        "'A' is not [SECTOR:]Namespace.name[~VERSION]"
    )
    assert len(told) == min(mistakes, MAX_REASONS + 1)
    assert (f"{mistakes - MAX_REASONS} more mistakes" in told[-1]) == (mistakes > MAX_REASONS)
    assert results == [("routes", False)]
    assert used == []
