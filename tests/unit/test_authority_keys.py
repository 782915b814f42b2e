"""Key files and the key ring."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cuntong_daemon.authority.keys import (
    AuthorityError,
    KeyRing,
    key_id,
    load_key,
    new_key,
    read_label,
    write_key,
)
from tests.support.authorities import PASSPHRASE, Answers, cheap_passphrases


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passphrases(monkeypatch)


def _stick(folder: Path, *names: str, passphrase: str = PASSPHRASE) -> dict[str, str]:
    """Write keys; name -> key id."""
    folder.mkdir(exist_ok=True)
    made = {}
    for name in names:
        key = new_key()
        write_key(folder / f"{name}.pem", key, passphrase, authority="441900000000", name=name)
        made[name] = key_id(key)
    return made


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_key_comes_back_from_its_file(tmp_path: Path, kind: str) -> None:
    key = new_key(kind)  # type: ignore[arg-type]
    path = tmp_path / "root-1.pem"
    write_key(path, key, "口令 passphrase", authority="441900000000", name="root-1")
    assert key_id(load_key(path, "口令 passphrase")) == key_id(key)
    assert path.stat().st_mode & 0o777 == 0o600
    label = read_label(path)
    assert label is not None
    assert (label.authority, label.name, label.key_id) == ("441900000000", "root-1", key_id(key))


def test_openssl_reads_the_key_file(tmp_path: Path) -> None:
    _stick(tmp_path, "ca")
    command = ["openssl", "pkey", "-in", str(tmp_path / "ca.pem"), "-passin", f"pass:{PASSPHRASE}"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"BEGIN PRIVATE KEY" in done.stdout


def test_passphrase_typed_in_other_unicode_form_opens_the_stick(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    write_key(path, new_key(), "caf\u00e9 passphrase", authority="441900000000", name="ca")
    load_key(path, "cafe\u0301 passphrase")


def test_wrong_passphrase_is_said_in_one_sentence(tmp_path: Path) -> None:
    _stick(tmp_path, "ca")
    with pytest.raises(AuthorityError) as caught:
        load_key(tmp_path / "ca.pem", "wrong")
    assert caught.value.code == "keys.wrong-passphrase"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"]
)
def test_damaged_key_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(data)
    with pytest.raises(AuthorityError) as caught:
        load_key(path, "x")
    assert caught.value.code == "keys.damaged"


def test_truncated_key_file_is_refused_at_any_length(tmp_path: Path) -> None:
    _stick(tmp_path, "ca")
    whole = (tmp_path / "ca.pem").read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.pem").write_bytes(whole[:length])
        with pytest.raises(AuthorityError) as caught:
            load_key(tmp_path / "cut.pem", PASSPHRASE)
        assert caught.value.code == "keys.damaged"


def test_missing_key_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError) as caught:
        load_key(tmp_path / "ca.pem", "x")
    assert caught.value.code == "keys.unreadable"


def test_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    _stick(tmp_path, "ca")
    before = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(AuthorityError) as caught:
        _stick(tmp_path, "ca")
    assert caught.value.code == "keys.file-exists"
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_ring_finds_key_on_the_stick_that_has_it_under_any_file_name(tmp_path: Path) -> None:
    _stick(tmp_path / "a", "root-1")
    made = _stick(tmp_path / "b", "targets")
    (tmp_path / "b" / "targets.pem").rename(tmp_path / "b" / "renamed.pem")
    (tmp_path / "b" / "holiday.txt").write_text("not a key")
    (tmp_path / "b" / "other.pem").write_text("not a key either")
    ring = KeyRing([tmp_path / "a", tmp_path / "b"], Answers())
    assert key_id(ring.private_key(made["targets"], "targets")) == made["targets"]


def test_one_passphrase_opens_all_keys_of_one_stick(tmp_path: Path) -> None:
    made = _stick(tmp_path / "a", "enrolment", "ca") | _stick(tmp_path / "b", "root-2")
    answers = Answers()
    ring = KeyRing([tmp_path / "a", tmp_path / "b"], answers)
    for name, wanted in made.items():
        ring.private_key(wanted, name)
    assert len(answers.asked) == 2


def test_key_with_its_own_passphrase_on_a_shared_stick_is_asked_for(tmp_path: Path) -> None:
    made = _stick(tmp_path, "ca") | _stick(tmp_path, "targets", passphrase="another one")
    answers = Answers([PASSPHRASE, "another one"])
    ring = KeyRing([tmp_path], answers)
    ring.private_key(made["ca"], "ca")
    ring.private_key(made["targets"], "targets")
    assert len(answers.asked) == 2


def test_mistyped_passphrase_may_be_typed_again_on_a_terminal(tmp_path: Path) -> None:
    made = _stick(tmp_path, "ca")
    ring = KeyRing([tmp_path], Answers(["oops", PASSPHRASE], attempts=3))
    ring.private_key(made["ca"], "ca")
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path], Answers(["a", "b", "c"], attempts=3)).private_key(made["ca"], "ca")
    assert caught.value.code == "keys.wrong-passphrase"


def test_wrong_stick_is_said_with_the_key_that_is_missing(tmp_path: Path) -> None:
    _stick(tmp_path, "ca")
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path], Answers()).private_key("ab" * 32, "targets")
    assert caught.value.code == "keys.not-on-stick"
    assert "targets" in str(caught.value)


def test_missing_stick_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path / "nothing"], Answers())
    assert caught.value.code == "keys.no-stick"


def test_label_that_lies_about_its_key_is_refused(tmp_path: Path) -> None:
    made = _stick(tmp_path, "ca")
    path = tmp_path / "ca.pem"
    path.write_bytes(path.read_bytes().replace(made["ca"].encode(), b"0" * 64))
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path], Answers()).private_key("0" * 64, "ca")
    assert caught.value.code == "keys.damaged"


def test_quorum_takes_keys_from_different_sticks(tmp_path: Path) -> None:
    first = _stick(tmp_path / "a", "root-1", "root-4")
    second = _stick(tmp_path / "b", "root-2")
    keys = {wanted: name for name, wanted in (first | second).items()}
    ring = KeyRing([tmp_path / "a", tmp_path / "b"], Answers())
    chosen = [keys[wanted] for wanted in ring.check_quorum(keys, 2, "root")]
    assert "root-2" in chosen
    assert len(ring.quorum(keys, 2, "root")) == 2


def test_quorum_in_one_pocket_is_refused(tmp_path: Path) -> None:
    made = _stick(tmp_path, "root-1", "root-2")
    keys = {wanted: name for name, wanted in made.items()}
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path, tmp_path], Answers()).quorum(keys, 2, "root")
    assert caught.value.code == "keys.same-stick"


def test_too_few_keys_of_a_quorum_are_named_before_any_passphrase_is_asked(tmp_path: Path) -> None:
    made = _stick(tmp_path, "root-1")
    answers = Answers()
    keys = {made["root-1"]: "root-1", "cd" * 32: "root-2", "ef" * 32: "root-3"}
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path], answers).quorum(keys, 2, "root")
    assert caught.value.code == "keys.no-quorum"
    assert "root-2, root-3" in str(caught.value)
    with pytest.raises(AuthorityError) as caught:
        KeyRing([tmp_path], answers).quorum({"cd" * 32: "targets"}, 1, "targets")
    assert caught.value.code == "keys.not-on-stick"
    assert not answers.asked


def test_a_wrong_passphrase_is_never_taken_for_a_damaged_file(tmp_path: Path) -> None:
    # With CBC one in 256 wrong passphrases decrypts to garbage with right padding.
    _stick(tmp_path, "ca")
    for number in range(700):
        with pytest.raises(AuthorityError) as caught:
            load_key(tmp_path / "ca.pem", f"wrong {number}")
        assert caught.value.code == "keys.wrong-passphrase"
