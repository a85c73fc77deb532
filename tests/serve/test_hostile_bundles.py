"""Hostile bundles: each is rejected in one line, within seconds and before a child is started; the app goes on."""

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
from tumen.serve.runners.child_process import ChildProcess


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "good.gguf").read_bytes()


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChildProcess, "start", lambda self: pytest.fail("a child was started"))


def sealed(folder: Path, model: bytes, **about: Any) -> Path:
    """A bundle whose manifest matches its files, as an attacker would make it."""
    with artifact.writing(folder, "bundle", "test", []) as stage:
        (stage / "model.gguf").write_bytes(model)
        (stage / "values.json").write_text("{}")
        HOME.save(stage)
        (stage / "bundle.json").write_text(
            json.dumps({"recipe": "pocket", "tier": "device"} | about)
        )
    return folder


def reseal(folder: Path) -> Path:
    """Write the manifest of a folder as it is now, without reading its large sparse files."""
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


def rejected(folder: Path, says: str = "", **options: Any) -> None:
    start = time.monotonic()
    with pytest.raises(TumenError, match=says) as caught:
        load_runner(folder, **options).stop()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", BYTES)
def test_a_gguf_with_false_counts_or_offsets(tmp_path: Path, good: bytes, name: str) -> None:
    spoil, says = BYTES[name]
    rejected(sealed(tmp_path / "b", spoil(good)), says)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", PAIRS)
def test_a_gguf_with_impossible_metadata(tmp_path: Path, name: str) -> None:
    changes, says = PAIRS[name]
    rejected(write_bundle(tmp_path / "b", changes=changes), says)


def _make_sparse_model(folder: Path) -> None:
    os.truncate(folder / "model.gguf", 1 << 42)  # sparse: four terabytes that take no room
    reseal(folder)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a model of 4 TB": (_make_sparse_model, "this machine"),
    "a text of 64 GB": (
        lambda b: os.truncate(b / "values.json", 1 << 36),
        "this machine|the manifest says",
    ),
    "a manifest of 64 GB": (
        lambda b: os.truncate(b / "manifest.json", 1 << 36),
        "damaged manifest",
    ),
    "a manifest nested deep": (
        lambda b: (b / "manifest.json").write_text("[" * 100_000),
        "damaged manifest",
    ),
    "a bundle.json nested deep": (
        lambda b: ((b / "bundle.json").write_text('{"a":' * 9_000), reseal(b)),
        "nested|no JSON",
    ),
    "a bundle.json of megabytes": (
        lambda b: ((b / "bundle.json").write_text('"' + "a" * 2_000_000), reseal(b)),
        "is the most|no JSON",
    ),
    "an ontology nested deep": (
        lambda b: ((b / "ontology.json").write_text("[" * 9_000), reseal(b)),
        "nested|no JSON",
    ),
    "an ontology of 40,000 intents": (
        lambda b: (
            (b / "ontology.json").write_text(
                json.dumps({"languages": ["en"], "intents": {f"i{n}": [] for n in range(40_000)}})
            ),
            reseal(b),
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
    "a manifest that names a file elsewhere": (
        lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("values.json", "../../secret")
        ),
        "outside of it|missing",
    ),
    "a manifest with a line break in a name": (
        lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("values.json", "a\\nb")
        ),
        "outside of it",
    ),
    "no model": (lambda b: ((b / "model.gguf").unlink(), reseal(b)), "missing"),
}


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder(tmp_path: Path, good: bytes, name: str) -> None:
    folder = sealed(tmp_path / "b", good)
    change, says = FOLDERS[name]
    change(folder)
    rejected(folder, says)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(("threads", "context"), [(10**9, 512), (1, 10**12)])
def test_a_bundle_that_asks_for_too_many_threads_or_tokens(
    tmp_path: Path, good: bytes, threads: int, context: int
) -> None:
    rejected(sealed(tmp_path / "b", good), "the limits are", threads=threads, context=context)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x04\x95", b"\x1f\x8b"])
def test_an_archive_or_a_pickle_is_not_a_bundle(tmp_path: Path, good: bytes, head: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(head + bytes(1000))
    rejected(tmp_path / "bundle.zip", "no such artifact|is a")
    rejected(sealed(tmp_path / "b", head + good), "does not begin with GGUF")


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
def test_the_chat_template_of_a_model_is_never_run(tmp_path: Path, template: str) -> None:
    """Prompts are sent complete, so a template is never evaluated and the answer is as usual."""
    start = time.monotonic()
    with load_runner(
        write_bundle(tmp_path / "b", changes={"tokenizer.chat_template": template})
    ) as runner:
        assert runner.ask("turn on").text.startswith("{")
    assert time.monotonic() - start < 5


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_ours_or_an_answer(
    tmp_path_factory: Any, good: bytes, data: st.DataObject
) -> None:
    """Through the child itself: a file that passes our check gives an answer or a `RunnerError`; this process survives."""
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


def test_the_app_goes_on_after_all_of_them(tmp_path: Path, good: bytes, bundle: Path) -> None:
    with load_runner(bundle) as runner:
        before = runner.ask("turn on").text
        for n, (spoil, _) in enumerate(BYTES.values()):
            with pytest.raises(ArtifactError):
                load_runner(sealed(tmp_path / str(n), spoil(good)))
        assert runner.ask("turn on").text == before
