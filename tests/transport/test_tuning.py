"""What is asked of the kernel: the values on real sockets."""

from __future__ import annotations

import socket
import sys

import pytest

from scamp.client import ClientOptions
from scamp.limits import KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, USER_TIMEOUT
from scamp.testing import Mesh, ScriptedPeer, channel_pair
from scamp.transport import Channel, TcpTimes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other options")


def asked(channel: Channel) -> tuple[int, ...]:
    """On or off, idle, interval, count and user timeout, as the kernel has them."""
    assert channel._transport is not None
    sock: socket.socket = channel._transport.get_extra_info("socket")
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        ),
    )


async def test_both_sides_find_a_dead_peer_without_being_told_how() -> None:
    async with channel_pair() as pair:
        usual = (1, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, 3, USER_TIMEOUT * 1000)
        assert asked(pair.client.channel) == usual
        assert asked(pair.server.channel) == usual


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tcp_keepalive_idle": 7, "tcp_keepalive_interval": 2}, (1, 7, 2, 12, 30_000)),
        ({"tcp_user_timeout": 0.5}, (1, 15, 5, 1, 500)),
    ],
)
async def test_a_clients_options_reach_its_sockets(
    options: dict[str, float], expected: tuple[int, ...]
) -> None:
    async with Mesh(ScriptedPeer(), options=ClientOptions(**options)) as mesh:  # type: ignore[arg-type]
        await (await mesh.requester.request("Test.echo")).read_all()
        (instance,) = mesh.requester._router._instances.values()
        (connection,) = instance.connections
        assert connection.channel is not None
        assert asked(connection.channel) == expected


async def test_none_of_it_is_the_systems_own() -> None:
    times = TcpTimes(0, 5, 0)
    with socket.socket() as sock:
        count = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        times.apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == count


def test_what_is_no_tcp_socket_is_let_be() -> None:
    TcpTimes().apply(None)
    one, other = socket.socketpair()
    with one, other:
        TcpTimes().apply(one)


@pytest.mark.parametrize(
    ("times", "probes"),
    [
        (TcpTimes(), 3),
        (TcpTimes(15, 5, 31), 4),
        (TcpTimes(60, 5, 30), 1),
        (TcpTimes(1, 1, 10_000), 127),
        (TcpTimes(15, 5, 0), 0),
    ],
)
def test_as_many_probes_as_fit_into_the_user_timeout(times: TcpTimes, probes: int) -> None:
    assert times.probes == probes
