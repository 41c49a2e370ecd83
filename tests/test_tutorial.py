"""The tutorial, done as a newcomer does it: every file is saved and every block run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from pages import Page, running, shell

PAGE: Final = Page("docs/tutorial.md")
SERVICES: Final = ("stock", "order", "files", "guarded", "prices")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with everything in it, and every service running."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, script in PAGE.scripts().items():
        (folder / name).write_text(script)
    shell(PAGE.block_with("sh", "scamp keygen stock"), folder)
    shell(PAGE.block_with("sh", "scamp keygen auth"), folder)
    with ExitStack() as stack:
        for name in SERVICES:
            stack.enter_context(running(f"{name}.py", folder, folder / f"{name}.announcement"))
        shell(PAGE.block_with("sh", "> cache"), folder)
        yield folder


def run(script: str, folder: Path) -> str:
    return shell(f"python {script}", folder)


def test_the_client_gets_what_the_page_says(desk: Path) -> None:
    printed = run("look.py", desk).strip()
    assert f"`python look.py` prints `{printed}`" in PAGE.text


def test_the_command_lists_and_calls(desk: Path) -> None:
    listing, request = PAGE.block_with("sh", "scamp list actions").splitlines()
    assert "main:Stock.fetch~1" in shell(listing, desk)
    assert json.loads(shell(request, desk)) == {"left": 12}


def test_errors_are_what_the_page_says(desk: Path) -> None:
    assert run("buy.py", desk) == PAGE.block_with("text", "sold_out")


def test_streams_carry_what_the_page_says(desk: Path) -> None:
    sent, received = run("transfer.py", desk).splitlines()
    assert f"It prints `{sent}` and `{received}`" in PAGE.text


def test_tickets_open_what_the_page_says(desk: Path) -> None:
    assert run("count.py", desk) == PAGE.block_with("text", "access_denied")


def test_a_subscription_tells_what_the_page_says(desk: Path) -> None:
    before, after = run("follow.py", desk).splitlines()
    assert f"It prints `{before}` and then `{after}`" in PAGE.text


def test_the_tests_pass(desk: Path) -> None:
    printed = shell("python -m pytest -q -p no:cacheprovider test_order.py", desk)
    assert "2 passed" in printed


def test_a_log_line_is_what_the_page_says(desk: Path) -> None:
    shown, printed = PAGE.block_with("text", "[request_id=17]"), run("logged.py", desk)
    changing = r"^\S+\tstock\t\d+\t"
    assert re.match(changing, shown)
    assert re.sub(changing, "", printed) == re.sub(changing, "", shown)


def test_every_file_of_the_page_was_used() -> None:
    clients = {"look", "buy", "transfer", "count", "follow", "logged", "test_order", "mesh"}
    assert set(PAGE.scripts()) == {f"{name}.py" for name in clients | set(SERVICES)}
    assert len(PAGE.blocks("sh")) == 4
