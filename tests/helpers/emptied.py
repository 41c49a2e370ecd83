"""What is left in the tables of a client when nobody asks for anything any more."""

from __future__ import annotations

from scamp.client.instance import Instance
from scamp.testing import Mesh


def instances(mesh: Mesh) -> list[Instance]:
    return list(mesh.requester._router._instances.values())


def assert_tables_empty(mesh: Mesh) -> None:
    for instance in instances(mesh):
        assert instance.in_flight == 0
        assert instance.waiting == 0
        assert instance._pool.dialing == 0
        for connection in instance.connections:
            assert connection.in_flight == 0
            assert connection._exchanges == {}
            assert connection.channel is not None
            assert connection.channel.busy == 0
            assert connection.channel.open_messages == 0
    assert not mesh.requester._uploads
    assert not any(mesh.requester._expiry._ticks.values())


def quiet(mesh: Mesh) -> bool:
    """True when no connection carries anything: abandoned replies have been thrown away."""
    connections = [one for instance in instances(mesh) for one in instance.connections]
    dialing = any(instance._pool.dialing for instance in instances(mesh))
    return not dialing and not any(one.in_flight for one in connections)
