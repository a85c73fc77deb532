"""Every hostile bundle is refused by us, in one line and at once, before a child is started; and the app goes on."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.bundles import write_bundle, write_gguf
from tests.formats.test_gguf_header import BYTES, PAIRS

from tumen.core import artifact
from tumen.core.artifact import Manifest, hash_of, payload_of
from tumen.core.errors import ArtifactError, TumenError
from tumen.language.action import HOME
from tumen.serve.runners import load_runner
from tumen.serve.runners.process import Process


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "good.gguf").read_bytes()


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "start", lambda self: pytest.fail("a child was started"))


def sealed(folder: Path, model: bytes, **about: Any) -> Path:
    """A bundle whose manifest fits: the attacker made it."""
    with artifact.writing(folder, "bundle", "test", []) as stage:
        (stage / "model.gguf").write_bytes(model)
        (stage / "values.json").write_text("{}")
        HOME.save(stage)
        (stage / "bundle.json").write_text(
            json.dumps({"recipe": "pocket", "tier": "device"} | about)
        )
    return folder


def resealed(folder: Path) -> Path:
    """The manifest of a folder as it stands, without reading what is not there."""
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    files = {
        str(path.relative_to(folder)): payload_of(path)
        for path in names
        if path.stat().st_size < 1 << 20
    }
    files |= {
        str(path.relative_to(folder)): artifact.Payload(bytes=path.stat().st_size, sha256="0" * 64)
        for path in names
        if path.stat().st_size >= 1 << 20
    }
    digest = hash_of(["bundle", {name: payload.sha256 for name, payload in files.items()}])
    manifest = Manifest(
        kind="bundle", digest=digest, inputs="x", made_by="evil", made_from=[], files=files
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder


def refused(folder: Path, says: str = "", **options: Any) -> None:
    start = time.monotonic()
    with pytest.raises(TumenError, match=says) as caught:
        load_runner(folder, **options).stop()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", BYTES)
def test_a_gguf_of_bytes_that_lie(tmp_path: Path, good: bytes, name: str) -> None:
    spoil, says = BYTES[name]
    refused(sealed(tmp_path / "b", spoil(good)), says)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", PAIRS)
def test_a_gguf_of_pairs_that_cannot_be_meant(tmp_path: Path, name: str) -> None:
    changes, says = PAIRS[name]
    refused(write_bundle(tmp_path / "b", changes=changes), says)


def _giant(folder: Path) -> None:
    os.truncate(folder / "model.gguf", 1 << 42)  # sparse: four terabytes that take no room
    resealed(folder)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a giant": (_giant, "this machine"),
    "a giant text": (
        lambda b: os.truncate(b / "values.json", 1 << 36),
        "this machine|the manifest says",
    ),
    "a giant manifest": (lambda b: os.truncate(b / "manifest.json", 1 << 36), "damaged manifest"),
    "a manifest nested deep": (
        lambda b: (b / "manifest.json").write_text("[" * 100_000),
        "damaged manifest",
    ),
    "a bundle.json nested deep": (
        lambda b: ((b / "bundle.json").write_text('{"a":' * 9_000), resealed(b)),
        "nested|no JSON",
    ),
    "a bundle.json of megabytes": (
        lambda b: ((b / "bundle.json").write_text('"' + "a" * 2_000_000), resealed(b)),
        "is the most|no JSON",
    ),
    "an ontology nested deep": (
        lambda b: ((b / "ontology.json").write_text("[" * 9_000), resealed(b)),
        "nested|no JSON",
    ),
    "an ontology of 40,000 intents": (
        lambda b: (
            (b / "ontology.json").write_text(
                json.dumps({"languages": ["en"], "intents": {f"i{n}": [] for n in range(40_000)}})
            ),
            resealed(b),
        ),
        "is the most",
    ),
    "a link for a model": (
        lambda b: ((b / "model.gguf").unlink(), (b / "model.gguf").symlink_to("/etc/passwd")),
        "outside of its folder",
    ),
    "a link of a folder": (lambda b: (b / "more").symlink_to("/"), "outside of its folder"),
    "a pipe for a model": (
        lambda b: ((b / "model.gguf").unlink(), os.mkfifo(b / "model.gguf")),
        "is a pipe",
    ),
    "a pipe for a manifest": (
        lambda b: ((b / "manifest.json").unlink(), os.mkfifo(b / "manifest.json")),
        "manifest",
    ),
    "a folder for a model": (
        lambda b: ((b / "model.gguf").unlink(), (b / "model.gguf").mkdir()),
        "missing",
    ),
    "a manifest that names what is elsewhere": (
        lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("values.json", "../../secret")
        ),
        "outside of it|missing",
    ),
    "a manifest of a name with a new line": (
        lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("values.json", "a\\nb")
        ),
        "outside of it",
    ),
    "no model": (lambda b: ((b / "model.gguf").unlink(), resealed(b)), "missing"),
}


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_trap(tmp_path: Path, good: bytes, name: str) -> None:
    folder = sealed(tmp_path / "b", good)
    change, says = FOLDERS[name]
    change(folder)
    refused(folder, says)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(("threads", "context"), [(10**9, 512), (1, 10**12)])
def test_a_bundle_that_asks_for_too_much(
    tmp_path: Path, good: bytes, threads: int, context: int
) -> None:
    refused(sealed(tmp_path / "b", good), "are the most", threads=threads, context=context)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x04\x95", b"\x1f\x8b"])
def test_an_archive_or_a_pickle_is_no_bundle(tmp_path: Path, good: bytes, head: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(head + bytes(1000))
    refused(tmp_path / "bundle.zip", "no such artifact|is a")
    refused(sealed(tmp_path / "b", head + good), "does not begin with GGUF")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 10000000000 }}",
        "{{{{{%",
    ],
)
def test_a_models_own_chat_template_is_never_run(tmp_path: Path, template: str) -> None:
    """A file may carry any: prompts are sent complete, so none is ever evaluated, and the answer comes as always."""
    start = time.monotonic()
    with load_runner(
        write_bundle(tmp_path / "b", changes={"tokenizer.chat_template": template})
    ) as runner:
        assert runner.ask("turn on").text.startswith("{")
    assert time.monotonic() - start < 5


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_real_file_is_our_error_or_an_answer(
    tmp_path_factory: Any, good: bytes, data: st.DataObject
) -> None:
    """Through the child itself: what our check lets in either answers or is a runner's error, and this process lives."""
    raw = bytearray(good)
    header = good.index(b"ffn_down.weight") + 40
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, header))
        form, value = data.draw(
            st.sampled_from(
                [("B", 255), ("B", 0), ("I", 0), ("I", (1 << 32) - 1), ("Q", 1 << 62), ("f", 1e38)]
            )
        )
        raw[at : at + struct.calcsize(form)] = struct.pack("<" + form, value)
    folder = sealed(tmp_path_factory.mktemp("damaged") / "b", bytes(raw))
    start = time.monotonic()
    try:
        with load_runner(folder) as runner:
            runner.ask("turn on")
    except TumenError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
    assert time.monotonic() - start < 5


def test_the_app_lives_on_after_all_of_them(tmp_path: Path, good: bytes, bundle: Path) -> None:
    with load_runner(bundle) as runner:
        before = runner.ask("turn on").text
        for n, (spoil, _) in enumerate(BYTES.values()):
            with pytest.raises(ArtifactError):
                load_runner(sealed(tmp_path / str(n), spoil(good)))
        assert runner.ask("turn on").text == before
