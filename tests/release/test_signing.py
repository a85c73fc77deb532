"""Whose bundles are let in: keys, signatures, and all the ways in which a signed bundle is not what was signed."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tumen.core.artifact import add_facts, manifest_of, writing
from tumen.core.errors import ArtifactError, DiskError, InputError
from tumen.core.events import Events
from tumen.release.signing import (
    Signature,
    check_trust,
    generate_keys,
    read_signature,
    read_trust_store,
    sign,
)

QUIET = Events(None)


def make_bundle(folder: Path, text: str = "weights") -> Path:
    with writing(folder, "bundle", "x", ["parent"], {"agreement": 1.0}) as stage:
        (stage / "model.gguf").write_text(text)
        (stage / "bundle.json").write_text("{}")
    with writing(folder / "scorecard", "scorecard", "x", []) as stage:
        (stage / "scorecard.json").write_text('{"exact": 0.9}')
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_keys(tmp_path / "keys" / "release", "release")
    return tmp_path / "keys" / "release"


@pytest.fixture
def store(key: Path) -> Path:
    return key.with_name("release.pub")


@pytest.fixture
def bundle(tmp_path: Path, key: Path) -> Path:
    folder = make_bundle(tmp_path / "bundle")
    sign(folder, key, version=5)
    return folder


def refused(bundle: Path, store: Path, says: str) -> None:
    with pytest.raises(ArtifactError, match=says) as caught:
        check_trust(bundle, store, QUIET)
    assert "\n" not in str(caught.value)


class TestKeys:
    def test_the_private_one_is_its_owners_alone(self, key: Path, store: Path) -> None:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert b"PRIVATE" in key.read_bytes()
        assert b"PRIVATE" not in store.read_bytes()

    @pytest.mark.parametrize("there", ["release", "release.pub"])
    def test_nothing_is_written_over(self, tmp_path: Path, there: str) -> None:
        (tmp_path / there).write_text("dear")
        with pytest.raises(InputError, match="is there already"):
            generate_keys(tmp_path / "release", "x")
        assert [path.name for path in tmp_path.iterdir()] == [there]
        assert (tmp_path / there).read_text() == "dear"

    def test_full_disk_leaves_nothing(self, small_disk: Path) -> None:
        with pytest.raises(OSError, match="No space"), open(small_disk / "full", "wb", 0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(DiskError):
            generate_keys(small_disk / "release", "x")
        assert [path.name for path in small_disk.iterdir()] == ["full"]

    def test_a_key_that_others_can_read_signs_nothing(self, bundle: Path, key: Path) -> None:
        key.chmod(0o640)
        with pytest.raises(InputError, match="chmod 600"):
            sign(bundle, key)

    @pytest.mark.parametrize(
        "text", ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_what_is_no_key(self, bundle: Path, tmp_path: Path, text: str) -> None:
        path = tmp_path / "none"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(InputError, match="no private key"):
            sign(bundle, path)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "name"),
            ("[", "no public key"),
            ('name = "x"\nkey = "AAAA"\n', "no Ed25519 public key"),
            ('name = "x"\nkey = "AAAA"\nrevokd = "x"\n', "revokd"),
            ('name = "x"\nkey = 3\n', "key"),
            ("a = " + "[" * 10_000, "no public key"),
        ],
    )
    def test_a_store_of_something_else(self, tmp_path: Path, text: str, says: str) -> None:
        (tmp_path / "a.pub").write_text(text)
        for where in (tmp_path, tmp_path / "a.pub"):
            with pytest.raises(InputError, match=says) as caught:
                read_trust_store(where)
            assert "\n" not in str(caught.value)

    def test_an_empty_store_trusts_nobody_and_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no \.pub file"):
            read_trust_store(tmp_path)
        with pytest.raises(InputError, match="missing"):
            read_trust_store(tmp_path / "nowhere")


class TestAdmit:
    def test_what_is_signed_comes_in_and_keeps_its_digest(
        self, tmp_path: Path, bundle: Path, store: Path
    ) -> None:
        signature = check_trust(bundle, store, QUIET)
        assert signature is not None
        assert (signature.version, signature.digest) == (
            5,
            manifest_of(make_bundle(tmp_path / "other")).digest,
        )
        assert check_trust(bundle, store.parent, QUIET) == signature, "a folder of keys does too"

    def test_without_a_store_it_comes_in_and_events_say_so_once(self, tmp_path: Path) -> None:
        bundle, events = make_bundle(tmp_path / "bundle"), Events(tmp_path / "events.jsonl")
        for _ in range(3):
            assert check_trust(bundle, None, events) is None
        (row,) = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        assert (row["event"], row["digest"]) == ("bundle_unsigned", manifest_of(bundle).digest)

    def test_the_environment_names_a_store(
        self, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TUMEN_TRUST", str(store))
        with pytest.raises(ArtifactError, match="is not signed"):
            check_trust(make_bundle(tmp_path / "unsigned"), None, QUIET)
        assert check_trust(tmp_path / "unsigned", "own", QUIET) is None, (
            "a run loads what it has just made"
        )

    def test_unsigned(self, bundle: Path, store: Path) -> None:
        (bundle / "signature.json").unlink()
        refused(bundle, store, "is not signed")

    def test_by_a_stranger(self, bundle: Path, tmp_path: Path, store: Path) -> None:
        generate_keys(tmp_path / "stranger", "release")
        sign(bundle, tmp_path / "stranger")
        refused(bundle, store, "which is not in")

    def test_by_a_stranger_who_names_our_key(
        self, bundle: Path, tmp_path: Path, store: Path
    ) -> None:
        ours = read_signature(bundle)
        generate_keys(tmp_path / "stranger", "release")
        theirs = sign(bundle, tmp_path / "stranger", 5)
        assert ours is not None
        (bundle / "signature.json").write_text(
            theirs.model_copy(update={"key": ours.key}).model_dump_json()
        )
        refused(bundle, store, "was not made by 'release'")

    def test_a_revoked_key(self, bundle: Path, store: Path) -> None:
        store.write_text(store.read_text() + 'revoked = "2026-11-27, laptop stolen"\n')
        refused(bundle, store, "revoked: 2026-11-27, laptop stolen")

    def test_an_older_version_than_the_store_takes(self, bundle: Path, store: Path) -> None:
        text = store.read_text()
        store.write_text(text + "least_version = 6\n")
        refused(bundle, store, "is version 5; .* takes 6 and later")
        store.write_text(text + "least_version = 5\n")
        check_trust(bundle, store, QUIET)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("version", 6),
            ("signed_at", "2030-01-01T00:00:00Z"),
            ("digest", "0" * 16),
            ("manifest", "0" * 64),
            ("scorecard", None),
        ],
    )
    def test_a_signature_with_another_field(
        self, bundle: Path, store: Path, field: str, value: object
    ) -> None:
        path = bundle / "signature.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
        refused(bundle, store, "was not made by 'release'")

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", '{"key": 1}', "[" * 100_000, '{"key": "' + "a" * 20_000 + '"}'],
    )
    def test_a_signature_that_is_none(self, bundle: Path, store: Path, text: str) -> None:
        (bundle / "signature.json").write_text(text)
        refused(bundle, store, r"signature\.json: ")

    @pytest.mark.parametrize(
        "text", ["", "AAAA", "not base64!", base64.b64encode(bytes(64)).decode(), "\u00e9"]
    )
    def test_a_signature_of_other_bytes(self, bundle: Path, store: Path, text: str) -> None:
        path = bundle / "signature.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": text}))
        refused(bundle, store, "was not made by 'release'")

    def test_another_signature_of_the_same_key(
        self, bundle: Path, tmp_path: Path, key: Path, store: Path
    ) -> None:
        other = make_bundle(tmp_path / "other", "other weights")
        sign(other, key, 7)
        os.replace(other / "signature.json", bundle / "signature.json")
        refused(bundle, store, "its manifest was changed after the signing")


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "facts": (lambda b: add_facts(b, {"agreement": 0.5}), "manifest was changed"),
    "a new bundle under the old signature": (
        lambda b: (b / "signature.json").write_bytes(
            _keep(b / "signature.json", lambda: make_bundle(b, "evil"))
        ),
        "manifest was changed",
    ),
    "a better scorecard": (lambda b: _card(b, '{"exact": 1.0}'), "scorecard was changed"),
    "no scorecard": (
        lambda b: (b / "scorecard").rename(b.parent / "card"),
        "scorecard was changed",
    ),
    "a file more": (
        lambda b: (b / "draft.gguf").write_text("x"),
        "'draft.gguf' is in it and was not signed",
    ),
    "a file more in the scorecard": (
        lambda b: (b / "scorecard" / "x").write_text("x"),
        "'scorecard/x' is in it",
    ),
    "a hidden file": (lambda b: (b / ".x").write_text("x"), "'.x' is in it"),
    "a file in a folder": (
        lambda b: ((b / "d").mkdir(), (b / "d" / "x").write_text("x")),
        "'d/x' is in it",
    ),
    "a link out": (lambda b: (b / "x").symlink_to("/etc/passwd"), "outside of its folder"),
    "a link within": (lambda b: (b / "x").symlink_to("model.gguf"), "'x' is in it"),
}


def _keep(path: Path, act: Callable[[], Any]) -> bytes:
    raw = path.read_bytes()
    act()
    return raw


def _card(bundle: Path, text: str) -> None:
    with writing(bundle / "scorecard", "scorecard", "x", []) as stage:
        (stage / "scorecard.json").write_text(text)


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_after_the_signing(bundle: Path, store: Path, name: str) -> None:
    change, says = CHANGES[name]
    change(bundle)
    refused(bundle, store, says)


def test_sign_refuses_a_bundle_that_is_damaged(bundle: Path, key: Path) -> None:
    (bundle / "model.gguf").write_text("weightz")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        sign(bundle, key)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_signature_is_taken(bundle: Path, store: Path, data: st.DataObject) -> None:
    path, good = bundle / "signature.json", read_signature(bundle)
    assert good is not None
    raw = bytearray(good.model_dump_json(indent=1).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw))
    try:
        taken = check_trust(bundle, store, QUIET)
    except ArtifactError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
    else:
        assert isinstance(taken, Signature)
        assert taken.message() == good.message(), "only what means the same is taken"
    path.write_text(good.model_dump_json(indent=1))
