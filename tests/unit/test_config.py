"""The configuration: profiles, examples, and what a wrong file gets."""

from __future__ import annotations

import io
import ipaddress
import json
import re
import stat
import tomllib
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.addresses import parse_address
from cuntong_daemon.config import (
    ConfigError,
    ParentAddress,
    load_config,
    new_config,
    parse_config,
    tier_defaults,
    write_config,
)
from cuntong_daemon.datacast.pacer import REAL_TIME_PRIORITY
from cuntong_daemon.datacast.sockets import RECEIVE_BUFFER_BYTES
from cuntong_daemon.logs import configure_logging, get_logger
from cuntong_protocol.divisions import Division, Tier

ROOT = Path(__file__).parents[2]
VILLAGE = Division("441900003005")
HEAD = '[node]\ncode = "441900003005"\n'


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_a_profile_and_an_example_that_load(tier: Tier) -> None:
    assert tier_defaults(tier)["network"]["networks"]
    example = ROOT / "config" / f"{tier.label}.toml"
    config = load_config(example)
    assert config.division.tier is tier
    defaults = tier_defaults(tier)
    assert config.node.profile == defaults["node"]["profile"]
    assert config.store.quota_gb == defaults["store"]["quota_gb"]
    assert bool(config.network.parents) == (tier is not Tier.NATION)


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tiers_example_and_profile_name_the_same_satellite_keys(tier: Tier) -> None:
    """Centres may send, all below the nation may receive; the example shows the defaults as comments."""
    profile = tier_defaults(tier)
    example = (ROOT / "config" / f"{tier.label}.toml").read_text(encoding="utf-8")
    assert ("cast" in profile) == (tier <= Tier.COUNTY)
    assert ("dish" in profile) == (tier is not Tier.NATION)
    for section in ("cast", "dish"):
        assert (f"\n[{section}]\n" in example) == (section in profile)
        table = example.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
        shown = re.findall(r"^# (\w+ = .*)$", table, re.MULTILINE)
        assert tomllib.loads("\n".join(shown)) == profile.get(section, {})
    config = load_config(ROOT / "config" / f"{tier.label}.toml")
    assert (config.cast.interface, config.dish.interface) == ("", "")


def test_what_the_file_does_not_say_comes_from_the_tier() -> None:
    config = parse_config((HEAD + "[bandwidth]\ndown_kbit_s = 300\n").encode(), file="config.toml")
    assert config.node.vpn_shape == "hub"
    assert config.node.profile == "tolerant"
    assert (config.bandwidth.down_kbit_s, config.bandwidth.shared) == (300, True)
    assert config.store.quota_bytes == 200_000_000_000
    assert str(config.network.ranges[0]) == "10.0.0.0/8"


def test_a_new_nodes_file_loads_and_shows_the_profile(tmp_path: Path) -> None:
    parent = ParentAddress(code="441900003000", address="127.0.0.3:7440")
    text = new_config(
        VILLAGE,
        name='石排"村"',
        swarm="127.0.0.4:7441",
        networks=["127.0.0.0/8"],
        parents=[parent],
        overrides={"bandwidth": {"down_kbit_s": 512}, "node": {"vpn_shape": "mesh"}},
    )
    write_config(tmp_path / "config.toml", text)
    config = load_config(tmp_path / "config.toml")
    assert config.network.parents == [parent]
    assert config.node.name == '石排"村"'
    assert (config.node.vpn_shape, config.bandwidth.down_kbit_s) == ("mesh", 512)
    assert "# quota_gb = 200" in text
    assert stat.S_IMODE((tmp_path / "config.toml").stat().st_mode) == 0o640


def test_a_new_nodes_file_that_would_not_load_is_not_made() -> None:
    with pytest.raises(ConfigError):
        new_config(VILLAGE, swarm="127.0.0.4:7441", networks=["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            HEAD + "[bandwidth]\ndown_kbits = 4",
            "config.unknown-key",
            "config.toml:4: bandwidth.down_kbits",
        ),
        (HEAD + "[bandwidth]\ndown_kbits = 4", "config.unknown-key", "nearest is down_kbit_s"),
        (HEAD + "[bandwith]\n", "config.unknown-key", "nearest is bandwidth"),
        (HEAD + "[[network.parents]]\ncod = '1'", "config.unknown-key", "nearest is code"),
        ("", "config.missing-key", "node"),
        ("[node]\nname = 'x'", "config.missing-key", "node.code"),
        (HEAD + "[[network.parents]]\ncode = '1'", "config.missing-key", "address"),
        ("node = 3", "config.bad-value", "config.toml:1: node"),
        ("[node]\ncode = 4419", "config.bad-value", "12 digits in quotes"),
        ("[node]\ncode = '4419'", "config.bad-value", "12 digits in quotes"),
        (HEAD + "vpn_shape = 'star'", "config.bad-value", "'mesh' or 'hub'"),
        (
            HEAD + "[bandwidth]\nup_kbit_s = -4",
            "config.bad-value",
            "config.toml:4: bandwidth.up_kbit_s",
        ),
        (HEAD + "[bandwidth]\nup_kbit_s = '4'", "config.bad-value", "number of kbit/s"),
        (HEAD + "[store]\nlibrary = 1", "config.bad-value", "true or false"),
        (HEAD + "[subscriptions]\ngroups = [1]", "config.bad-value", "list of words"),
        (HEAD + "[log]\nlevel = 'loud'", "config.bad-value", "'warning'"),
        (HEAD + "[network]\nnetworks = ['10.0.0.1/8']", "config.bad-value", "address ranges"),
        (HEAD + "[network]\nnetworks = []", "config.bad-value", "address ranges"),
        (HEAD + "[network]\nswarm = 'here:1'", "config.bad-value", "config.toml:4: network.swarm"),
        (HEAD + "[network]\nlisten = '10.0.0.1:0'", "config.bad-value", "network.listen"),
        (HEAD + "[network]\nswarm = '8.8.8.8:1'", "config.outside-networks", "8.8.8.8:1"),
        (
            HEAD + "[[network.parents]]\ncode = '441900003005'\naddress = '10.0.0.1:1'",
            "config.bad-value",
            "network.parents",
        ),
        (
            HEAD + "[[network.parents]]\ncode = '4'\naddress = '10.0.0.1:1'",
            "config.bad-value",
            "network.parents",
        ),
        ("[node", "config.not-toml", "config.toml"),
        ("x = '" + "x" * 300_000 + "'", "config.too-large", "config.toml"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(text: str, code: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), file="config.toml")
    assert caught.value.code == code
    assert said in str(caught.value)
    assert caught.value.fault.value == 78


def test_a_file_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(b"\xff\xfe", file="config.toml")
    assert caught.value.code == "config.not-toml"


def test_a_missing_or_unreadable_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.toml")
    assert caught.value.code == "config.missing"
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert caught.value.code == "config.unreadable"


CAST = HEAD + "[cast]\ninterface = 'eth1'\nsource = '10.0.0.1'\n"
DISH = HEAD + "[dish]\ninterface = 'eth1'\n"


@pytest.mark.parametrize(
    "text",
    [
        CAST + "rate_kbit_s = 64\nhops = 255\n",
        CAST + "group = '239.1.2.3:65535'\n",
        HEAD + "[cast]\ninterface = 'eth1'\nsource = 'fd00::1'\ngroup = '[ff3e::8000:1]:7450'\n",
        DISH + "spool_gb = 1\nsender = '441900000000'\n",
        DISH + "source = '10.0.0.1'\n",
        DISH + "source = 'fd00::1'\ngroup = '[ff3e::8000:1]:7450'\n",
        # Without an interface nothing is sent or received, so the rest may still be wrong.
        HEAD + "[cast]\nsource = 'later'\n[dish]\ngroup = 'later'\n",
    ],
)
def test_satellite_settings_that_can_be_used(text: str) -> None:
    config = parse_config(text.encode(), file="config.toml")
    for section in (config.cast, config.dish):
        if section.interface:
            address, port = parse_address(section.group)
            assert ipaddress.ip_address(address).is_multicast
            assert port > 0


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        (HEAD + "[cast]\ninterface = 'sixteen-letters-'", 4, "cast.interface", "network interface"),
        (HEAD + "[cast]\ninterface = 1", 4, "cast.interface", "network interface"),
        (HEAD + "[dish]\ninterface = 'sixteen-letters-'", 4, "dish.interface", "network interface"),
        (HEAD + "[dish]\ninterface = ['eth1']", 4, "dish.interface", "network interface"),
        (CAST.replace("10.0.0.1", "here"), 5, "cast.source", "this node's address"),
        (CAST.replace("10.0.0.1", "10.0.0.1:7450"), 5, "cast.source", "this node's address"),
        (CAST.replace("10.0.0.1", "fd00::1"), 5, "cast.source", "this node's address"),
        (CAST.replace("source = '10.0.0.1'\n", ""), 0, "cast.source", "this node's address"),
        (CAST + "group = '[ff3e::1]:7450'", 5, "cast.source", "this node's address"),
        (DISH + "source = '10.0.0'", 5, "dish.source", "the sender's address"),
        (DISH + "source = 'fd00::1'", 5, "dish.source", "the sender's address"),
        (CAST + "group = '10.1.2.3:7450'", 6, "cast.group", "multicast address and a port"),
        (CAST + "group = '232.20.1.1'", 6, "cast.group", "multicast address and a port"),
        (CAST + "group = '232.20.1.1:0'", 6, "cast.group", "multicast address and a port"),
        (DISH + "group = '10.1.2.3:7450'", 5, "dish.group", "multicast address and a port"),
        (DISH + "group = '232.20.1.1:65536'", 5, "dish.group", "multicast address and a port"),
        (DISH + "group = 'ff3e::1'", 5, "dish.group", "multicast address and a port"),
        (DISH + "group = 7450", 5, "dish.group", "multicast address and a port"),
        (CAST + "rate_kbit_s = 63", 6, "cast.rate_kbit_s", "kbit/s from 64 to 1000000"),
        (CAST + "rate_kbit_s = '2000'", 6, "cast.rate_kbit_s", "kbit/s from 64 to 1000000"),
        (CAST + "hops = 0", 6, "cast.hops", "from 1 to 255"),
        (CAST + "hops = 256", 6, "cast.hops", "from 1 to 255"),
        (DISH + "sender = '4419'", 5, "dish.sender", "12 digits in quotes"),
        (DISH + "sender = 441900000000", 5, "dish.sender", "12 digits in quotes"),
        (DISH + "spool_gb = 0", 5, "dish.spool_gb", "gigabytes"),
        (DISH + "spool_gb = 0.5", 5, "dish.spool_gb", "gigabytes"),
    ],
)
def test_wrong_satellite_settings_are_refused_with_line_and_reason(
    text: str, line: int, key: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), file="config.toml")
    assert caught.value.code == "config.bad-value"
    # What isn't there has no line.
    place = f"config.toml:{line}" if line else "config.toml"
    assert str(caught.value).startswith(f"{place}: {key} must be")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        (HEAD + "[cast]\ninterfce = 'eth1'", 4, "cast.interfce", "interface"),
        (CAST + "rate_kbits = 2000", 6, "cast.rate_kbits", "rate_kbit_s"),
        (DISH + "rate_kbit_s = 2000", 5, "dish.rate_kbit_s", "interface"),
        (DISH + "spool = 8", 5, "dish.spool", "spool_gb"),
        (HEAD + "[dsih]", 3, "dsih", "dish"),
    ],
)
def test_an_unknown_satellite_key_is_refused_with_the_nearest_one(
    text: str, line: int, key: str, nearest: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), file="config.toml")
    assert caught.value.code == "config.unknown-key"
    assert str(caught.value).startswith(f"config.toml:{line}: {key} ")
    assert f"the nearest is {nearest}." in str(caught.value)


@pytest.mark.parametrize(
    "group", ["232.20.1.1:\u0663\u0664", "232.20.1.1: 7450", "232.20.1.1:7_450", "ff3e::1:7450"]
)
def test_a_group_is_written_in_one_way_only(group: str) -> None:
    """What Python's `int` takes beside digits, and an IPv6 address whose end may be a port, are mistakes."""
    source = "fd00::1" if group.startswith("ff") else "10.0.0.1"
    text = CAST.replace("10.0.0.1", source) + f"group = '{group}'\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), file="config.toml")
    assert "cast.group" in str(caught.value)


@given(
    st.recursive(
        st.one_of(st.booleans(), st.integers(), st.text(), st.none()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=6,
    ),
    st.sampled_from(
        ["node", "network", "bandwidth", "store", "subscriptions", "cast", "dish", "log"]
    ),
)
def test_no_value_of_a_section_ends_in_anything_but_one_error(value: object, section: str) -> None:
    """Whatever TOML can say in place of a table or in it, a person gets a sentence."""
    line = json.dumps({section: value})
    try:
        text = f"{section} = {_toml(value)}\n"
        tomllib.loads(text)
    except (ValueError, tomllib.TOMLDecodeError):
        return
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), file="c")
    assert caught.value.code.startswith("config."), line


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        raise ValueError
    return json.dumps(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.1.2.3:7440", ("10.1.2.3", 7440)), ("[fd00::1]:7440", ("fd00::1", 7440))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "10.1.2.3", "10.1.2.3:", "10.1.2.3:65536", "10.1.2.3:١", "fd00::1:7", "host:1", "[x]:1"],
)
def test_not_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.fixture
def clean_logs() -> object:
    yield None
    structlog.reset_defaults()


@pytest.mark.usefixtures("clean_logs")
def test_logs_are_json_lines_that_keep_chinese_and_tracebacks() -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    log = get_logger("link")
    log.debug("hidden")
    log.warning("connected", peer="石排")
    try:
        int("broken")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "connected"
    assert (first["peer"], first["part"], first["level"]) == ("石排", "link", "warning")
    assert first["timestamp"].endswith("Z")
    assert "ValueError: invalid literal" in second["exception"]
    assert "石排" in stream.getvalue()


@pytest.mark.usefixtures("clean_logs")
def test_logs_on_a_console_are_for_people() -> None:
    stream = io.StringIO()
    configure_logging("debug", stream=stream, is_console=True)
    get_logger("swarm").debug("started", port=7441)
    assert "started" in stream.getvalue()
    assert "port=7441" in stream.getvalue()


def test_the_unit_waits_longer_than_the_daemon_needs_to_stop() -> None:
    unit = (ROOT / "config" / "cuntong.service").read_text(encoding="utf-8")
    settings = dict(
        line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0] != "#"
    )
    assert int(settings["TimeoutStopSec"]) > 30
    assert settings["Restart"] == "on-failure"
    assert settings["ExecStart"].split()[0].endswith("/cuntongd")


def test_what_an_administrator_lets_the_datacast_have_is_what_it_asks_for() -> None:
    """The unit's lines for a satellite, and the kernel setting in both READMEs."""
    unit = (ROOT / "config" / "cuntong.service").read_text(encoding="utf-8")
    offered = dict(re.findall(r"^#(\w+)=(\S+)$", unit, re.MULTILINE))
    assert int(offered["LimitRTPRIO"]) >= REAL_TIME_PRIORITY
    assert (offered["RestrictRealtime"], offered["SystemCallFilter"]) == (
        "no",
        "sched_setscheduler",
    )
    assert offered["AmbientCapabilities"] == offered["CapabilityBoundingSet"] == "CAP_NET_ADMIN"
    for document in ("config/cuntong.service", "README.md", "README.zh-CN.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert f"net.core.rmem_max = {RECEIVE_BUFFER_BYTES}" in text
