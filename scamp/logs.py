"""Log lines of services and clients: one line per record, whatever a stranger put into it.

::

    logs.configure("shop", level="info", form="json")
    log = logging.getLogger("shop")

    with logs.bind(request_id=17, action="Product.Sku.fetch"):
        log.info("%d rows", 3)          # the line tells request and action too

Programs log through the standard library's `logging`; this says only how it comes out:

- ``text``: ``2026-01-31T12:00:00.000Z INFO    shop: 3 rows [action=Product.Sku.fetch …]``
- ``json``: an object with ``time``, ``level``, ``logger``, ``message``, ``service`` and ``pid``,
  what the call gave as ``extra``, what was bound, ``exc_info`` where there is a traceback
- ``scamp``: the line that other editions of SCAMP write: date, tag, pid, severity and message,
  joined by tabs; severities are ``debug info warning error fatal``

Control characters come out escaped, so that nobody can write a line of his own. Times are UTC. What
looks like a ticket, or like the password of a URL, is replaced. Equal messages beyond a number per
interval are counted instead of written. Nothing here raises into the code that logs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

from pythonjsonlogger.json import JsonFormatter

from scamp import limits
from scamp.errors import ConfigError

if TYPE_CHECKING:
    _Base = logging.StreamHandler[TextIO]
else:
    _Base = logging.StreamHandler

Form: TypeAlias = Literal["text", "json", "scamp"]
"""The forms that a line can have."""

SEVERITIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        logging.CRITICAL: "fatal",
        logging.ERROR: "error",
        logging.WARNING: "warning",
        logging.INFO: "info",
        logging.DEBUG: "debug",
    }
)
"""Python's levels, highest first, as SCAMP calls them."""

HIDDEN: Final = "[ticket]"
"""What stands in a line where a ticket would have been."""

MASK: Final = "[secret]"
"""What stands where a password would have been."""

# A ticket as it is, in a URL (once or twice over, or read as a form's plus) or in JSON.
_COMMA: Final = r"(?:,|%(?:25)*2[Cc]|\\u002[Cc])"
_PRIVILEGES: Final = r"(?:[0-9+ ]|%(?:25)*2[Bb]|%(?:25)*20|\\u002[Bb])*"
_SIGNATURE: Final = (  # ends where another ticket begins
    rf"(?:(?!1{_COMMA}[0-9])"
    r"(?:[A-Za-z0-9_+/=-]|%(?:25)*(?:2[BbDdFf]|3[Dd]|5[Ff])|\\/|\\u00[0-9A-Fa-f]{2}))"
)
_FIELDS: Final = rf"1{_COMMA}(?:[0-9]{{1,20}}{_COMMA}){{4}}(?:{_PRIVILEGES}{_COMMA})?"
# Behind a digit it may be a row of numbers, unless what follows is too long for a word. Lines of
# nothing but a signature go on with the one before.
_TICKET: Final = re.compile(
    rf"(?:(?<![0-9]){_FIELDS}{_SIGNATURE}{{12,}}|{_FIELDS}{_SIGNATURE}{{40,}})"
    rf"(?:\r?\n{_SIGNATURE}{{40,}})*"
)

# Whatever somebody calls a bearer's token, and the password of a URL.
_BEARER: Final = re.compile(r"(?i)\b(bearer(?:[ \t+]|%20|%09){1,8})[A-Za-z0-9_.~+/%=-]{16,}")
_PASSWORD: Final = re.compile(r"(://[^\s:/@?#\"']{0,200}:)[^\s/\"']{1,400}@")

# C0 with tab and line ends, DEL, C1, Unicode's own line ends, what turns the direction of text
# around, and halves of characters, which no encoding can write.
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def redact(text: str) -> str:
    """`text` with `HIDDEN` for whatever looks like a ticket or like another bearer's token, also in
    a URL or in JSON, and `MASK` for the password of a URL."""
    text = _TICKET.sub(HIDDEN, text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    return _PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else text


def escape(text: str) -> str:
    r"""`text` on one line: control characters as ``\n``, ``\t``, ``\x1b`` or ``\u2028``."""
    return _CONTROL.sub(lambda found: _ESCAPES.get(found[0]) or _coded(found[0]), text)


_PLAIN: Final = re.compile(r"[^\s\[\]\"=]+")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _coded(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


# -- what is bound ----------------------------------------------------------------------

_bound: ContextVar[Mapping[str, object]] = ContextVar(
    "scamp_log_fields", default=MappingProxyType({})
)


def bound() -> Mapping[str, object]:
    """The fields that go with every record logged here and now."""
    return _bound.get()


def _merged(fields: Mapping[str, object]) -> Mapping[str, object]:
    merged = {**_bound.get(), **fields}
    kept = [(name, value) for name, value in merged.items() if value is not None]
    return MappingProxyType(dict(kept[-limits.MAX_LOG_FIELDS :]))


def bind_more(**fields: object) -> None:
    """Bind `fields` as well until the `bind` block ends that is open here; without one, for the
    rest of the task. For what is learned on the way and is to stand in the line of a failure."""
    _bound.set(_merged(fields))


class bind(contextlib.AbstractContextManager[None]):  # noqa: N801 - used like a function
    """Within the block, and in tasks started there, every record carries `fields` as well.

    Those of an outer block stay; a name given again hides the outer one, and None takes it away.
    At most `limits.MAX_LOG_FIELDS` are kept. A service binds ``request_id``, ``action``,
    ``client_id`` and ``user_id`` for as long as it works on a request.
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: object) -> None:
        self._fields = fields
        self._token: Token[Mapping[str, object]] | None = None

    def __enter__(self) -> None:
        self._token = _bound.set(_merged(self._fields))

    def __exit__(self, *_: object) -> None:
        # A generator that is closed from another task leaves the block in another context.
        with contextlib.suppress(ValueError):
            if self._token is not None:
                _bound.reset(self._token)


# -- equal messages ---------------------------------------------------------------------

_Key: TypeAlias = tuple[str, int, str]
_OVERFLOW: Final[_Key] = ("", 0, "")
_KEY_TEXT: Final = 256


class Flood:
    """Counts equal messages, by logger, level and the text before its arguments are put in.

    Pure: it is given `now` in seconds. Of one message `burst` pass within `interval` seconds. It
    remembers `capacity` messages at once; all beyond them share one count.
    """

    def __init__(
        self,
        burst: int = limits.LOG_BURST,
        interval: float = limits.LOG_INTERVAL,
        capacity: int = limits.MAX_LOG_MESSAGES,
    ) -> None:
        self._burst = burst
        self._interval = interval
        self._capacity = capacity
        self._windows: dict[_Key, list[float]] = {}  # beginning, passed, held; oldest first

    def __len__(self) -> int:
        return len(self._windows)

    def admit(self, key: _Key, now: float) -> bool:
        """True when one more of these messages may be written. Call `ended` before."""
        if key not in self._windows and len(self._windows) >= self._capacity:
            key = _OVERFLOW
        window = self._windows.setdefault(key, [now, 0, 0])
        passes = window[1] < self._burst
        window[1 if passes else 2] += 1
        return passes

    def ended(self, now: float) -> list[tuple[_Key, int]]:
        """Forget intervals that are over; return what was held back in them, and how often."""
        over = []
        for key, (began, _, _) in self._windows.items():
            if now - began < self._interval:
                break
            over.append(key)
        windows = [(key, int(self._windows.pop(key)[2])) for key in over]
        return [(key, held) for key, held in windows if held]


_strangers = Flood()


class Sparing(logging.LoggerAdapter[logging.Logger]):
    """A logger for what others can make us say: of equal messages LOG_BURST in LOG_INTERVAL pass,
    and then how many more there were. Also where `configure` was not called, so that a stranger
    fills nobody's disk. All of them share the room for MAX_LOG_MESSAGES different messages.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, None)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `Logger.log`, if it passes."""
        if not self.logger.isEnabledFor(level):
            return
        now = time.monotonic()
        for (name, least, text), held in _strangers.ended(now):
            about = text or "messages of many kinds"
            logging.getLogger(name or self.logger.name).log(
                least or logging.WARNING, "%d more suppressed: %s", held, about
            )
        if _strangers.admit((self.logger.name, level, str(msg)[:_KEY_TEXT]), now):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, msg, *args, **kwargs)


# -- the forms --------------------------------------------------------------------------


def _instant(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


def _cut(text: str, limit: int = limits.MAX_LOG_TEXT) -> str:
    over = len(text) - limit
    return f"{text[:limit]} … {over} more characters" if over > 0 else text


def _told(value: object) -> str:
    """A bound value as part of a line, in quotes when it could be taken for more than one."""
    text = _cut(str(value), limits.MAX_LOG_VALUE)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class LineFormatter(logging.Formatter):
    """The forms ``text`` and ``scamp``."""

    def __init__(self, form: Form, name: str) -> None:
        super().__init__()
        self._form = form
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is part of it, escaped."""
        parts = [_cut(record.getMessage())]
        if fields := bound():
            told = " ".join(f"{name}={_told(value)}" for name, value in fields.items())
            parts[0] += f" [{told}]"
        if record.exc_info:
            parts.append(_cut(self.formatException(record.exc_info)))
        if record.stack_info:
            parts.append(_cut(record.stack_info))
        said = escape(redact("\n".join(parts)))
        if self._form == "text":
            return f"{_instant(record)} {record.levelname:<7} {escape(record.name)}: {said}"
        head = (_instant(record), escape(self._name), str(record.process), severity(record.levelno))
        return "\t".join((*head, said))


class JsonLineFormatter(JsonFormatter):
    """The form ``json``; without a `name` a line has neither ``service`` nor ``pid``."""

    def __init__(self, name: str | None) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s" + ("" if name is None else " %(process)d"),
            rename_fields={"levelname": "level", "name": "logger", "process": "pid"},
            timestamp="time",
            json_ensure_ascii=False,
            static_fields={} if name is None else {"service": name},
        )

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        """What is bound joins in, and hides nothing that the record says itself."""
        super().add_fields(log_data, record, message_dict)
        for name, value in bound().items():
            plain = isinstance(value, bool | int | float)
            log_data.setdefault(name, value if plain else _cut(str(value), limits.MAX_LOG_VALUE))
        for name, value in log_data.items():
            if isinstance(value, str):
                log_data[name] = _cut(value)

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object on one line."""
        line = super().format(record)
        if len(line) > limits.MAX_LOG_LINE:
            line = super().format(_shortened(record, len(line)))
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", redact(line))


def _shortened(record: logging.LogRecord, length: int) -> logging.LogRecord:
    """The record without its extras and its traceback."""
    text = f"{record.getMessage()[:1024]} … {length} characters in all"
    return logging.LogRecord(
        record.name, record.levelno, record.pathname, record.lineno, text, (), None
    )


def severity(level: int) -> str:
    """What SCAMP calls a level of Python's; one in between goes by the one below it."""
    return next((word for least, word in SEVERITIES.items() if level >= least), "debug")


# -- where they go ----------------------------------------------------------------------


class _Lines(_Base):
    """Holds back floods, and keeps every failure of logging to itself."""

    flood: Flood | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.flood is not None:
                now = time.monotonic()
                self._tell(self.flood.ended(now))
                text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
                if not self.flood.admit((record.name, record.levelno, text[:_KEY_TEXT]), now):
                    return
            super().emit(record)
        except Exception:
            self.handleError(record)

    def _tell(self, held: list[tuple[_Key, int]]) -> None:
        for (name, level, text), count in held:
            said = f"{count} more suppressed: %s"
            about = text or "messages of many kinds"
            super().emit(
                logging.LogRecord(
                    name or __name__, level or logging.WARNING, "", 0, said, (about,), None
                )
            )

    def close(self) -> None:
        """Say what is held back, then close as the standard library does."""
        with contextlib.suppress(Exception):
            if self.flood is not None:
                self._tell(self.flood.ended(float("inf")))
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """One line instead of the record, if even that can be written. Never its arguments."""
        with contextlib.suppress(Exception):
            kind = getattr(sys.exc_info()[0], "__name__", "error")
            where = escape(f"{record.name} at {record.pathname}:{record.lineno}")
            self.stream.write(f"a record of {where} cannot be logged: {kind}\n")


class _FileLines(_Lines, WatchedFileHandler):
    """Appends to a file; begins it anew when a log rotation has moved it away."""


def configure(
    name: str | None,
    *,
    level: int | str = "info",
    form: Form = "text",
    stream: TextIO | None = None,
    file: str | Path | None = None,
    levels: Mapping[str, int | str] | None = None,
    burst: int | None = limits.LOG_BURST,
    interval: float = limits.LOG_INTERVAL,
) -> logging.Handler:
    """Send what every logger of the process says to `stream` (stderr) or `file`.

    It takes the place of what was set up before. `name` is the tag or service that lines carry;
    None leaves it out. `levels` are for single loggers, such as ``{"scamp.transport": "debug"}``.
    `file` is opened for appending and opened again after a rotation. Of equal messages `burst` are
    written within `interval` seconds and then how many more there were; None writes all.

    Writing blocks, like all of `logging`: a stream that nobody reads stops the event loop.
    Raises ConfigError for a level or form that does not exist, OSError when `file` cannot be
    opened; nothing is changed then.
    """
    if form not in ("text", "json", "scamp"):
        raise ConfigError(f"{form!r} is not a form of log lines: text, json or scamp")
    own = _level(level)
    others = {logger: _level(one) for logger, one in (levels or {}).items()}
    handler: _Lines
    if file is not None:
        handler = _FileLines(file, encoding="utf-8", errors="backslashreplace")
    else:
        handler = _Lines(stream or sys.stderr)
    if burst is not None:
        handler.flood = Flood(burst, interval)
    if form == "json":
        handler.setFormatter(JsonLineFormatter(name))
    else:
        handler.setFormatter(LineFormatter(form, name or "-"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        if isinstance(old, _Lines):
            old.close()
    root.addHandler(handler)
    root.setLevel(own)
    for logger, one in others.items():
        logging.getLogger(logger).setLevel(one)
    logging.captureWarnings(True)
    return handler


def _level(given: int | str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    known = {word: number for number, word in SEVERITIES.items()} | {"critical": logging.CRITICAL}
    found = known.get(str(given).lower())
    if found is None:
        raise ConfigError(f"{given!r} is not a log level: {', '.join(known)}")
    return found
