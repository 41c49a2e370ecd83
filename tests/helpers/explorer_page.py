"""What a person does on the explorer's page, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explored import Explored
from gateway.demo.supervisor import USERS

if TYPE_CHECKING:
    from playwright.async_api import Page

PICTURE: Final = {
    "service": "shop",
    "sector": "main",
    "codes": {
        "price": {"CHAIR-1": 14900, "DESK-1": 39900, "LAMP-1": 4900},
        "stock": {"CHAIR-1": 3, "DESK-1": 0, "LAMP-1": 12},
    },
}
"""Values of a service, as a snapshot has them."""


async def use_ticket(page: Page, site: Explored, user: str) -> None:
    """Paste the ticket of alice or bob, and wait until the page knows whose it is."""
    await page.click("#ticket-button")
    await page.fill("#ticket-text", site.ticket(user))
    await page.click("text=Use ticket")
    await page.wait_for_selector(f"#ticket-button:has-text('User {USERS[user][0]}')")


async def send(page: Page) -> str:
    """Press Send and wait; what stands in the reply."""
    await page.click(".try >> text=Send")
    await page.wait_for_selector("#reply:not([aria-busy]) .status-line")
    return await page.inner_text("#reply")


async def actions(page: Page) -> list[str]:
    """Keys of the list, once there is one."""
    await page.wait_for_selector("#list a")
    links = await page.query_selector_all("#list a")
    return [str(await link.get_attribute("data-key")) for link in links]


async def follow(page: Page, service: str, codes: str) -> None:
    """Go to the live values and wait until they are."""
    await page.click("#tab-events")
    await page.fill("#events-service", service)
    await page.fill("#events-codes", codes)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".state[data-state=ready]")


def value_of(code: str, key: str) -> str:
    """A selector for the cell."""
    return f"tr:has(th:has-text('{code}')):has(td:text-is('{key}')) .value"


async def statuses(site: Explored, action: str, count: int) -> list[int]:
    """What the log says of requests for an action, once there are `count`."""
    log = site.front.log
    while len(found := [one["status"] for one in log.lines if one["action"] == action]) < count:
        await log.until(len(log.lines) + 1)
    return found
