"""Which instances a named service has, and who is told when they change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from offers import service

from scamp.client.sources import NamedSource
from scamp.discovery import Announcement, Registry

SHOP = service("shop", "Shop.list", number=1)
OTHER = service("shop", "Shop.list", number=2, certificate="another")


def watched(*services: Announcement) -> tuple[Registry, list[int]]:
    """A registry, and how often somebody was told who watches ``shop``."""
    registry, told = Registry(), list[int]()
    registry.apply(added=services)
    NamedSource(registry, "MAIN:Shop").watch(lambda: told.append(1))
    return registry, told


@pytest.mark.parametrize(
    "changed",
    [
        OTHER,
        replace(SHOP, weight=0),
        replace(SHOP, uri="beepish+tls://10.0.0.9:1", host="10.0.0.9", port=1),
        replace(SHOP, sector="web"),
    ],
)
def test_who_watches_is_told_of_instances_that_come_or_change(changed: Announcement) -> None:
    registry, told = watched(SHOP)
    registry.apply(added=[changed])
    assert told == [1]


def test_who_watches_is_told_of_instances_that_go() -> None:
    registry, told = watched(SHOP, OTHER)
    registry.apply(removed=[OTHER.key])
    registry.apply(removed=[SHOP.key])
    assert told == [1, 1]


def test_who_watches_is_not_told_of_others_however_many() -> None:
    registry, told = watched(SHOP)
    registry.apply(added=[service(f"s{number}", "S.x") for number in range(300)])
    registry.apply(added=[replace(SHOP, timestamp=9.0), service("shops", "S.x")])
    registry.apply(added=[service("shop", "S.x", sector="web")])
    assert told == []


def test_an_instance_that_is_not_trusted_is_none() -> None:
    registry = Registry()
    registry.apply(added=[SHOP, OTHER])
    source = NamedSource(registry, "shop", lambda one: one.key == OTHER.key)
    assert source.announced
    assert source.choose(()).key == OTHER.key
    registry.apply(removed=[OTHER.key])
    assert not source.announced
