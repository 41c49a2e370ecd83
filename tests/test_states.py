"""The page about state machines is what the tables say, and the tables are whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scamp.states import MACHINES, Machine, diagram, page

PAGE = Path(__file__).parents[1] / "docs" / "states.md"


def test_the_page_is_drawn_from_the_tables() -> None:
    assert PAGE.read_text() == page(), "python -m scamp.states > docs/states.md"


def test_the_command_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scamp.states"], capture_output=True, text=True, check=True
    )
    assert done.stdout == page()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.title)
def test_every_state_and_event_is_used_and_can_be_reached(machine: Machine) -> None:
    reached = {machine.first}
    while more := {b for (a, _), b in machine.table.items() if a in reached} - reached:
        reached |= more
    assert reached == set(machine.states)
    assert {event for _, event in machine.table} == set(machine.events)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.title)
def test_a_change_of_a_table_changes_its_diagram(machine: Machine) -> None:
    whole = diagram(machine.table, machine.first)
    for key in machine.table:
        less = {other: after for other, after in machine.table.items() if other != key}
        assert diagram(less, machine.first) != whole
