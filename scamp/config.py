"""The configuration file that every SCAMP implementation reads: ``scamp.conf`` or ``soa.conf``.

``key = value`` by line, ``#`` starts a comment anywhere, and the first of duplicate keys wins.
Files in the field hold all sorts of keys, so unknown ones are no error; what cannot be read as a
line is left out and told in `ScampConf.warnings`.
"""

from __future__ import annotations

import ipaddress
import math
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from scamp import limits
from scamp.errors import ConfigError

VARIABLES: Final = ("SCAMP", "SCAMP_CONFIG")
"""Environment variables that may name the file, the first that is set before the others."""

SEARCHED: Final = (
    "/etc/scamp/scamp.conf",
    "/etc/SCAMP/soa.conf",
    "/etc/GTSOA/scamp.conf",
)
"""Where the file is looked for when no variable names it."""

MAX_CONFIG_FILE: Final = limits.MIB
"""A configuration file larger than this is not read."""

_DEFAULT_CACHE: Final = "/tmp/scamp_discovery_cache"  # noqa: S108 - the path all implementations share
_OWN_NETWORKS: Final = (
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("192.168.0.0/16"),
)
_SIOCGIFADDR: Final = 0x8915


def interface_addresses() -> dict[str, list[str]]:
    """The IPv4 address of each interface of this machine that has one, by name (Linux)."""
    import fcntl  # not on every platform, and needed only here

    found: dict[str, list[str]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # it has no IPv4 address
            found[name] = [socket.inet_ntoa(answer[20:24])]
    return found


class ScampConf:
    """A configuration that was read; `path` is its file, None for one without a file.

    The properties give the well-known keys with their defaults; each raises `ConfigError`, with
    file and line, when what stands in the file makes no sense.
    """

    def __init__(self, values: Mapping[str, tuple[str, int]], path: Path | None = None) -> None:
        """`values` holds the text and the line of each key, lines counted from 1."""
        self._values = dict(values)
        self.path = path
        self.warnings: list[str] = []

    @classmethod
    def parse(cls, text: str, path: str | Path | None = None) -> ScampConf:
        """Read the text of a file; `path` is only for messages. Raises nothing."""
        conf = cls({}, None if path is None else Path(path))
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not key or not value:
                conf.warnings.append(f"{conf._where(number)}: not of the form 'key = value'")
            elif key in conf._values:
                first = conf._values[key][1]
                conf.warnings.append(
                    f"{conf._where(number)}: {key} is set already, line {first} counts"
                )
            else:
                conf._values[key] = (value, number)
        return conf

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Path | None:
        """The file to use: the one a variable names, there or not, or the first that is there."""
        environ = os.environ if environ is None else environ
        named = cls._named_by(environ)
        if named is not None:
            return Path(environ[named])
        return next((Path(path) for path in SEARCHED if Path(path).is_file()), None)

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] | None = None
    ) -> ScampConf:
        """Read `path`, or the file that `find` finds.

        Raises `ConfigError` when there is none, it cannot be read, or it exceeds 1 MiB.
        """
        found = cls.find(environ) if path is None else Path(path)
        if found is None:
            raise ConfigError(
                f"no SCAMP configuration: set {' or '.join(VARIABLES)}, "
                f"or make one of {', '.join(SEARCHED)}"
            )
        try:
            with found.open("rb") as file:
                content = file.read(MAX_CONFIG_FILE + 1)
        except OSError as exc:
            # Who did not name the file will not know where the name comes from.
            named = cls._named_by(os.environ if environ is None else environ)
            by = f", which ${named} names" if path is None and named is not None else ""
            raise ConfigError(f"{found}: {exc.strerror or exc}{by}") from exc
        if len(content) > MAX_CONFIG_FILE:
            raise ConfigError(f"{found}: larger than {MAX_CONFIG_FILE} bytes")
        return cls.parse(content.decode("utf-8-sig", "replace"), found)

    @staticmethod
    def _named_by(environ: Mapping[str, str]) -> str | None:
        return next((variable for variable in VARIABLES if environ.get(variable)), None)

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value as it stands in the file, without surrounding space."""
        found = self._values.get(key)
        return default if found is None else found[0]

    def get_int(self, key: str, default: int, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        """A whole number. Raises `ConfigError`, naming file and line, if it is none in range."""
        text = self.get(key)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 18:
            number = int(text)
            if minimum <= number <= maximum:
                return number
        raise self.error(key, f"is not a whole number from {minimum} to {maximum}")

    def get_float(self, key: str, default: float, *, minimum: float = 0.0) -> float:
        """A number, not below `minimum`. Raises `ConfigError`, naming file and line."""
        text = self.get(key)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= minimum):
            raise self.error(key, f"is not a number from {minimum:g} upwards")
        return number

    def error(self, key: str, problem: str) -> ConfigError:
        """A `ConfigError` that names `key`, its value, and where it stands."""
        value, line = self._values.get(key, ("", 0))
        return ConfigError(f"{self._where(line)}: {key} = {value[:200]!r} {problem}")

    # -- discovery ----------------------------------------------------------------------

    @property
    def discovery_cache_path(self) -> Path:
        """Where the discovery cache file is."""
        return Path(self.get("discovery.cache_path") or _DEFAULT_CACHE)

    @property
    def discovery_cache_max_age(self) -> float:
        """Seconds."""
        return self.get_float("discovery.cache_max_age", limits.CACHE_MAX_AGE)

    @property
    def multicast_group(self) -> str:
        """The address to which announcements are sent."""
        return self.get("discovery.multicast_address") or "239.63.248.106"

    @property
    def multicast_port(self) -> int:
        """The UDP port to which announcements are sent."""
        return self.get_int("discovery.port", 5555, minimum=1, maximum=65535)

    @property
    def authorized_services(self) -> Path | None:
        """None when the key is not set; there is no file that everybody agrees on."""
        return self._path("bus.authorized_services")

    @property
    def running_service_dir(self) -> Path | None:
        """Where services keep a file as a sign of life; None: nowhere."""
        return self._path("service.running_service_file_dir_path")

    # -- connections --------------------------------------------------------------------

    @property
    def first_port(self) -> int:
        """Services listen on a random port from this one on …"""
        return self.get_int("beepish.first_port", 30100, minimum=1, maximum=65535)

    @property
    def last_port(self) -> int:
        """… up to this one."""
        last = self.get_int("beepish.last_port", 30399, minimum=1, maximum=65535)
        if last < self.first_port:
            raise self.error("beepish.last_port", f"is below beepish.first_port {self.first_port}")
        return last

    @property
    def bind_tries(self) -> int:
        """How many of these ports a service tries."""
        return self.get_int("beepish.bind_tries", 20, minimum=1)

    @property
    def client_timeout(self) -> float:
        """Seconds after which a client closes an idle connection."""
        return self.get_float("beepish.client_timeout", limits.CLIENT_IDLE)

    @property
    def server_timeout(self) -> float:
        """Seconds after which a service closes an idle connection; 0: never."""
        return self.get_float("beepish.server_timeout", limits.SERVER_IDLE)

    @property
    def rpc_timeout(self) -> float:
        """Seconds from a request to its reply; not 0, with which nothing could be answered."""
        return self.get_float("rpc.timeout", limits.RPC_TIMEOUT, minimum=0.001)

    @property
    def max_inflight(self) -> int:
        """Unacknowledged bytes per message at which a sender pauses."""
        return self.get_int("flow.max_inflight", limits.MAX_INFLIGHT, minimum=1)

    # -- addresses and keys -------------------------------------------------------------

    def service_addresses(
        self, interfaces: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[str, ...]:
        """Addresses on which services listen: ``service.address``, else ``bus.address``.

        Entries are IP addresses or ``if:NAME``, separated by commas. Without either key: the
        first 10.x address of this machine, then the first 192.168.x. `interfaces` (addresses by
        name) is read from the machine when it is not given. Raises `ConfigError` when an entry
        cannot be resolved or no address is found.
        """
        return self._addresses("service.address", interfaces)

    def discovery_addresses(
        self, interfaces: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[str, ...]:
        """Addresses for multicast: ``discovery.address``, else as `service_addresses`."""
        return self._addresses("discovery.address", interfaces)

    def key_path(self, tag: str) -> Path | None:
        """The private key of the service `tag`: ``TAG.key``, or Go's ``TAG.soa_key``."""
        return self._path(f"{tag}.key") or self._path(f"{tag}.soa_key")

    def cert_path(self, tag: str) -> Path | None:
        """The certificate of the service `tag`: ``TAG.cert``, or Go's ``TAG.soa_cert``."""
        return self._path(f"{tag}.cert") or self._path(f"{tag}.soa_cert")

    def _path(self, key: str) -> Path | None:
        value = self.get(key)
        return None if value is None else Path(value)

    def _where(self, line: int) -> str:
        name = "configuration" if self.path is None else str(self.path)
        return f"{name}:{line}" if line else name

    def _addresses(
        self, own_key: str, interfaces: Mapping[str, Sequence[str]] | None
    ) -> tuple[str, ...]:
        key = own_key if own_key in self._values else "bus.address"
        listed = self.get(key)
        if listed is None:
            here = interface_addresses() if interfaces is None else interfaces
            return (self._first_own(own_key, here),)
        found: list[str] = []
        for entry in filter(None, map(str.strip, listed.split(","))):
            if entry.startswith("if:"):
                here = interface_addresses() if interfaces is None else interfaces
                addresses = here.get(entry[3:])
                if not addresses:
                    known = ", ".join(here) or "none"
                    problem = f"names {entry[3:]}; interfaces with an IPv4 address here: {known}"
                    raise self.error(key, problem)
                found.append(addresses[0])
            else:
                found.append(self._address(key, entry))
        if not found:
            raise self.error(key, "lists no address")
        return tuple(dict.fromkeys(found))

    def _address(self, key: str, entry: str) -> str:
        try:
            return str(ipaddress.ip_address(entry))
        except ValueError:
            raise self.error(key, f"has {entry!r}, which is no IP address and no if:NAME") from None

    def _first_own(self, key: str, interfaces: Mapping[str, Sequence[str]]) -> str:
        addresses = [address for listed in interfaces.values() for address in listed]
        for network in _OWN_NETWORKS:
            for address in addresses:
                if ipaddress.ip_address(address) in network:
                    return address
        raise ConfigError(
            f"{self._where(0)}: no 10.x or 192.168.x address here; set {key} or bus.address"
        )
