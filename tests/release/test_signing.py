"""Signatures: which bundles a device accepts, and every way in which a bundle is not what was signed."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tumen.core.artifact import add_facts, manifest_of, writing
from tumen.core.errors import ArtifactError
from tumen.core.events import Events
from tumen.release.keys import generate_keys
from tumen.release.signing import Signature, check_trust, read_signature, sign

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


def rejected(bundle: Path, store: Path, says: str) -> None:
    with pytest.raises(ArtifactError, match=says) as caught:
        check_trust(bundle, store, QUIET)
    assert "\n" not in str(caught.value)


class TestTrust:
    def test_a_signed_bundle_is_accepted_and_keeps_its_digest(
        self, tmp_path: Path, bundle: Path, store: Path
    ) -> None:
        signature = check_trust(bundle, store, QUIET)
        assert signature is not None
        assert (signature.version, signature.digest) == (
            5,
            manifest_of(make_bundle(tmp_path / "other")).digest,
        )
        assert check_trust(bundle, store.parent, QUIET) == signature, "a folder of keys does too"

    def test_without_a_store_a_bundle_is_accepted_and_recorded_once(self, tmp_path: Path) -> None:
        bundle, events = make_bundle(tmp_path / "bundle"), Events(tmp_path / "events.jsonl")
        for _ in range(3):
            assert check_trust(bundle, None, events) is None
        (row,) = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        assert (row["event"], row["digest"]) == ("bundle_unsigned", manifest_of(bundle).digest)

    def test_the_environment_may_name_the_store(
        self, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TUMEN_TRUST", str(store))
        with pytest.raises(ArtifactError, match="is not signed"):
            check_trust(make_bundle(tmp_path / "unsigned"), None, QUIET)
        assert check_trust(tmp_path / "unsigned", "own", QUIET) is None, (
            "a run loads what it has just made"
        )

    def test_an_unsigned_bundle_is_rejected(self, bundle: Path, store: Path) -> None:
        (bundle / "signature.json").unlink()
        rejected(bundle, store, "is not signed")

    def test_a_signature_by_an_unknown_key_is_rejected(
        self, bundle: Path, tmp_path: Path, store: Path
    ) -> None:
        generate_keys(tmp_path / "stranger", "release")
        sign(bundle, tmp_path / "stranger")
        rejected(bundle, store, "which is not in")

    def test_a_signature_by_another_key_under_our_name_is_rejected(
        self, bundle: Path, tmp_path: Path, store: Path
    ) -> None:
        ours = read_signature(bundle)
        generate_keys(tmp_path / "stranger", "release")
        theirs = sign(bundle, tmp_path / "stranger", 5)
        assert ours is not None
        (bundle / "signature.json").write_text(
            theirs.model_copy(update={"key": ours.key}).model_dump_json()
        )
        rejected(bundle, store, "was not made by it")

    def test_a_signature_by_a_revoked_key_is_rejected(self, bundle: Path, store: Path) -> None:
        store.write_text(store.read_text() + 'revoked = "2026-11-27, laptop stolen"\n')
        rejected(bundle, store, "revoked: 2026-11-27, laptop stolen")

    def test_a_version_below_the_stores_minimum_is_rejected(
        self, bundle: Path, store: Path
    ) -> None:
        text = store.read_text()
        store.write_text(text + "least_version = 6\n")
        rejected(bundle, store, "is version 5; .* accepts 6 and later")
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
    def test_a_signature_with_a_changed_field_is_rejected(
        self, bundle: Path, store: Path, field: str, value: object
    ) -> None:
        path = bundle / "signature.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
        rejected(bundle, store, "was not made by it")

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", '{"key": 1}', "[" * 100_000, '{"key": "' + "a" * 20_000 + '"}'],
    )
    def test_a_file_that_is_not_a_signature_is_rejected(
        self, bundle: Path, store: Path, text: str
    ) -> None:
        (bundle / "signature.json").write_text(text)
        rejected(bundle, store, r"signature\.json: ")

    @pytest.mark.parametrize(
        "text", ["", "AAAA", "not base64!", base64.b64encode(bytes(64)).decode(), "\u00e9"]
    )
    def test_a_signature_with_other_bytes_is_rejected(
        self, bundle: Path, store: Path, text: str
    ) -> None:
        path = bundle / "signature.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": text}))
        rejected(bundle, store, "was not made by it")

    def test_the_signature_of_another_bundle_is_rejected(
        self, bundle: Path, tmp_path: Path, key: Path, store: Path
    ) -> None:
        other = make_bundle(tmp_path / "other", "other weights")
        sign(other, key, 7)
        os.replace(other / "signature.json", bundle / "signature.json")
        rejected(bundle, store, "its manifest was changed after the signing")


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
def test_a_bundle_changed_after_the_signing_is_rejected(
    bundle: Path, store: Path, name: str
) -> None:
    change, says = CHANGES[name]
    change(bundle)
    rejected(bundle, store, says)


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path) -> None:
    (bundle / "model.gguf").write_text("weightz")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        sign(bundle, key)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_signature_is_accepted(bundle: Path, store: Path, data: st.DataObject) -> None:
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
