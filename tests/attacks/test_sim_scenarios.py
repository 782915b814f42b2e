"""Bad, odd and extreme scenarios, places and folders: one sentence with file and line, and nothing half-written."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuntong_daemon import i18n
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_simulations.results.findings import encode
from cuntong_simulations.results.sweep import combinations
from cuntong_simulations.results.write import FIGURES, MANIFEST, PLAN, write
from cuntong_simulations.scenario import rows
from cuntong_simulations.scenario.load import load
from cuntong_simulations.scenario.units import Rate, Size
from cuntong_tools.main import run
from tests.support.outcomes import outcome, scenario, with_everything
from tests.unit.test_sim_results import found

SMALL = """\
name = "small"
[run]
start = 2027-03-01
days = 2
[calendars]
open = ["mon-fri 08:00-12:00"]
[[tier]]
tier = "nation"
count = 1
links = [{ down = "1 Gbit/s", up = "1 Gbit/s" }]
[[tier]]
tier = "county"
count = 3
links = [
  { share = 0.5, down = "2 Mbit/s", up = "2 Mbit/s" },
  { share = "50 %", down = "10 Mbit/s", up = "10 Mbit/s" },
]
store = "4 TB"
[[tier]]
tier = "village"
count = 6
links = [{ down = "512 kbit/s", up = "512 kbit/s" }]
public = "open"
[disks]
size = "4 TB"
batch = 10
copy_rate = "100 MB/s"
[[release]]
name = "march"
bundles = 2
size = "20 MB"
deadlines = { county = 1, village = "2 d" }
[costs]
currency = "CNY"
source = "a guess"
disk = 700
"""
SKY = '[satellite]\nrate = "20 Mbit/s"\n'
PLACES = "code,name,down,up,dish,store\n110101,东城,2 Mbit/s,2 Mbit/s,1,\n110101001001,某村,512 kbit/s,512 kbit/s,0,200 GB\n"

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    i18n._catalogue.cache_clear()
    yield
    i18n._catalogue.cache_clear()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """`cuntong sim …` in this process: exit code, stdout, stderr."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run(["sim", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def refused(told: Told, tmp_path: Path) -> Callable[..., str]:
    """Runs what has to be refused with one sentence, its code, file and line; returns the sentence."""

    def call(place: str, line: int, code: str, *words: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        status, out, err = told(
            *(words or ("run", tmp_path / "small.toml")), "--out", tmp_path / "out"
        )
        assert (status, out) == (Fault.CONFIG.value, ""), err
        assert err.startswith("cuntong: ")
        assert err.endswith(f" ({code})\n"), err
        assert err.count("\n") == 1
        assert (f"{tmp_path / place}, line {line}: " if line else place) in err, err
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return call


def changed(old: str, new: str, text: str = SMALL) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        # Units.
        ('down = "512 kbit/s"', 'down = "1,000 kbit/s"', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = "0.5 Mbit"', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = "2 Mbps"', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = ""', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = "{file} kbit/s"', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', "down = true", 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', "down = [1]", 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', "down = 2027-03-01", 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = "512 bit/s"', 22, "sim.absurd"),
        ('down = "512 kbit/s"', 'down = "1e-300 kbit/s"', 22, "sim.absurd"),
        ('down = "512 kbit/s"', 'down = "' + "2" * 5000 + ' kbit/s"', 22, "sim.absurd"),
        ('size = "20 MB"', 'size = "1e400 TB"', 31, "sim.absurd"),
        ('size = "20 MB"', 'size = "inf GB"', 31, "sim.absurd"),
        ('size = "20 MB"', 'size = "-1 GB"', 31, "sim.absurd"),
        ('size = "20 MB"', 'size = "0 B"', 31, "sim.empty-bundle"),
        ('public = "open"', 'off_days = "120 min/h"', 23, "sim.absurd"),
        ('public = "open"', 'off_days = "2 h/h"', 23, "sim.not-a-share"),
        # Days, steps and seeds.
        ("start = 2027-03-01", "start = 2027-02-30", 3, "sim.file-not-toml"),
        ("start = 2027-03-01", 'start = "2027-3-1"', 3, "sim.wrong-kind"),
        ("start = 2027-03-01", "start = 9999-12-31", 3, "sim.absurd"),
        ("start = 2027-03-01", "start = 0001-01-01", 3, "sim.absurd"),
        ("days = 2", "days = 1000000000", 4, "sim.out-of-bounds"),
        ("days = 2", "days = true", 4, "sim.wrong-kind"),
        ("days = 2", "days = " + "9" * 5000, 1, "sim.file-not-toml"),
        ("days = 2", 'days = 2\nstep = "25 h"', 5, "sim.step"),
        ("days = 2", 'days = 2\nstep = "0.5 s"', 5, "sim.step"),
        ("days = 2", 'days = 20\nstep = "1 s"', 5, "sim.too-many-steps"),
        ("days = 2", 'days = 2\npolicy = "SWARN"', 5, "sim.unknown-word"),
        ("days = 2", "days = 2\npolicy = \"it's\"", 5, "sim.unknown-word"),
        # Calendars.
        ('["mon-fri 08:00-12:00"]', '["mon 24:00-06:00"]', 6, "sim.not-a-window"),
        ('["mon-fri 08:00-12:00"]', '["周一 08:00-12:00"]', 6, "sim.not-a-window"),
        ('["mon-fri 08:00-12:00"]', "[\n\n3]", 8, "sim.wrong-kind"),
        ('["mon-fri 08:00-12:00"]', '"always"', 6, "sim.wrong-kind"),
        ("open = ", 'always = ["mon 08:00-09:00"]\nopen = ', 6, "sim.calendar-name"),
        ('public = "open"', 'on = ""', 23, "sim.never"),
        ('= ["mon-fri 08:00-12:00"]', '= ["always"]\nnever = []', 24, ""),
        # Tiers.
        ("count = 6", "count = 1000000", 21, "sim.too-many-below"),
        ("share = 0.5", "share = nan", 15, "sim.absurd"),
        ('public = "open"', 'store = "0 B"', 23, "sim.zero"),
        ('public = "open"', "subscriptions = [{ share = 0.3 }]", 23, "sim.shares"),
        ('links = [{ down = "512 kbit/s"', 'links = [] # {', 22, "sim.out-of-bounds"),
        ('tier = "village"', 'tier = "Hamlet"', 20, "sim.unknown-word"),
        # Releases.
        ('size = "20 MB"', 'sizes = ["1 MB", "2 MB", "3 MB"]', 30, "sim.release-bundles"),
        ('size = "20 MB"', 'sizes = ["1 MB",\n\n"x"]', 33, "sim.not-a-size"),
        ('name = "march"', 'name = ""', 29, "sim.out-of-bounds"),
        ('name = "march"', 'name = "march/0"', 29, "sim.release-name"),
        ('name = "march"', 'name = "a\\u001b[31m"', 29, "sim.control-character"),
        ('name = "small"', 'name = "a\\nb"', 1, "sim.control-character"),
        ('size = "20 MB"', 'size = "20 MB"\ntiers = ["county"]', 33, "sim.deadline-for-nobody"),
        ('size = "20 MB"', 'size = "20 MB"\npublisher = "999999000000"', 32, "sim.no-publisher"),
        ("village = \"2 d\"", "hamlet = 3", 32, "sim.unknown-key"),
        ("village = \"2 d\"", "village = -3", 32, "sim.absurd"),
        ('size = "20 MB"', 'file = "a\\u0000b"', 31, "sim.control-character"),
        # Carriers, prices, parameters.
        ("batch = 10", "batch = 10\nlost = \"100 %\"", 27, "sim.all-lost"),
        ("batch = 10", "batch = 10\nto = []", 27, "sim.out-of-bounds"),
        ('size = "4 TB"', 'size = "1 B"', 25, "sim.absurd"),
        ("[costs]", SKY + "loss = 1\n[costs]", 35, "sim.all-lost"),
        ("[costs]", SKY + 'hours = ""\n[costs]', 35, "sim.never"),
        ("disk = 700", "disk = nan", 36, "sim.absurd"),
        ("disk = 700", 'disk = "700元"', 36, "sim.not-money"),
        ('currency = "CNY"', 'currency = ""', 34, "sim.out-of-bounds"),
        ("[costs]", "[calibration]\nefficiency = 0\n[costs]", 34, "sim.zero"),
        ("[costs]", '[places]\nfile = ""\n[costs]', 34, "sim.out-of-bounds"),
        # TOML.
        ('"small"', "“small”", 1, "sim.file-not-toml"),
        ("disk = 700", "disk = [", 36, "sim.file-not-toml"),
        ("disk = 700", "disk = " + "[" * 5000, 1, "sim.file-not-toml"),
        ("[costs]", '["费用"]', 33, "sim.unknown-key"),
    ],
)  # fmt: skip
def test_scenario_that_cannot_be_is_refused(
    refused: Callable[..., str], tmp_path: Path, old: str, new: str, line: int, code: str
) -> None:
    text = changed(old, new)
    if not code:  # What needs two places.
        text, code = changed('public = "open"', 'window = "never"', text), "sim.never"
    (tmp_path / "small.toml").write_text(text, encoding="utf-8")
    assert len(refused("small.toml", line, code)) < len(str(tmp_path)) + 300


def test_too_many_kinds_of_links_or_tastes_are_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    many = ",".join(f'{{ share = {1 / 1500!r}, categories = ["c{k}"] }}' for k in range(1500))
    text = changed('public = "open"', f"subscriptions = [{many}]")
    (tmp_path / "small.toml").write_text(text)
    refused("small.toml", 23, "sim.out-of-bounds")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('down = "512 kbit/s"', 'down = "５１２　ｋｂｉｔ／ｓ"'),
        ('down = "512 kbit/s"', 'down = "512kbit/s"'),
        ("disk = 700", 'disk = "７００"'),
        ('public = "open"', 'off_days = "５％"'),
        ("08:00-12:00", "08：00-12：00"),
        ('["mon-fri 08:00-12:00"]', '["fri-mon 22:00-06:00", "sat 23:00-24:00"]'),
        ('["mon-fri 08:00-12:00"]', "[]"),
        ("days = 2", "days = 2\nseed = -9223372036854775808"),
        ("days = 2", "days = 2\nseed = 18446744073709551617"),
        ("days = 2", 'days = 1\nstep = "1 d"'),
        ("count = 6", "count = 0"),
        ("count = 6", "count = 1"),
        ("share = 0.5", "share = 0, down = \"1 Mbit/s\", up = \"1 Mbit/s\" }, { share = 0.5"),
        ('public = "open"', "without_link = 1"),
        ('public = "open"', "off_days = 1"),
        ('public = "open"', 'pause = "always"'),
        ('public = "open"', 'subscriptions = [{ categories = ["never published"] }]'),
        ("batch = 10", 'batch = 1\nreleases = ["march"]\nleave = "1 s"\nlost = 0.999999\nnotice = "0 s"'),
        ("batch = 10", 'batch = 1\nreleases = ["march"]\nto = ["nation", "county", "county"]'),
        ("[costs]", '[vpn]\nshape = "hub"\nhub = "village"\n[costs]'),
        ("[costs]", '[vpn]\nshape = "hub"\nhub = "nation"\n[costs]'),
        ("bundles = 2", "bundles = 3000"),
        ('size = "20 MB"', 'size = "20 MB"\ngroups = ["nobody"]'),
        ('size = "20 MB"', 'size = "2 B"'),
        ('name = "small"', 'name = "[red]<b>&\\"小"\ntitle = "two\\nlines"'),
    ],
)  # fmt: skip
def test_odd_scenario_runs_to_the_end(told: Told, tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "small.toml").write_text(changed(old, new), encoding="utf-8")
    code, out, err = told("run", tmp_path / "small.toml", "--threads", 1)
    assert (code in (0, 1), err) == (True, "")
    assert "nan" not in out


def test_full_width_means_the_same_as_half_width() -> None:
    assert Rate.of("５１２　ｋｂｉｔ／ｓ") == Rate.of("512 kbit/s")
    assert Size.of("４．５ＴＢ") == Size.of("4.5 TB")


@pytest.mark.parametrize(
    ("data", "line", "code"),
    [
        (SMALL.replace("small", "小县城").encode("gb18030"), 1, "sim.file-not-utf8"),
        (SMALL.replace("a guess", "猜").encode("gb18030"), 35, "sim.file-not-utf8"),
        (SMALL.encode("utf-16"), 1, "sim.file-not-utf8"),
        (SMALL.replace("\n", "\r").encode(), 1, "sim.file-not-toml"),
        (b"\0\1\2" * 100, 1, "sim.file-not-toml"),
        (b"", 1, "sim.missing-key"),
        (SMALL.replace("512", "x", 1).replace("\n", "\r\n").encode("utf-8-sig"), 22, "sim.not-a-rate"),
        (b"#" * 1_100_000, 0, "sim.file-too-large"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_scenario(
    refused: Callable[..., str], tmp_path: Path, data: bytes, line: int, code: str
) -> None:
    (tmp_path / "small.toml").write_bytes(data)
    refused("small.toml", line, code)


def test_what_is_no_file_is_refused_and_nobody_waits_for_a_pipe(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    odd = tmp_path / "small.toml"
    for make, code in (
        (lambda: os.mkfifo(odd), "sim.not-a-file"),
        (odd.mkdir, "sim.file-unreadable"),
        (lambda: odd.symlink_to(odd), "sim.file-unreadable"),
        (lambda: odd.symlink_to("nowhere"), "sim.file-unreadable"),
        (lambda: odd.symlink_to("/dev/zero"), "sim.not-a-file"),
    ):
        make()
        refused("small.toml", 0, code)
        odd.rmdir() if odd.is_dir() else odd.unlink()


def test_file_whose_name_is_no_text_is_refused_before_it_runs(told: Told, tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"\xff.toml")
    name.write_text(SMALL)
    code, _out, err = told("run", name)
    assert (code, err.endswith("(sim.file-name)\n")) == (Fault.CONFIG.value, True)
    (tmp_path / "small.toml").write_text(SMALL)
    code, _out, err = told("run", tmp_path / "small.toml", "--out", tmp_path / os.fsdecode(b"\xff"))
    assert (code, err.endswith("(sim.out-name)\n")) == (Fault.USAGE.value, True)


@pytest.mark.parametrize(
    ("files", "place", "line", "code"),
    [
        ({"small.toml": 'extends = "small.toml"'}, "small.toml", 1, "sim.extends-circle"),
        ({"small.toml": '\nextends = "none.toml"'}, "small.toml", 2, "sim.extends-missing"),
        ({"small.toml": 'extends = "."'}, "small.toml", 1, "sim.extends-missing"),
        ({"small.toml": 'extends = "a\\u0000b"'}, "small.toml", 1, "sim.extends-missing"),
        ({"small.toml": f'extends = "{"x" * 300}"'}, "small.toml", 1, "sim.extends-missing"),
        ({"small.toml": 'extends = ["b.toml"]'}, "small.toml", 1, "sim.extends-what"),
        ({"small.toml": 'extends = "b/b.toml"', "b/b.toml": "[["}, "b/b.toml", 1, "sim.file-not-toml"),
        ({"small.toml": 'extends = "b.toml"\n[tier]\ncount = 3', "b.toml": SMALL}, "small.toml", 2, "sim.wrong-kind"),
        ({"small.toml": 'extends = "b.toml"', "b.toml": SMALL + "x = 1\n"}, "b.toml", 37, "sim.unknown-key"),
        (
            {"small.toml": 'extends = "b.toml"\n\n[[release]]\nname = "x"\nsize = "1 MB"\ndeadlines = { city = 1 }',
             "b.toml": SMALL},
            "small.toml", 6, "sim.no-such-tier",
        ),
        (
            {"small.toml": 'extends = "b/b.toml"', "b/b.toml": SMALL + '[places]\nfile = "p.csv"', "b/p.csv": "code\nx\n"},
            "b/p.csv", 2, "sim.broken-row",
        ),
        (
            {**{f"{k}.toml": f'extends = "{k + 1}.toml"' for k in range(20)},
             "small.toml": 'extends = "0.toml"', "20.toml": SMALL},
            "14.toml", 1, "sim.extends-too-many",
        ),
    ],
)  # fmt: skip
def test_what_is_extended_is_refused_by_the_file_that_says_it(
    refused: Callable[..., str],
    tmp_path: Path,
    files: dict[str, str],
    place: str,
    line: int,
    code: str,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    refused(place, line, code)


def test_long_scenarios_are_read_in_a_time_that_grows_with_their_length(tmp_path: Path) -> None:
    many = "".join(f'[[release]]\nname = "r{k}"\nsize = "1 kB"\n' for k in range(3000))
    (tmp_path / "base.toml").write_text(SMALL + many)
    calendars = "".join(f'c{k} = ["always"]\n' for k in range(3000))
    (tmp_path / "small.toml").write_text(f'extends = "base.toml"\n[calendars]\n{calendars}')
    assert len(load(tmp_path / "small.toml").releases) == 3001


def with_places(tmp_path: Path, data: bytes | pa.Table, name: str = "p.csv") -> None:
    (tmp_path / "small.toml").write_text(SMALL + f'[places]\nfile = "{name}"\n')
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    else:
        pq.write_table(data, tmp_path / name)


@pytest.mark.parametrize(
    ("data", "line", "code"),
    [
        (b"", 1, "sim.broken-row"),
        (b"\n\n", 1, "sim.broken-row"),
        (b"code,name\n", 1, "sim.broken-row"),
        (PLACES.replace(",", ";").encode(), 1, "sim.broken-row"),
        (PLACES.replace(",", "，").encode("gb18030"), 1, "sim.broken-row"),
        (b"code,\n110101,\n", 1, "sim.broken-row"),
        (b"code,code\n", 1, "sim.broken-row"),
        (PLACES.replace("东城", '"东\r\n城\n"').replace("512 kbit/s,", "512 kbps,").encode("gb18030"), 5, "sim.not-a-rate"),
        (PLACES.replace("\n", "\r\n").replace("512 kbit/s,", "512 kbps,").encode("utf-8-sig"), 3, "sim.not-a-rate"),
        (PLACES.replace("东城", '"东城').encode(), 2, "sim.broken-row"),
        (PLACES.replace("东城", '"东"城').encode(), 2, "sim.broken-row"),
        (PLACES.replace("某村", "x" * 200_000).encode(), 3, "sim.broken-row"),
        (b"code\n" + b"1" * 5_000_000, 2, "sim.broken-row"),
        (b"code\n110101\n\xff\xff\n", 3, "sim.broken-row"),
        (b"\xef\xbb\xbfcode\n11\xe9\n", 2, "sim.broken-row"),
        (PLACES.encode("utf-16"), 1, "sim.broken-row"),
        (PLACES.replace("某村,", "").encode(), 3, "sim.broken-row"),
        (PLACES.replace("110101001001", "1.10101E+11").encode(), 3, "sim.broken-row"),
        (PLACES.replace("110101001001", "11010100100").encode(), 3, "sim.broken-row"),
        (PLACES.replace("110101001001", "11010100100A").encode(), 3, "sim.broken-row"),
        (PLACES.replace("110101001001", "120101001001").encode(), 3, "sim.broken-row"),
        (PLACES.replace("110101001001", "110101001").encode(), 3, "sim.broken-row"),
        ((PLACES + "110101000000,,,,,\n").encode(), 4, "sim.broken-row"),
        (PLACES.replace("2 Mbit/s,2 Mbit/s", "0 Mbit/s,2 Mbit/s").encode(), 2, "sim.broken-row"),
        (PLACES.replace("512 kbit/s,512", "nan kbit/s,512").encode(), 3, "sim.absurd"),
        (PLACES.replace("512 kbit/s,512", ",1 Tbit/s").replace("Tbit/s kbit/s", "Tbit/s").encode(), 3, "sim.broken-row"),
        (PLACES.replace("200 GB", "0 GB").encode(), 3, "sim.broken-row"),
        (PLACES.replace(",0,200", ",#N/A,200").encode(), 3, "sim.broken-row"),
    ],
)  # fmt: skip
def test_broken_row_of_places_is_refused_with_its_line(
    refused: Callable[..., str], tmp_path: Path, data: bytes, line: int, code: str
) -> None:
    with_places(tmp_path, data)
    refused("p.csv", line, code)


CODES = ["110101000000", "110101001001"]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (pa.table({"code": [*CODES, None]}), 3),
        (pa.table({"code": [[code] for code in CODES]}), 1),
        (pa.table({"code": pa.array([], pa.string())}), 1),
        (pa.table({"code": CODES, "colour": CODES}), 1),
        (pa.Table.from_arrays([pa.array(CODES)] * 2, names=["code", "code"]), 1),
        (pa.table({"code": CODES, "dish": ["1", "perhaps"]}), 2),
        (b"PAR1" + b"x" * 100 + b"PAR1", 1),
        (
            # Text that isn't UTF-8, which Parquet's writers don't look at.
            pa.table({"code": pa.Array.from_buffers(
                pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
            )}),
            1,
        ),
    ],
)  # fmt: skip
def test_broken_parquet_is_refused_with_its_row(
    refused: Callable[..., str], tmp_path: Path, table: pa.Table | bytes, line: int
) -> None:
    with_places(tmp_path, table, "p.parquet")
    refused("p.parquet", line, "sim.broken-row")


def test_parquet_that_was_cut_off_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    with_places(tmp_path, pa.table({"code": CODES * 1000}), "p.parquet")
    whole = (tmp_path / "p.parquet").read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40] + bytes(90) + whole[130:]):
        (tmp_path / "p.parquet").write_bytes(data)
        refused("p.parquet", 1, "sim.broken-row")


@pytest.mark.parametrize(
    "data",
    [
        PLACES.encode("utf-8-sig"),
        PLACES.encode("gb18030"),
        PLACES.replace("\n", "\r\n\r\n").encode(),
        PLACES.replace("110101001001", "１１０１０１００１００１").encode(),
        PLACES.replace("code,name", " Code , NAME ").encode(),
        PLACES.replace("512 kbit/s,512 kbit/s", "0 kbit/s,").encode(),
        # What spreadsheets and pandas make of codes and gaps.
        pa.table({"code": [int(code) for code in CODES]}),
        pa.table({"code": [float(code) for code in CODES], "dish": [None, 1.0]}),
        pa.table({"code": CODES, "store": [float("nan")] * 2, "dish": [True, False]}),
        pa.table({"code": pa.array(CODES).dictionary_encode()}),
    ],
)  # fmt: skip
def test_odd_tables_of_places_are_read(told: Told, tmp_path: Path, data: bytes | pa.Table) -> None:
    # A Parquet file is known by its content, whatever it is called.
    with_places(tmp_path, data)
    code, out, err = told("run", tmp_path / "small.toml", "--threads", 1)
    assert (code in (0, 1), err) == (True, "")
    assert "3 places" in out


def test_more_rows_than_anybody_has_places_are_refused(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 1)
    with_places(tmp_path, PLACES.encode())
    refused("p.csv", 3, "sim.broken-row")


def test_what_is_no_table_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL + '[places]\nfile = "p.csv"\n')
    odd = tmp_path / "p.csv"
    for make, code in (
        (lambda: os.mkfifo(odd), "sim.not-a-file"),
        (odd.mkdir, "sim.file-unreadable"),
        (lambda: odd.symlink_to(odd), "sim.file-unreadable"),
        (lambda: None, "sim.file-unreadable"),
    ):
        make()
        refused("p.csv", 0, code)
        odd.rmdir() if odd.is_dir() else odd.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (["run.dayss=1"], "sim.unknown-key"),
        (["run.days=1,0"], "sim.out-of-bounds"),
        (["run.policy=swarm,satellite-first"], "sim.no-satellite"),
        (["run.days.x=1"], "sim.no-such-entry"),
        (["tier.hamlet.dish=1"], "sim.no-such-entry"),
        (["tier.village=3"], "sim.whole-entry"),
        (["tier.village.links.１.down=1 Mbit/s"], "sim.no-such-entry"),
        (["name=a\nb"], "sim.control-character"),
        (["extends=x.toml"], "sim.unknown-key"),
        (["run..days=1"], "sim.bad-setting"),
        ([".run=1"], "sim.bad-setting"),
        (["run.days"], "sim.bad-setting"),
        (["run.days=,"], "sim.bad-setting"),
        (["run.days=1", "run.days=2"], "sim.bad-setting"),
        ([f"a{k}={','.join('0123456789')}" for k in range(40)], "sim.too-many-runs"),
    ],
)
def test_sweep_of_nonsense_runs_nothing(
    told: Told, tmp_path: Path, settings: list[str], code: str
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    words = [word for one in settings for word in ("--set", one)]
    status, out, err = told("sweep", tmp_path / "small.toml", *words, "--out", tmp_path / "out")
    assert (status in (Fault.CONFIG.value, Fault.USAGE.value), out) == (True, "")
    assert err.endswith(f"({code})\n"), err
    assert not (tmp_path / "out").exists()


def test_list_in_brackets_is_one_value_of_a_sweep() -> None:
    assert combinations(['disks.to=["county", "village"],["county"]']) == [
        {"disks.to": '["county", "village"]'},
        {"disks.to": '["county"]'},
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = outcome(scenario(**with_everything()))
    write(made, found(made), tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        (MANIFEST, None, "sim.no-results"),
        (FIGURES, None, "sim.results-unreadable"),
        (MANIFEST, b"", "sim.results-unreadable"),
        (MANIFEST, b"[" * 100_000, "sim.results-unreadable"),
        (MANIFEST, b"\xff\xfe", "sim.results-unreadable"),
        (FIGURES, b"[]", "sim.results-unreadable"),
        (FIGURES, b"5", "sim.results-unreadable"),
        (FIGURES, b"{}", "sim.results-unreadable"),
        (FIGURES, b'{"manifest": {}', "sim.results-unreadable"),
        (PLAN, b"{", "sim.results-unreadable"),
    ],
)
def test_folder_that_is_not_whole_is_not_reported(
    told: Told, results: Path, name: str, data: bytes | None, code: str
) -> None:
    if data is None:
        (results / name).unlink()
    else:
        (results / name).write_bytes(data)
    status, out, err = told("report", results)
    assert (status, out, err.endswith(f"({code})\n")) == (Fault.USAGE.value, "", True)
    assert err.count("\n") == 1
    assert not (results / "report.html").exists()


def test_results_of_another_version_are_not_reported(told: Told, results: Path) -> None:
    manifest = msgspec.json.decode((results / MANIFEST).read_bytes())
    (results / MANIFEST).write_bytes(msgspec.json.encode(manifest | {"version": 99}))
    for command in ("report", "compare"):
        status, _out, err = told(command, results)
        assert (status, err.endswith("(sim.results-unreadable)\n")) == (Fault.USAGE.value, True)


def test_runs_of_different_scenarios_are_compared(
    told: Told, results: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    assert told("run", tmp_path / "small.toml", "--out", tmp_path / "other")[0] in (0, 1)
    status, out, err = told("compare", results, tmp_path / "other", tmp_path / "small.toml")
    assert (status, err) == (0, "")
    assert "other" in out


def test_folder_that_cannot_be_made_is_told_before_anything_runs(
    told: Told, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", Path("/proc/out")):
        status, _out, err = told("run", tmp_path / "small.toml", "--out", out)
        assert (status, err.endswith("(sim.out-unwritable)\n")) == (Fault.USAGE.value, True), err
    status, _out, err = told("run", tmp_path / "small.toml", "--out", tmp_path / ("x" * 300))
    assert (status, err.endswith("(system.enametoolong)\n")) == (Fault.SYSTEM.value, True)


def test_results_go_where_a_link_points_and_into_the_folder_where_one_stands(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", tmp_path / "link", tmp_path / "new" / ("村" * 80)):
        status, _out, err = told("run", tmp_path / "small.toml", "--out", out)
        assert (status in (0, 1), err) == (True, ""), err
        assert (Path(tmp_path / out if out != "." else tmp_path / "here") / MANIFEST).is_file()
    assert (tmp_path / "link").is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["here", "link", "new", "small.toml"]


def test_disk_that_is_full_leaves_what_was_there(results: Path) -> None:
    made = outcome(scenario(**with_everything()))
    before = {one.name: one.read_bytes() for one in results.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="large"):
            write(made, found(made), results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {one.name: one.read_bytes() for one in results.iterdir()} == before
    assert [one.name for one in results.parent.iterdir()] == ["results"]


def test_ctrl_c_leaves_no_folder(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    interrupted: list[str] = []

    def interrupt(findings: object) -> str:
        interrupted.append(type(findings).__name__)
        raise KeyboardInterrupt

    monkeypatch.setattr("cuntong_simulations.results.report.render", interrupt)
    status, _out, err = told("run", tmp_path / "small.toml", "--out", tmp_path / "out")
    assert (status, interrupted) == (130, ["Findings"])
    assert err.endswith("(usage.stopped)\n")
    made = outcome()
    monkeypatch.setattr("cuntong_simulations.results.write.encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(made, found(made), tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["small.toml"]


def test_manifest_is_what_encode_writes(results: Path) -> None:
    made = outcome(scenario(**with_everything()))
    assert (
        msgspec.json.decode(encode(found(made).manifest)).keys()
        == msgspec.json.decode((results / MANIFEST).read_bytes()).keys()
    )


def test_refusals_are_told_in_chinese(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    i18n._catalogue.cache_clear()
    (tmp_path / "small.toml").write_text(changed('"20 MB"', '"-1 GB"'))
    _status, _out, err = told("run", tmp_path / "small.toml")
    assert "第 31 行" in err


def test_other_seed_may_miss_the_publisher_that_a_scenario_names(tmp_path: Path) -> None:
    """A spread that is drawn gives a county other villages; then the sentence has no line, but it is a sentence."""
    from cuntong_simulations.model.country import build
    from cuntong_simulations.scenario.bundles import bundles_of

    text = changed('public = "open"', "spread = 1")
    path = tmp_path / "small.toml"
    path.write_text(text)
    country = build(load(path))
    last = f"{max(country.code.tolist()):012d}"
    path.write_text(changed('size = "20 MB"', f'size = "20 MB"\npublisher = "{last}"\ndeadlines.village = 1', text.replace("deadlines = { county = 1, village = \"2 d\" }\n", "")))  # fmt: skip
    read = load(path)
    for seed in range(2, 40):
        other = msgspec.structs.replace(read, run=msgspec.structs.replace(read.run, seed=seed))
        built = build(other)
        if int(last) not in built.code.tolist():
            with pytest.raises(CuntongError) as caught:
                bundles_of(other, built)
            assert caught.value.code == "sim.no-publisher"
            return
    pytest.fail("no seed spreads the villages otherwise")
