"""How a request ends that did not end well: the answer, and what log and metrics get to know."""

from __future__ import annotations

from aiohttp import web

from gateway import catalogue
from gateway.connection import Connection
from gateway.exchange import CLIENT_LEFT, Exchange
from gateway.problems import PROBLEM_TYPE, UNKNOWN_RETRY_AFTER, Problem


async def answer(exchange: Exchange, problem: Problem) -> None:
    """Tell the client, or cut the answer that it is getting. Raises ConnectionError."""
    if not exchange.head_sent:
        await exchange.send(problem_response(exchange, problem))
        return
    _blame(exchange, problem)
    exchange.cut()


def problem_response(exchange: Exchange, problem: Problem) -> web.Response:
    """The answer that `problem` is, noted in `exchange`; to be sent at once."""
    _blame(exchange, problem)
    exchange.close = exchange.close or problem.close
    body = problem.body(exchange.request_id)
    fields = [*problem.header_fields()]
    if exchange.serving.server_timing:
        fields += exchange.timing()
    return exchange.whole(problem.status, PROBLEM_TYPE, body, fields)


def _blame(exchange: Exchange, problem: Problem) -> None:
    exchange.source = "service" if problem.by_service else "gateway"
    exchange.cause = problem.kind.code


def client_left(exchange: Exchange) -> None:
    """Note that there was nobody left to answer, and end the connection."""
    protocol = exchange.request.protocol
    stalled = isinstance(protocol, Connection) and protocol.stalled
    if not exchange.parked:
        exchange.status = CLIENT_LEFT
    exchange.source = "gateway"
    exchange.cause = "client_stalled" if stalled else exchange.cause or "client_left"
    exchange.abort()


async def cancelled(exchange: Exchange) -> None:
    """The handler was cancelled: the client has left, or the process does not wait any longer."""
    if exchange.client_gone:
        client_left(exchange)
        return
    label = exchange.action.label if exchange.action is not None else None
    stopping = Problem(
        catalogue.STOPPING, action=label, retry_after=UNKNOWN_RETRY_AFTER, close=True
    )
    try:
        await answer(exchange, stopping)
    except ConnectionError:
        client_left(exchange)
