"""Folders and texts from elsewhere: links that leave, pipes, bombs, archives. One line each, at once."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from tumen.core.errors import ArtifactError, InputError
from tumen.core.untrusted import (
    MOST_FILES,
    MOST_NESTING,
    check_file,
    check_folder,
    parse_json,
    read_json,
    refuse_packed,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a").write_text("12345")
    (tmp_path / "in" / "deep" / "b").write_text("678")
    (tmp_path / "secret").write_text("not yours")
    return tmp_path / "in"


def refused(folder: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_folder(folder, InputError)
    assert str(caught.value).isprintable()


def test_a_good_folder_has_its_bytes(folder: Path) -> None:
    (folder / "link").symlink_to("a")
    assert check_folder(folder) == 5 + 5 + 3
    (folder.parent / "current").symlink_to(folder)
    assert check_folder(folder.parent / "current") == 13, "how one got there is nobody's business"


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/passwd", "deep/../../secret", "/", "deep/up/secret"]
)
def test_links_that_leave(folder: Path, target: str) -> None:
    (folder / "deep" / "up").symlink_to("..")
    (folder / "x").symlink_to(target)
    refused(folder, "outside of its folder|link to nowhere")


def test_a_folder_that_is_a_link_out(folder: Path) -> None:
    (folder / "y").symlink_to("..")
    refused(folder, "outside of its folder")


def test_a_circle_of_links_ends(folder: Path) -> None:
    (folder / "deep" / "round").symlink_to("..")
    assert check_folder(folder) == 8
    (folder / "self").symlink_to("self")
    refused(folder, "link to nowhere")


def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    refused(folder, "is a pipe")
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(os.path.relpath(folder / "s"))
        refused(folder, "is a socket")


def test_too_many_and_too_deep(folder: Path) -> None:
    deep = folder
    for _ in range(12):
        deep = deep / "d"
    deep.mkdir(parents=True)
    refused(folder, "folders deep")
    many = folder.parent / "many"
    many.mkdir()
    for n in range(MOST_FILES + 1):
        (many / str(n)).touch()
    refused(many, "holds more than")


def test_hostile_names_cannot_forge_a_line(folder: Path) -> None:
    (folder / "x\n\x1b[31mtumen: all is well").symlink_to("/etc/passwd")
    refused(folder, "outside of its folder")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PK\x03\x04", "zip archive"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x80\x04\x95", "pickle"),
        (b"GGUF", "is a file"),
    ],
)
def test_a_file_instead_of_a_folder(tmp_path: Path, head: bytes, says: str) -> None:
    (tmp_path / "bundle").write_bytes(head + bytes(600))
    refused(tmp_path / "bundle", says)
    refused(tmp_path / "none", "no such folder")


def test_pickle_by_name_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"anything")
    with pytest.raises(InputError, match="pickle, which runs code"):
        refuse_packed(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "Expecting value"),
        (b"[" * 200_000, "nested deeper"),
        (b"[" * 100 + b"]" * 100, "nested deeper"),
        (b'{"a":' * 50 + b"1" + b"}" * 50, "nested deeper"),
        (b"[" + b"[]," * 2_200_000 + b"[]]", "objects and lists"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"\xff", "not UTF-8"),
        (b"NaN", "no number"),
        (b"-1e400", "too large"),
        (b"1" * 10_000, "digits"),
        (b'{"a" 1}', "delimiter at byte"),
    ],
    ids=range(11),
)
def test_texts_that_are_bombs(raw: bytes, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=says):
        parse_json(raw)
    assert time.monotonic() - start < 5


def test_a_text_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is the most"):
        read_json(path, InputError)
    path.unlink()
    path.write_text('{"a": [1.5, null, "b"]}')
    assert read_json(path) == {"a": [1.5, None, "b"]}
    with pytest.raises(ArtifactError, match="23 bytes, 10 is the most"):
        read_json(path, most_bytes=10)


def test_a_name_that_no_system_takes() -> None:
    with pytest.raises(ArtifactError, match="missing"):
        check_file(Path("a\0b"))
    with pytest.raises(ArtifactError, match="missing"):
        check_file(Path("a" * 5000))


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_counted_exactly(opening: bytes, closing: bytes) -> None:
    def nested(levels: int) -> bytes:
        return opening * (levels - 1) + b"[]" + closing * (levels - 1)

    parse_json(nested(MOST_NESTING))
    with pytest.raises(ValueError, match=f"nested deeper than {MOST_NESTING}"):
        parse_json(nested(MOST_NESTING + 1))


@pytest.mark.parametrize("text", [b"5", b"null", b"[]", b"{}", b'{"a": [1, {"b": []}]}'])
def test_flat_values_are_not_nested(text: bytes) -> None:
    assert parse_json(text) == json.loads(text)
