"""``scamp fingerprint`` and ``scamp keygen``."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result

from scamp import keys

Run = Callable[..., Result]


class Listener:
    """Takes connections in a thread, and does the TLS handshake or nothing at all."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.received = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self.socket.accept()
                if self.context is None:
                    self._held.append(plain)
                    continue
                with plain, self.context.wrap_socket(plain, server_side=True) as connection:
                    self.received += connection.recv(100)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join()
        for held in self._held:
            held.close()


@pytest.fixture
def service(made: Path) -> Iterator[Listener]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made / "shop.crt", made / "shop.key")
    listener = Listener(context)
    yield listener
    listener.close()


@pytest.fixture
def silent() -> Iterator[Listener]:
    listener = Listener(None)
    yield listener
    listener.close()


def test_one_certificate_gives_its_bare_fingerprint(run: Run, made: Path) -> None:
    result = run("fingerprint", made / "shop.crt")
    assert result.exit_code == 0
    assert result.stdout == keys.fingerprint((made / "shop.crt").read_bytes()) + "\n"


def test_several_certificates_give_a_line_each(run: Run, made: Path) -> None:
    path = made / "shop.crt"
    result = run("fingerprint", path, path)
    assert result.stdout == f"{keys.fingerprint(path.read_bytes())}  {path}\n" * 2


@pytest.mark.parametrize("prefix", ["", "beepish+tls://"])
def test_running_service_shows_its_fingerprint_and_gets_no_byte(
    run: Run, made: Path, service: Listener, prefix: str
) -> None:
    result = run("fingerprint", "--connect", prefix + service.address)
    assert result.stdout == keys.fingerprint((made / "shop.crt").read_bytes()) + "\n"
    assert service.received == b""


def test_service_that_is_not_there_is_exit_3(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    result = run("fingerprint", "--connect", address)
    assert result.exit_code == 3
    assert f"cannot connect to {address}: Connection refused" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_service_that_says_nothing_is_given_up(run: Run, silent: Listener) -> None:
    result = run("fingerprint", "--connect", silent.address, "--timeout", "0.05")
    assert result.exit_code == 3
    assert "no answer within 0.05 s" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--connect", "host"],
        ["--connect", "host:0"],
        ["--connect", "host:65536"],
        ["--connect", "a b:1"],
        ["missing.crt"],
    ],
)
def test_wrong_usage_is_exit_2(run: Run, arguments: list[str]) -> None:
    assert run("fingerprint", *arguments).exit_code == 2


def test_file_that_is_no_certificate_is_named(run: Run, made: Path) -> None:
    result = run("fingerprint", made / "shop.key")
    assert result.exit_code == 2
    assert "shop.key: not a certificate" in result.stderr


def test_keygen_writes_a_pair_and_prints_its_fingerprint(run: Run, tmp_path: Path) -> None:
    result = run("keygen", "shop", "--out", tmp_path, "--days", "5")
    assert result.exit_code == 0
    key, certificate = tmp_path / "shop.key", tmp_path / "shop.crt"
    assert result.stdout == keys.fingerprint(certificate.read_bytes()) + "\n"
    assert key.stat().st_mode & 0o777 == 0o600
    assert keys.load_public_key(certificate.read_bytes()) == (
        keys.load_private_key(key.read_bytes()).public_key()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.crt", "shop.key"]


@pytest.mark.parametrize("present", ["shop.key", "shop.crt"])
def test_keygen_leaves_existing_files_alone_unless_forced(
    run: Run, tmp_path: Path, present: str
) -> None:
    (tmp_path / present).write_text("precious")
    (tmp_path / present).chmod(0o644)
    result = run("keygen", "shop", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "precious"
    assert run("keygen", "shop", "--out", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "shop.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.crt", "shop.key"]


@pytest.mark.parametrize(
    "arguments",
    [["../shop"], [".shop"], [""], ["shop", "--bits", "1024"], ["shop", "--out", "absent"]],
)
def test_keygen_refuses_what_makes_no_name_or_key(
    run: Run, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("keygen", *arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_keygen_leaves_no_part_of_a_key_where_it_cannot_replace(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.key").mkdir()
    result = run("keygen", "shop", "--out", tmp_path, "--force")
    assert result.exit_code == 2
    assert "shop.key: Is a directory" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shop.key"]
