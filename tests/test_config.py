"""The configuration file: lines, search order, numbers, addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp import config
from scamp.config import ScampConf, interface_addresses
from scamp.errors import ConfigError

HERE = {"lo": ["127.0.0.1"], "eth0": ["192.168.1.5"], "eth1": ["10.2.3.4"], "tun": ["172.16.0.9"]}

SAMPLE = """\
# dispatcher
bus.address = if:eth0   # where we are
bus.authorized_services=/etc/authorized
shop.key = /etc/shop.key
shop.cert = /etc/shop.crt
old.soa_key = /etc/old.key
old.soa_cert = /etc/old.crt
rpc.timeout = 12.5
beepish.bind_tries = 3
"""


def test_values_are_read_with_comments_and_space_removed() -> None:
    conf = ScampConf.parse(SAMPLE)
    assert conf.get("bus.address") == "if:eth0"
    assert conf.get("bus.authorized_services") == "/etc/authorized"
    assert conf.get("absent") is None
    assert conf.get("absent", "else") == "else"
    assert conf.warnings == []


def test_first_of_duplicate_keys_wins_and_the_other_is_told() -> None:
    conf = ScampConf.parse("a = 1\n\na = 2\n", "/etc/scamp.conf")
    assert conf.get("a") == "1"
    assert conf.warnings == ["/etc/scamp.conf:3: a is set already, line 1 counts"]


@pytest.mark.parametrize("line", ["word", "= value", "key =", "key = # value"])
def test_line_that_is_no_setting_is_left_out_and_told(line: str) -> None:
    conf = ScampConf.parse(f"{line}\r\na = 1\r\n", "soa.conf")
    assert conf.get("a") == "1"
    assert conf.get("key") is None
    assert conf.warnings == ["soa.conf:1: not of the form 'key = value'"]


def test_value_may_contain_equals_signs_and_spaces() -> None:
    assert ScampConf.parse("a = b = c  d").get("a") == "b = c  d"


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    conf = ScampConf.parse(text)
    assert len(conf.warnings) <= text.count("\n") + 1


# -- finding the file -------------------------------------------------------------------


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths = [tmp_path / name for name in ("one.conf", "two.conf")]
    monkeypatch.setattr(config, "SEARCHED", tuple(map(str, paths)))
    return paths


def test_variables_come_first_in_their_order(tmp_path: Path, etc: list[Path]) -> None:
    for name in ("a", "b", "one.conf"):
        (tmp_path / name).write_text(f"name = {name}")
    both = {"SCAMP": str(tmp_path / "a"), "SCAMP_CONFIG": str(tmp_path / "b")}
    assert ScampConf.load(environ=both).get("name") == "a"
    assert ScampConf.load(environ={"SCAMP_CONFIG": both["SCAMP_CONFIG"]}).get("name") == "b"
    assert ScampConf.load(environ={"SCAMP": ""}).get("name") == "one.conf"
    assert ScampConf.load(tmp_path / "b", environ=both).get("name") == "b"


def test_first_file_that_is_there_is_used(etc: list[Path]) -> None:
    etc[1].write_text("a = 2")
    assert ScampConf.load(environ={}).path == etc[1]
    etc[0].write_text("a = 1")
    assert ScampConf.load(environ={}).path == etc[0]


def test_no_file_at_all_says_where_one_may_be(etc: list[Path]) -> None:
    assert ScampConf.find({}) is None
    with pytest.raises(ConfigError, match=r"SCAMP_CONFIG.*two\.conf"):
        ScampConf.load(environ={})


def test_file_that_a_variable_names_must_be_there(tmp_path: Path, etc: list[Path]) -> None:
    etc[0].write_text("a = 1")
    missing = tmp_path / "missing.conf"
    with pytest.raises(ConfigError, match=r"missing\.conf: No such file.*, which \$SCAMP names$"):
        ScampConf.load(environ={"SCAMP": str(missing)})
    with pytest.raises(ConfigError, match=r"directory$"):  # the caller named it
        ScampConf.load(missing, environ={"SCAMP": str(missing)})


def test_oversized_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scamp.conf"
    path.write_text("a = 1234")
    monkeypatch.setattr(config, "MAX_CONFIG_FILE", 7)
    with pytest.raises(ConfigError, match="larger than 7"):
        ScampConf.load(path)


def test_bytes_that_are_no_text_cost_only_their_line(tmp_path: Path) -> None:
    path = tmp_path / "scamp.conf"
    path.write_bytes(b"a = \xff\xfe\nb = 2\n")
    assert ScampConf.load(path).get("b") == "2"


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "scamp.conf"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert ScampConf.load(path).get("a") == "1"


# -- well-known keys --------------------------------------------------------------------


def test_defaults_are_those_of_the_other_implementations() -> None:
    conf = ScampConf.parse("")
    assert str(conf.discovery_cache_path) == "/tmp/scamp_discovery_cache"
    assert conf.discovery_cache_max_age == 120
    assert (conf.first_port, conf.last_port, conf.bind_tries) == (30100, 30399, 20)
    assert (conf.client_timeout, conf.server_timeout, conf.rpc_timeout) == (90, 120, 75)
    assert conf.max_inflight == 65536
    assert (conf.multicast_group, conf.multicast_port) == ("239.63.248.106", 5555)
    assert conf.authorized_services is None
    assert conf.running_service_dir is None
    assert conf.key_path("shop") is None


def test_well_known_keys_are_read() -> None:
    conf = ScampConf.parse(SAMPLE)
    assert conf.authorized_services == Path("/etc/authorized")
    assert conf.rpc_timeout == 12.5
    assert conf.bind_tries == 3


def test_keys_and_certificates_go_by_either_name() -> None:
    conf = ScampConf.parse(SAMPLE)
    assert (conf.key_path("shop"), conf.cert_path("shop")) == (
        Path("/etc/shop.key"),
        Path("/etc/shop.crt"),
    )
    assert (conf.key_path("old"), conf.cert_path("old")) == (
        Path("/etc/old.key"),
        Path("/etc/old.crt"),
    )


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1e3", "70000", "9" * 30, "1_0"])
def test_bad_whole_number_names_file_line_and_key(value: str) -> None:
    conf = ScampConf.parse(f"\nbeepish.first_port = {value}", "/etc/soa.conf")
    with pytest.raises(ConfigError, match=r"^/etc/soa\.conf:2: beepish\.first_port = "):
        _ = conf.first_port


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "1,5", "0"])
def test_bad_number_names_file_line_and_key(value: str) -> None:
    conf = ScampConf.parse(f"rpc.timeout = {value}", "/etc/soa.conf")
    with pytest.raises(ConfigError, match=r"^/etc/soa\.conf:1: rpc\.timeout = "):
        _ = conf.rpc_timeout


def test_port_range_must_not_be_empty() -> None:
    conf = ScampConf.parse("beepish.first_port = 200\nbeepish.last_port = 100")
    with pytest.raises(ConfigError, match=r"below beepish\.first_port"):
        _ = conf.last_port


# -- addresses --------------------------------------------------------------------------


def test_own_address_is_10_before_192_168() -> None:
    assert ScampConf.parse("").service_addresses(HERE) == ("10.2.3.4",)
    fewer = {name: listed for name, listed in HERE.items() if name != "eth1"}
    assert ScampConf.parse("").discovery_addresses(fewer) == ("192.168.1.5",)


def test_machine_without_such_an_address_is_told_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"set service\.address or bus\.address"):
        ScampConf.parse("").service_addresses({"lo": ["127.0.0.1"]})


def test_own_key_comes_before_the_bus() -> None:
    conf = ScampConf.parse("bus.address = 1.2.3.4\ndiscovery.address = if:tun, 5.6.7.8, if:tun")
    assert conf.service_addresses(HERE) == ("1.2.3.4",)
    assert conf.discovery_addresses(HERE) == ("172.16.0.9", "5.6.7.8")


@pytest.mark.parametrize("value", ["if:wlan9", "shop.example", ",", "1.2.3"])
def test_address_that_cannot_be_resolved_names_its_line(value: str) -> None:
    conf = ScampConf.parse(f"bus.address = {value}", "soa.conf")
    with pytest.raises(ConfigError, match=r"^soa\.conf:1: bus\.address = "):
        conf.service_addresses(HERE)


def test_an_interface_that_is_not_there_is_told_with_those_that_are() -> None:
    conf = ScampConf.parse("bus.address = if:wlan9", "soa.conf")
    with pytest.raises(ConfigError, match=f"names wlan9; .* here: {', '.join(HERE)}"):
        conf.service_addresses(HERE)


def test_interfaces_of_this_machine_are_found() -> None:
    assert interface_addresses()["lo"] == ["127.0.0.1"]
    assert ScampConf.parse("bus.address = if:lo").service_addresses() == ("127.0.0.1",)
