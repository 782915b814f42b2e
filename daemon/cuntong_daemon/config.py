"""A node's configuration: `config.toml` over the profile of the node's tier.

The file says only what differs from the tier's profile (`profiles/<tier>.toml`), so that an update of the
program can bring better defaults. Everything is checked before the daemon starts anything; a refusal
names the file, the line and, for a key nobody knows, the nearest one that exists.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from cuntong_protocol.divisions import Division, DivisionError, Tier
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

from .addresses import parse_address
from .config_bandwidth import BANDWIDTH_REASONS, BadKey, BandwidthSection
from .config_datacast import DATACAST_REASONS, CastSection, DishSection, bad_datacast_key
from .config_media import MEDIA_REASONS, MediaSection
from .files import write_atomically

MAX_CONFIG_BYTES = 256 * 1024
"""A hundred times what an administrator writes; a wrong file (a film, say) is refused before it is read."""
MAX_PARENTS = 16
MAX_SUBSCRIPTIONS = 256

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Words = Annotated[list[_Word], msgspec.Meta(max_length=MAX_SUBSCRIPTIONS)]


class ConfigError(CuntongError):
    """The configuration can't be used."""

    fault = Fault.CONFIG


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file: what isn't a field is refused."""


class NodeSection(_Section, frozen=True, kw_only=True):
    """`[node]`: who this node is.

    Attributes:
        code: The division code; fixed at enrolment.
        name: What people call the place.
        vpn_shape: `hub` when traffic between two places below crosses the link of the place above.
        profile: `strict` judges metadata by the clock, `tolerant` by proven time (SPEC 4.7).
    """

    code: str
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    vpn_shape: Literal["mesh", "hub"]
    profile: Literal["strict", "tolerant"]


class ParentAddress(_Section, frozen=True, kw_only=True):
    """One place this node may dial for its control link, in order of preference."""

    code: str
    address: str


class NetworkSection(_Section, frozen=True, kw_only=True):
    """`[network]`: addresses inside the network's VPN.

    Attributes:
        listen: Where children dial the control link, `host:port`; empty: this node takes no children.
        swarm: Where BitTorrent listens, `host:port`.
        networks: The ranges outside of which nothing listens and nothing is dialled.
        parents: Whom to dial, nearest first.
    """

    listen: str = ""
    swarm: str
    networks: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    parents: Annotated[list[ParentAddress], msgspec.Meta(max_length=MAX_PARENTS)] = []

    @property
    def ranges(self) -> tuple[IPNetwork, ...]:
        return tuple(ipaddress.ip_network(text) for text in self.networks)


class StoreSection(_Section, frozen=True, kw_only=True):
    """`[store]`: `quota_gb` (0: what the disk holds); `library`: files are laid out for readers."""

    quota_gb: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 0
    library: bool = True

    @property
    def quota_bytes(self) -> int:
        return self.quota_gb * 1_000_000_000


class SubscriptionsSection(_Section, frozen=True, kw_only=True):
    """`[subscriptions]`: empty lists of categories, languages, publishers mean all; groups are opted into."""

    categories: _Words = []
    languages: _Words = []
    groups: _Words = []
    publishers: _Words = []


class LogSection(_Section, frozen=True, kw_only=True):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Section, frozen=True, kw_only=True):
    """All of `config.toml`, the tier's defaults filled in."""

    node: NodeSection
    network: NetworkSection
    bandwidth: BandwidthSection = BandwidthSection()
    store: StoreSection = StoreSection()
    subscriptions: SubscriptionsSection = SubscriptionsSection()
    cast: CastSection = CastSection()
    dish: DishSection = DishSection()
    media: MediaSection = MediaSection()
    log: LogSection = LogSection()

    @property
    def division(self) -> Division:
        return Division(self.node.code)


_REASONS: dict[str, str] = {
    **BANDWIDTH_REASONS,
    **DATACAST_REASONS,
    **MEDIA_REASONS,
    "node.code": N_(
        "{file}: {key} must be a division code of 12 digits in quotes, such as '441900000000'."
    ),
    "node.vpn_shape": N_("{file}: {key} must be 'mesh' or 'hub'."),
    "node.profile": N_("{file}: {key} must be 'strict' or 'tolerant'."),
    "network.listen": N_(
        "{file}: {key} must be an address and a port in quotes, such as '10.1.2.3:7440'."
    ),
    "network.swarm": N_(
        "{file}: {key} must be an address and a port in quotes, such as '10.1.2.3:7440'."
    ),
    "network.networks": N_(
        "{file}: {key} must be a list of address ranges in quotes, such as ['10.0.0.0/8']."
    ),
    "network.parents": N_(
        "{file}: {key} must be tables, each with a code and an address such as '10.1.2.3:7440'."
    ),
    "store.quota_gb": N_(
        "{file}: {key} must be a whole number of gigabytes, 0 for the whole disk."
    ),
    "store.library": N_("{file}: {key} must be true or false."),
    "subscriptions": N_("{file}: {key} must be a list of words in quotes."),
    "log.level": N_("{file}: {key} must be 'debug', 'info', 'warning' or 'error'."),
}
"""What a key must be, by key, last word or section: said instead of the library's English for programmers."""


@cache
def _profile(tier: Tier) -> str:
    return (
        resources.files("cuntong_daemon")
        .joinpath("profiles", f"{tier.label}.toml")
        .read_text(encoding="utf-8")
    )


def tier_defaults(tier: Tier) -> dict[str, Any]:
    """The profile of a tier, as the tables of the file that state it."""
    return tomllib.loads(_profile(tier))


def load_config(path: Path) -> Config:
    """Read and check `config.toml`.

    Raises:
        ConfigError: `config.missing`, `config.unreadable`, `config.not-toml`, `config.unknown-key`,
            `config.missing-key`, `config.bad-value`, `config.outside-networks`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "config.missing",
            N_("{file} doesn't exist; enrol this node first: cuntong node enrol PACK."),
            file=str(path),
        ) from None
    except OSError as error:
        raise ConfigError(
            "config.unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    return parse_config(data, file=str(path))


def parse_config(data: bytes, *, file: str) -> Config:
    """Check the content of a configuration file; `file` is its name in errors.

    Raises:
        ConfigError: as `load_config`.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            "config.too-large", N_("{file} is too large for a configuration."), file=file
        )
    try:
        text = data.decode()
        given = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "config.not-toml",
            N_("{file} isn't valid TOML: {reason}."),
            file=file,
            reason=str(error),
        ) from None
    source = _Source(file, text)
    _check_keys(given, source)
    try:
        tier = Division(given["node"]["code"]).tier
    except KeyError as error:
        raise source.missing("node.code" if error.args[0] == "code" else "node") from None
    except (DivisionError, TypeError):
        raise source.bad_value("node.code") from None
    try:
        config = msgspec.convert(_merged(tier_defaults(tier), given), Config)
    except msgspec.ValidationError as error:
        raise source.refusal(str(error)) from None
    _check_meaning(config, source)
    return config


def new_config(
    code: Division,
    *,
    name: str = "",
    swarm: str,
    networks: Sequence[str],
    listen: str = "",
    parents: Sequence[ParentAddress] = (),
    overrides: dict[str, dict[str, Any]] | None = None,
) -> str:
    """The text of a new node's `config.toml`: what is its own; the tier's profile follows as comments.

    Args:
        overrides: More tables and keys, for example `{"bandwidth": {"down_kbit_s": 512}}`.

    Raises:
        ConfigError: the result would not load.
    """
    tables: dict[str, dict[str, Any]] = {
        "node": {"code": str(code), "name": name},
        "network": {"listen": listen, "swarm": swarm, "networks": list(networks)},
    }
    for section, values in (overrides or {}).items():
        tables.setdefault(section, {}).update(values)
    lines: list[str] = []
    for section, values in tables.items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    for parent in parents:
        lines += [
            "[[network.parents]]",
            f"code = {_toml(parent.code)}",
            f"address = {_toml(parent.address)}",
            "",
        ]
    lines.append(f"# What isn't said above comes from the profile of the tier ({code.tier.label}):")
    lines.append("#")
    lines += [f"# {line}".rstrip() for line in _profile(code.tier).splitlines()]
    text = "\n".join(lines) + "\n"
    parse_config(text.encode(), file="config.toml")
    return text


def write_config(path: Path, text: str) -> None:
    """Write a configuration file durably.

    Raises:
        OSError: nothing was changed.
    """
    write_atomically(path, text.encode(), mode=0o640)


def _toml(value: object) -> str:
    """A TOML value; JSON's strings, numbers, booleans and lists are valid TOML."""
    return msgspec.json.encode(value).decode()


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; a list that is given replaces the default."""
    merged = dict(defaults)
    for key, value in given.items():
        default = defaults.get(key)
        is_table = isinstance(value, dict) and isinstance(default, dict)
        merged[key] = _merged(default, value) if is_table else value  # type: ignore[arg-type]
    return merged


class _Source:
    """The file a refusal speaks of."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def place(self, key: str, index: int = 0) -> str:
        """`file:line` of a dotted key, or only the file when the line isn't found.

        Args:
            key: A table, or a key in one.
            index: Which of the tables with this name.
        """
        line = self._line_of(key, index) or self._line_of(key, 0)
        return f"{self._file}:{line}" if line else self._file

    def _line_of(self, key: str, index: int) -> int | None:
        section, _, name = key.rpartition(".")
        current = ""
        seen: dict[str, int] = {}
        for number, line in enumerate(self._lines, start=1):
            if header := re.match(r"\s*\[\[?\s*([\w.\-]+)\s*\]", line):
                current = header[1]
                seen[current] = seen.get(current, -1) + 1
                if current == key and seen[current] == index:
                    return number
            elif (
                current == section
                and seen.get(section, 0) == index
                and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line)
            ):
                return number
        return None

    def unknown(self, key: str, known: Sequence[str], index: int = 0) -> ConfigError:
        nearest = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.0)
        return ConfigError(
            "config.unknown-key",
            N_("{file}: {key} is not a known key; the nearest is {nearest}."),
            file=self.place(key, index),
            key=key,
            nearest=nearest[0] if nearest else "-",
        )

    def bad_value(self, key: str, index: int = 0) -> ConfigError:
        section, _, rest = key.partition(".")
        table, _, last = key.rpartition(".")
        template = next(
            (_REASONS[name] for name in (key, f"*.{last}", table, section) if name in _REASONS),
            N_("{file}: {key} has a value that can't be used here."),
        )
        place = self.place(key, index)
        if place == self._file and "." in rest:
            place = self.place(table, index)
        return ConfigError("config.bad-value", template, file=place, key=key)

    def missing(self, key: str) -> ConfigError:
        return ConfigError(
            "config.missing-key", N_("{file}: {key} is missing."), file=self._file, key=key
        )

    def refusal(self, message: str) -> ConfigError:
        """Turn msgspec's message into ours."""
        at = re.search(r"at `\$\.?([^`]*)`", message)
        index = re.search(r"\[([0-9]+)\]", at[1]) if at else None
        key = re.sub(r"\[[^\]]*\]|\.\.\.", "", at[1]) if at else ""
        if missing := re.search(r"missing required field `(\w+)`", message):
            return self.missing(f"{key}.{missing[1]}" if key else missing[1])
        return self.bad_value(key, int(index[1]) if index else 0)


def _check_keys(given: dict[str, Any], source: _Source) -> None:
    """Refuse keys that aren't fields, before anything else is said about the file."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for section, table in given.items():
        if section not in sections:
            raise source.unknown(section, list(sections))
        if not isinstance(table, dict):
            raise source.bad_value(section)
        _check_table(table, sections[section], section, 0, source)


def _check_table(
    table: dict[str, Any], kind: object, name: str, index: int, source: _Source
) -> None:
    """A table's keys, and those of the tables in its lists."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in fields:
            raise source.unknown(f"{name}.{key}", list(fields), index)
        inner = _table_in(fields[key])
        if inner is not None and isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, dict):
                    _check_table(item, inner, f"{name}.{key}", number, source)


def _table_in(kind: object) -> object:
    """The structure that a list of this type holds; None when it isn't a list of tables."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    items = get_args(kind) if get_origin(kind) is list else ()
    is_table = bool(items) and isinstance(items[0], type) and issubclass(items[0], msgspec.Struct)
    return items[0] if is_table else None


def _check_meaning(config: Config, source: _Source) -> None:
    """What types can't say: codes, addresses, ranges, and that addresses lie within the ranges."""
    own = config.division
    try:
        ranges = config.network.ranges
    except ValueError:
        raise source.bad_value("network.networks") from None
    try:
        config.bandwidth.calendar()
        config.bandwidth.calendar(is_below=True)
    except BadKey as error:
        raise source.bad_value(f"bandwidth.{error.key}", error.index) from None
    if bad := bad_datacast_key(config.cast, config.dish):
        raise source.bad_value(bad)
    addresses = [("network.swarm", config.network.swarm)]
    if config.network.listen:
        addresses.append(("network.listen", config.network.listen))
    for parent in config.network.parents:
        addresses.append(("network.parents", parent.address))
        try:
            if Division(parent.code) == own:
                raise source.bad_value("network.parents")
        except DivisionError:
            raise source.bad_value("network.parents") from None
    for key, text in addresses:
        try:
            host = ipaddress.ip_address(parse_address(text)[0])
        except ValueError:
            raise source.bad_value(key) from None
        if not host.is_unspecified and not any(host in network for network in ranges):
            raise ConfigError(
                "config.outside-networks",
                N_("{file}: {key} is {address}, which lies outside of network.networks."),
                file=source.place(key),
                key=key,
                address=text,
            )
