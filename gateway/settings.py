"""The gateway's configuration, typed. Where each value comes from is the business of `sources`.

Every setting has a description, a unit and a default; flags, environment variables, keys of the
TOML file and ``docs/configuration.md`` are all made from these fields, so none can lack another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    ByteSize,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.credentials import AuthMode, Credentials, check_origins
from gateway.loggers import check_logger
from gateway.ratelimit.buckets import MAX_ENTRIES
from gateway.ratelimit.url import check_url
from gateway.setting_types import (
    Address,
    Bind,
    LogLevel,
    LogLevels,
    Names,
    Networks,
    Paths,
    PerTime,
    Workers,
    setting,
)
from gateway.tracing.options import check_endpoint, missing, parse_headers
from gateway.translate import parse_service
from scamp import limits
from scamp.config import SEARCHED, VARIABLES
from scamp.errors import ConfigError

ENV_PREFIX: Final = "SCAMP_GATEWAY_"

USUAL_TICKET_KEYS: Final = (
    Path("/etc/scamp/auth/ticket_verify_public_key.pem"),
    Path("/etc/GT/auth/ticket_verify_public_key.pem"),
)
"""Where meshes keep the key. Never used unasked, only named when no key was given."""

_SECTOR: Final = re.compile(r"[A-Za-z0-9_.-]+")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")


NO_CACHE: Final = (
    "no discovery cache: give --discovery-cache FILE, or --scamp-conf FILE (or $SCAMP) for a "
    "scamp.conf that says where it is"
)


class Settings(BaseSettings):
    """Everything that can be set. Immutable; made by `sources.load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,  # a wait without an end is none that a drain or a deadline can have
    )

    # -- listeners ----------------------------------------------------------------------

    bind: Bind = setting(
        Address(None, 8080), "Public listener. Without a host: every interface.", unit="HOST:PORT"
    )
    admin_bind: Bind = setting(
        Address("127.0.0.1", 9090),
        "Admin listener: metrics, health and state. It has no authentication.",
        unit="HOST:PORT",
    )
    admin_hosts: Names = setting(
        (),
        "Names by which the admin listener may be called, besides localhost and addresses: pages "
        "of all others could read it (DNS rebinding). Without any, every name will do, but on a "
        "loopback address none: set it where a container's port is published on one.",
        unit="name",
    )
    tls_certificate: Path | None = setting(
        None, "PEM certificate chain for the public listener.", unit="file", unset="plain HTTP"
    )
    tls_key: Path | None = setting(
        None, "PEM private key of that certificate.", unit="file", unset="plain HTTP"
    )
    tls_key_password: SecretStr | None = setting(
        None, "Passphrase of the private key.", unset="the key is not encrypted", flag=""
    )
    tls_key_password_file: Path | None = setting(
        None, "File that holds the passphrase; a newline at its end does not count.", unit="file"
    )
    tls_client_ca: Path | None = setting(
        None,
        "PEM certificates of which one must have signed each client's certificate.",
        unit="file",
        unset="clients need no certificate",
    )
    trusted_proxies: Networks = setting(
        (),
        "Addresses or networks of proxies whose X-Forwarded-For and the like are believed.",
        unit="IP/BITS",
        flag="trusted-proxy",
    )

    # -- mesh ---------------------------------------------------------------------------

    scamp_conf: Path | None = setting(
        None,
        "The mesh's scamp.conf. What is not set elsewhere is taken from it.",
        unit="file",
        unset=f"the one that ${' or $'.join(VARIABLES)} names, else the first there is of "
        f"{', '.join(SEARCHED)}; none is fine too",
    )
    discovery_source: Literal["cache", "multicast"] = setting(
        "cache",
        "Where the index comes from: cache: the discovery cache file; multicast: the services' "
        "own announcements on the network.",
    )
    discovery_cache: Path | None = setting(
        None,
        "Discovery cache file, followed while running.",
        unit="file",
        unset="discovery.cache_path of scamp.conf",
    )
    discovery_max_age: float = setting(
        limits.CACHE_MAX_AGE,
        "Age of the discovery cache file from which it is stale (discovery.cache_max_age); with "
        "multicast, how long nothing may be heard.",
        unit="seconds",
        gt=0,
    )
    discovery_poll_interval: float = setting(
        1.0, "Pause between looks at the discovery files.", unit="seconds", ge=0.05, le=60
    )
    multicast_address: str = setting(
        "239.63.248.106",
        "Multicast group of announcements (discovery.multicast_address).",
        unit="IPv4",
    )
    multicast_port: int = setting(
        5555, "UDP port of announcements (discovery.port).", unit="port", ge=1, le=65535
    )
    multicast_interfaces: Names = setting(
        (),
        "Interfaces on which announcements are heard, by address or as if:NAME; without any, "
        "that of the machine's first 10.x or 192.168.x address.",
        unit="IPv4|if:NAME",
        flag="multicast-interface",
    )
    authorized_services: Path | None = setting(
        None,
        "The authorized_services file, followed while running.",
        unit="file",
        unset="bus.authorized_services of scamp.conf",
    )
    sectors: Names = setting(
        ("main",),
        "Sectors whose actions are reachable over HTTP.",
        unit="name",
        flag="sector",
        min_length=1,
    )
    legacy_rsa: bool = setting(
        False, "Allow TLS without forward secrecy, which some old Go services need."
    )
    connect_timeout: float = setting(
        limits.CONNECT_TIMEOUT, "Longest time for TCP and TLS to a service.", unit="seconds", gt=0
    )
    upstream_idle_timeout: float = setting(
        limits.CLIENT_IDLE,
        "A connection to a service on which nothing is under way closes after so long, with 0 "
        "never (beepish.client_timeout). Services close theirs after 120 s.",
        unit="seconds",
        ge=0,
    )
    max_connections_per_instance: int = setting(
        limits.MAX_CONNECTIONS,
        "Connections to one instance of a service.",
        unit="count",
        ge=1,
        shared=True,
    )
    max_requests_per_connection: int = setting(
        128,
        "Requests in flight on one connection to a service; 1 where services answer them one after "
        "the other, as those in Rust do.",
        unit="count",
        ge=1,
    )
    max_waiters_per_instance: int = setting(
        limits.MAX_WAITERS, "Requests that may wait for a connection to one instance.",
        unit="count", ge=0, shared=True,
    )  # fmt: skip
    retries: int = setting(
        limits.MAX_RETRIES, "Retries of one request, where that is safe.", unit="count", ge=0, le=10
    )
    retry_budget: float = setting(
        0.2, "Retries as a share of the requests of the last 10 s.", unit="ratio", ge=0, le=1
    )

    # -- overload and balancing: what one instance, one action may take ------------------

    max_in_flight_per_action: int | None = setting(
        None,
        "Requests of one action under way at once; beyond it they get 503, and other actions are "
        "served on. 0 is no limit.",
        unit="count", ge=0, unset="half of max_in_flight", shared=True,
    )  # fmt: skip
    max_in_flight_per_instance: int | None = setting(
        None,
        "Requests to one instance of a service under way at once, with those that wait for a "
        "connection to it. 0 is no limit.",
        unit="count", ge=0, unset="half of max_in_flight", shared=True,
    )  # fmt: skip
    slow_start: float = setting(
        10.0,
        "How long the share of an instance grows, from a tenth of its weight, when it comes or "
        "comes back beside others. 0 is off.",
        unit="seconds", ge=0,
    )  # fmt: skip
    queue_target: float = setting(
        0.5,
        "Longest wait for a connection to one instance, once requests have waited there without a "
        "break for queue_interval; who waits longer gets 503. 0 is off.",
        unit="seconds", ge=0,
    )  # fmt: skip
    queue_interval: float = setting(
        5.0, "How long a queue may stand before queue_target counts.", unit="seconds", gt=0
    )
    max_loop_lag: float = setting(
        0.5,
        "A share of new requests gets 503 while the event loop is later than this again and again. "
        "0 is off.",
        unit="seconds", ge=0,
    )  # fmt: skip

    # -- dead peers: PING where services are known to answer it --------------------------

    tcp_keepalive_idle: int = setting(
        int(limits.KEEPALIVE_IDLE),
        "Silence on a connection to a service after which the kernel asks whether the other end is "
        "still there; 0 for never.",
        unit="seconds", ge=0, le=32_767,
    )  # fmt: skip
    tcp_keepalive_interval: int = setting(
        int(limits.KEEPALIVE_INTERVAL), "From one such question to the next.",
        unit="seconds", ge=1, le=32_767,
    )  # fmt: skip
    tcp_user_timeout: float = setting(
        limits.USER_TIMEOUT,
        "A connection to a service is lost when the other end acknowledges nothing for so long; 0 "
        "leaves it to the kernel, which takes some 15 minutes.",
        unit="seconds", ge=0, le=86_400,
    )  # fmt: skip
    ping_services: Names = setting(
        (),
        "Services that are sent PINGs, because they are known to answer them; others close the "
        "connection on one.",
        unit="[SECTOR:]SERVICE",
        flag="ping-service",
    )
    ping_interval: float = setting(
        limits.PING_INTERVAL,
        "Time between these PINGs. A service from which nothing comes from one to the next has "
        "lost the connection.",
        unit="seconds", ge=0.1, le=86_400,
    )  # fmt: skip
    reply_hold: float = setting(
        limits.REPLY_HOLD,
        "How long the beginning of a reply to a read is kept back (64 KiB at most): one that is "
        "cut meanwhile is asked for again. 0: everything goes out as it comes.",
        unit="seconds", ge=0, le=10,
    )  # fmt: skip

    # -- tickets ------------------------------------------------------------------------

    auth_mode: AuthMode | None = setting(
        None,
        "enforce: signature, time and privileges; verify: signature and time; "
        "forward: tickets are passed on unread.",
        unset="enforce when a ticket key is given, else the gateway refuses to start",
    )
    ticket_keys: Paths = setting(
        (),
        "PEM public keys or certificates that sign tickets, oldest first; followed.",
        unit="file",
        flag="ticket-key",
    )
    ticket_leeway: float = setting(
        limits.TICKET_LEEWAY, "Clock skew allowed at a ticket's start.", unit="seconds", ge=0
    )
    authz_table: Path | None = setting(
        None,
        "Privilege table as a JSON file, followed: what Auth.getAuthzTable returns.",
        unit="file",
        unset="the Auth service is asked (Auth.getAuthzTable)",
    )
    authz_ttl: float = setting(
        limits.AUTHZ_TTL, "Age at which the privilege table is fetched again.",
        unit="seconds", gt=0,
    )  # fmt: skip
    authz_grace: float = setting(
        limits.AUTHZ_GRACE, "How long an old table serves while no new one can be had.",
        unit="seconds", ge=0,
    )  # fmt: skip

    # -- requests -----------------------------------------------------------------------

    request_timeout: float = setting(
        limits.RPC_TIMEOUT,
        "From request to first byte of the reply, unless the action announces its own "
        "(rpc.timeout).",
        unit="seconds",
        gt=0,
    )
    body_idle_timeout: float = setting(
        limits.BODY_IDLE, "Longest pause in a body, in either direction.", unit="seconds", gt=0
    )
    max_body: ByteSize | None = setting(
        None, "Largest request body (10MiB and the like are understood).",
        unit="bytes", unset="no limit",
    )  # fmt: skip
    routes: Path | None = setting(
        None,
        "Routes file: URLs of one's own (TOML), followed while running.",
        unit="file",
        unset="only the URLs below /api/",
    )
    max_mapped_body: ByteSize = setting(
        limits.MIB,
        "Largest request body that is put together with parts of the URL, which holds it in "
        "memory; up to 1 GiB.",
        unit="bytes", ge=0, le=1 << 30,
    )  # fmt: skip
    media_types: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,100}$")]] = setting(
        {},
        "Envelope by media type, besides application/json and application/vnd.scamp.NAME; the "
        "action has to announce it.",
        flag="",
    )
    max_in_flight: int = setting(
        5000, "Requests under way at once; beyond it they get 503.", unit="count", ge=1, shared=True
    )
    error_status: dict[str, Annotated[int, Field(ge=400, le=599)]] = setting(
        {},
        "HTTP status by error_code of a service, over the built-in ones; a * may end a code.",
        flag="",
    )
    server_timing: bool = setting(
        False, "Add a Server-Timing header to replies and errors: gateway, queue, upstream."
    )

    # -- clients: connections, and how slow they may be ----------------------------------

    max_connections: int = setting(
        10_000,
        "Connections of clients at once, TLS handshakes under way included. Beyond it the one that "
        "has been idle for longest gives way, else the new one gets 503, with TLS none.",
        unit="count", ge=1, shared=True,
    )  # fmt: skip
    max_connections_per_address: int = setting(
        1000,
        "Of these, from one address (IPv6: one /64), unless it is one of trusted_proxies; 0 is no "
        "limit.",
        unit="count", ge=0,
    )  # fmt: skip
    tls_handshake_timeout: float = setting(
        limits.HANDSHAKE_TIMEOUT, "Longest time for TLS with a client.", unit="seconds", gt=0
    )
    header_timeout: float = setting(
        20.0,
        "Longest time for the head of a request, from its first byte; for the first from the "
        "beginning of the connection.",
        unit="seconds", gt=0,
    )  # fmt: skip
    keepalive_timeout: float = setting(
        75.0, "How long a connection may stay open without a request.", unit="seconds", gt=0
    )
    min_body_rate: float = setting(
        240.0,
        "Slowest pace of a body, in either direction, in the time that it is the client's turn; "
        "pauses may take body_idle_timeout in all before it counts. 0 is any pace.",
        unit="bytes/s", ge=0,
    )  # fmt: skip

    # -- browsers -----------------------------------------------------------------------

    ticket_cookie: str | None = setting(
        None,
        "Cookie that may carry the ticket; with a method that changes something only from pages of "
        "the gateway's own origin and of cors_origins.",
        unit="name",
        unset="tickets come in headers only",
    )
    cors_origins: Names = setting(
        (),
        "Origins whose pages may read answers, each SCHEME://HOST[:PORT]; * is every origin, and "
        "gives none of them the cookie.",
        unit="origin",
        flag="cors-origin",
    )
    cors_max_age: int = setting(
        600, "How long a browser may remember what it was permitted.",
        unit="seconds", ge=0, le=86400,
    )  # fmt: skip
    decompress_requests: bool = setting(
        True, "Unpack request bodies that come with Content-Encoding gzip or deflate."
    )
    compress_replies: bool = setting(
        False,
        "Compress replies (gzip) for those who accept it. Costs CPU, and lets who can measure "
        "lengths guess at secrets in replies (BREACH).",
    )

    # -- rate limits --------------------------------------------------------------------

    rate_limit_user: PerTime | None = setting(
        None,
        "Requests of one user, known by a verified ticket: 600/min, 10/s, 100/15min, "
        "10/s;burst=50.",
        unit="COUNT/UNIT",
        unset="no limit",
    )
    rate_limit_client: PerTime | None = setting(
        None,
        "Requests of one client (the ticket's client id), whoever its users are.",
        unit="COUNT/UNIT",
        unset="no limit",
    )
    rate_limit_address: PerTime | None = setting(
        None,
        "Requests from one address without a ticket that was verified, bad tickets included; "
        "IPv6 counts by /64.",
        unit="COUNT/UNIT",
        unset="no limit",
    )
    rate_limit_max_callers: int = setting(
        MAX_ENTRIES,
        "Callers that are kept in mind for each limit, at some 300 bytes each.",
        unit="count",
        ge=1024,
    )
    rate_limit_redis: SecretStr | None = setting(
        None,
        "Redis that holds the counts, for several gateways: redis://HOST:PORT/DB, rediss://, "
        "unix://. Needs the extra `redis`.",
        unit="URL",
        unset="each gateway counts by itself",
        flag="",
    )
    rate_limit_redis_file: Path | None = setting(
        None,
        "File that holds the URL of a Redis that counts for several gateways (rate_limit_redis); "
        "for one with a password.",
        unit="file",
    )
    rate_limit_redis_timeout: float = setting(
        0.05, "How long a request waits for Redis.", unit="seconds", gt=0, le=10
    )
    rate_limit_on_failure: Literal["local", "open", "closed"] = setting(
        "local",
        "While Redis fails: local: each gateway counts by itself; open: nothing is limited; "
        "closed: requests that fall under a limit get 503.",
    )

    # -- events -------------------------------------------------------------------------

    events_open: Names = setting(
        (),
        "Services whose events anybody may follow, without a ticket. In mode forward there are no "
        "others.",
        unit="[SECTOR:]SERVICE",
    )
    events_heartbeat: float = setting(
        15.0,
        "An event stream on which nothing was sent for so long gets a comment.",
        unit="seconds",
        gt=0,
    )
    max_event_streams: int = setting(
        1000, "Event streams open at once; beyond it they get 503.", unit="count", ge=0, shared=True
    )
    max_event_streams_per_subscription: int = setting(
        1000, "Of these, with the same service and codes.", unit="count", ge=1, shared=True
    )
    max_event_streams_per_caller: int = setting(
        100,
        "Of these, of one user, or of one address without a ticket (IPv6: one /64).",
        unit="count",
        ge=1,
    )
    max_event_subscriptions: int = setting(
        100,
        "Subscriptions to services; event streams with the same service and codes share one. One "
        "caller gets a quarter of them.",
        unit="count",
        ge=1,
        shared=True,
    )

    # -- descriptions -------------------------------------------------------------------

    openapi: Literal["callers", "everyone", "off"] = setting(
        "callers",
        "What /openapi.json shows: callers: what the ticket permits, without one what needs none; "
        "everyone: all exposed actions, to everyone; off: there is none.",
    )
    openapi_title: str = setting(
        "SCAMP services", "Title of that document.", min_length=1, max_length=200
    )
    openapi_max_actions: int = setting(
        2000, "Actions in that document, the first by name; the rest is counted in it.",
        unit="count", ge=1, le=100_000,
    )  # fmt: skip
    docs: bool = setting(True, "Serve the explorer, a page to try actions on, at /docs.")

    # -- traces -------------------------------------------------------------------------

    tracing: bool = setting(
        False,
        "Make spans of requests and send them to a collector (OTLP over HTTP). Needs the extra "
        "`otel`. Off, the traces of callers are passed on all the same.",
    )
    tracing_endpoint: str | None = setting(
        None,
        "The collector, such as http://collector:4318; /v1/traces is added.",
        unit="URL",
        unset="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT of the "
        "environment, else http://localhost:4318",
    )
    tracing_headers: SecretStr | None = setting(
        None,
        "Header fields for the collector: NAME=VALUE, separated by commas, values percent-encoded.",
        unset="OTEL_EXPORTER_OTLP_HEADERS of the environment, if any",
        flag="",
    )
    tracing_headers_file: Path | None = setting(
        None, "File that holds them; each may have a line of its own.", unit="file"
    )
    tracing_sample: float | None = setting(
        None,
        "Share of the traces that begin here of which spans are made. Those that a caller began "
        "are sampled as it says.",
        unit="ratio", ge=0, le=1,
        unset="OTEL_TRACES_SAMPLER of the environment, else 1",
    )  # fmt: skip
    tracing_parent: Literal["continue", "restart"] = setting(
        "continue",
        "What becomes of a caller's trace: continue: it goes on, sampled as the caller says; "
        "restart: another begins here, with a link to it. For a gateway that strangers reach.",
    )
    tracing_service_name: str | None = setting(
        None,
        "What the gateway is called in traces.",
        unit="name",
        unset="OTEL_SERVICE_NAME of the environment, else scamp-gateway",
        min_length=1,
        max_length=200,
    )

    # -- process ------------------------------------------------------------------------

    workers: Workers = setting(
        1,
        "Worker processes; auto or 0: one for each core. More than one need the extra `workers`.",
        unit="count|auto",
    )
    worker_timeout: int = setting(
        30,
        "With several workers: one whose event loop stands still for so long is killed and "
        "replaced.",
        unit="seconds", ge=2, le=3600,
    )  # fmt: skip

    # -- taking over ------------------------------------------------------------------

    takeover_socket: Path | None = setting(
        None,
        "Unix socket at which a new process with the same setting takes the listening sockets "
        "over from the one that runs, which then drains; each may have any number of workers. "
        "In a directory where nobody else can write.",
        unit="path",
        unset="addresses are free only once the old process has left",
    )

    # -- logs ---------------------------------------------------------------------------

    log_level: LogLevel = setting(
        "info", "Least severe operational log line written.", unit="[LOGGER=]LEVEL"
    )
    log_levels: LogLevels = setting(
        {},
        "The same for single loggers and those below them: gateway.auth=debug, scamp.client=error. "
        "The page on logging has their names.",
        unit="LOGGER=LEVEL",
        flag="log-level",
    )
    log_format: Literal["json", "text"] = setting("json", "Form of the log lines on stderr.")
    access_log: str = setting(
        "-", "File for one line per request; - is stdout, off is none.", unit="PATH|-|off",
        min_length=1,
    )  # fmt: skip
    access_log_format: Literal["json", "text"] = setting(
        "json", "Form of these lines; text: name=value, as logfmt has it."
    )
    access_log_sample: float = setting(
        1.0,
        "Share of requests that ended well of which a line is written, drawn at random, with the "
        "number that each of them stands for in weight. All others have theirs.",
        unit="ratio", ge=0, le=1,
    )  # fmt: skip
    access_log_slow: float = setting(
        1.0, "Requests that took so long have their line all the same.", unit="seconds", ge=0
    )

    # -- stopping -----------------------------------------------------------------------

    drain_delay: float = setting(
        5.0, "How long connections are still accepted after SIGTERM.", unit="seconds", ge=0
    )
    drain_limit: float = setting(
        25.0, "How long requests under way may then take to finish.", unit="seconds", ge=0
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `sources.load` asks each source itself, to be able to say where a bad value stands.
        return (init_settings,)

    @field_validator("error_status")
    @classmethod
    def _star_at_the_end(cls, value: dict[str, int]) -> dict[str, int]:
        for code in value:
            if "*" in code[:-1]:
                raise ValueError(f"{code!r}: * may stand at the end only")
        return value

    @field_validator("log_levels")
    @classmethod
    def _loggers(cls, value: dict[str, LogLevel]) -> dict[str, LogLevel]:
        for name in value:
            check_logger(name)
        return value

    @field_validator("ticket_cookie")
    @classmethod
    def _name_of_a_cookie(cls, value: str | None) -> str | None:
        Credentials(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_in_full(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_origins(value)

    @field_validator("sectors")
    @classmethod
    def _sectors(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if _SECTOR.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no sector: letters, digits, _ . and - only")
        return value

    @field_validator("events_open", "ping_services")
    @classmethod
    def _services(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if parse_service(name) is None:
                raise ValueError(f"{name!r} is not [SECTOR:]SERVICE")
        return value

    @field_validator("media_types")
    @classmethod
    def _media_types_are_such(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _MEDIA_TYPE.fullmatch(name.lower()):
                raise ValueError(f"{name!r} is not a media type such as text/csv")
            if name.lower() == "application/json" or "/vnd.scamp." in name.lower():
                raise ValueError(f"{name!r} has its envelope already")
        return {name.lower(): envelope for name, envelope in value.items()}

    @field_validator("rate_limit_redis")
    @classmethod
    def _url_of_a_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_url(value.get_secret_value())
        return value

    @field_validator("tracing_endpoint")
    @classmethod
    def _url_of_a_collector(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint(value)

    @field_validator("tracing_headers")
    @classmethod
    def _headers_for_a_collector(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_headers(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; one of them is not set")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @property
    def effective_auth_mode(self) -> AuthMode:
        """The mode in force: with a key and no other word, `enforce`."""
        return self.auth_mode or "enforce"

    @property
    def effective_max_per_action(self) -> int:
        """`max_in_flight_per_action`, or what stands for it; 0 for no limit."""
        given = self.max_in_flight_per_action
        return max(1, self.max_in_flight // 2) if given is None else given

    @property
    def effective_max_per_instance(self) -> int:
        """`max_in_flight_per_instance`, or what stands for it; 0 for no limit."""
        given = self.max_in_flight_per_instance
        return max(1, self.max_in_flight // 2) if given is None else given

    @property
    def limits_rates(self) -> bool:
        """Whether callers are limited everywhere; single routes may limit them besides."""
        limits = (self.rate_limit_user, self.rate_limit_client, self.rate_limit_address)
        return limits != (None, None, None)

    def problems(self) -> list[str]:
        """What is missing for a gateway to run, one sentence each; empty when nothing is."""
        return list(self._problems())

    def require_complete(self) -> None:
        """Raise `ConfigError` with all `problems`, one per line, when there are any."""
        if problems := self.problems():
            raise ConfigError("\n".join(problems))

    def _problems(self) -> Iterable[str]:
        if self.discovery_cache is None and self.discovery_source == "cache":
            yield f"{NO_CACHE}, or --discovery-source multicast to hear the services themselves"
        if not self.ticket_keys and self.auth_mode != "forward":
            found = next((path for path in USUAL_TICKET_KEYS if os.access(path, os.R_OK)), "FILE")
            yield (
                f"no ticket key: give --ticket-key {found}, or say --auth-mode forward to pass "
                "tickets on unread"
            )
        if self.tracing and (text := missing()) is not None:
            yield text
