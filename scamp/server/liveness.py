"""The sign of life that operators' checks look for: an empty file while a service runs.

In ``service.running_service_file_dir_path``, named as Go's services name theirs: the identity,
with ``_`` for every ``/`` of its base64. A check finds the instances of ``shop`` as ``shop:*``.
Whoever is killed leaves the file behind; the others touch theirs at every announcement.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from scamp.errors import ConfigError

log: logging.Logger = logging.getLogger("scamp.server")

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class LivenessFile:
    """One service's file. Blocks; a file takes no time."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.path: Path = folder / identity.replace("/", "_")

    def create(self) -> None:
        """Raises ConfigError when there is no such directory or the file cannot be made."""
        where = f"service.running_service_file_dir_path {self.folder}"
        if not self.folder.is_dir():
            raise ConfigError(f"{where} is not a directory: make it, or take the key out")
        try:
            os.close(os.open(self.path, _FLAGS, 0o644))
        except OSError as exc:
            raise ConfigError(f"{where}: cannot make {self.path.name}: {exc.strerror}") from exc

    def touch(self) -> None:
        """Show that the service is still there; makes the file anew if it was tidied away."""
        try:
            os.utime(self.path, follow_symlinks=False)
        except FileNotFoundError:
            os.close(os.open(self.path, _FLAGS, 0o644))

    def remove(self) -> None:
        """Raises nothing: a service that leaves has nobody to tell."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as exc:
            log.error("cannot remove the sign of life: %s", exc)
