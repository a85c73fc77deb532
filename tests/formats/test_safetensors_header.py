"""Hostile safetensors headers: what a file of weights may not claim. Each is refused in one line, before the library sees it."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tumen.core.errors import ArtifactError, InputError
from tumen.formats.safetensors_header import check

TENSORS = {
    "embed": np.arange(12, dtype="f4").reshape(3, 4),
    "norm": np.ones(4, "f2"),
    "scalar": np.array(3, "i8"),
}
GOOD = save(TENSORS, {"format": "pt"})
LENGTH = struct.unpack("<Q", GOOD[:8])[0]
HEADER: dict[str, Any] = json.loads(GOOD[8 : 8 + LENGTH])
DATA = GOOD[8 + LENGTH :]


def whole(header: Any, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(name: str, **fields: Any) -> bytes:
    return whole(HEADER | {name: HEADER[name] | fields})


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("../../etc/passwd", "x")
    return held.getvalue()


def test_good_files_pass(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(GOOD)
    found = check(tmp_path / "w")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "embed": ("F32", (3, 4)), "norm": ("F16", (4,)), "scalar": ("I64", ()),
    }  # fmt: skip
    (tmp_path / "empty").write_bytes(save({"none": np.zeros((0, 4), "f4")}))
    assert check(tmp_path / "empty")["none"].shape == (0, 4)


OVERLAP = HEADER | {"norm": HEADER["embed"]}
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cut short at 0 bytes"),
    "cut in the length": (GOOD[:7], "cut short at 7"),
    "only a length": (GOOD[:8], "claims"),
    "cut in the header": (GOOD[:40], "claims"),
    "last byte missing": (GOOD[:-1], "the file has"),
    "a byte too many": (GOOD + b"x", "the file has"),
    "header length 2^63": (struct.pack("<Q", 1 << 63) + GOOD[8:], "claims"),
    "header length 0": (struct.pack("<Q", 0) + GOOD[8:], "claims 0 bytes"),
    "header one byte less": (
        struct.pack("<Q", LENGTH - 1) + GOOD[8:],
        "is no|the file has|JSON|Expecting|delimiter",
    ),
    "a gguf": (b"GGUF" + bytes(100), "claims"),
    "a pickle": (b"\x80\x04\x95" + bytes(100), "pickle, which runs code"),
    "a zip": (zipped(), "zip archive"),
    "a tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "a gzip": (b"\x1f\x8b" + bytes(100), "gzip archive"),
    "no object": (whole(b"[]"), "no object"),
    "no JSON": (whole(b"{nonsense}"), "Expecting"),
    "not UTF-8": (whole(b'{"\xff": 1}'), "not UTF-8"),
    "nested deep": (whole(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested deeper"),
    "nested a little": (whole(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}"), "nested deeper"),
    "a name twice": (
        whole(
            json.dumps(HEADER)[:-1].encode()
            + b', "norm": '
            + json.dumps(HEADER["norm"]).encode()
            + b"}"
        ),
        "twice",
    ),
    "a number of 5,000 digits": (
        changed("norm")[:0] + whole(b'{"a": ' + b"9" * 5000 + b"}"),
        "digits",
    ),
    "1e999": (whole(b'{"a": 1e999}'), "too large a number"),
    "NaN": (whole(b'{"a": NaN}'), "no number"),
    "metadata of numbers": (whole(HEADER | {"__metadata__": {"a": 1}}), "no object of texts"),
    "metadata a list": (whole(HEADER | {"__metadata__": []}), "no object of texts"),
    "dtype unknown": (changed("norm", dtype="Q4_K"), "type 'Q4_K'"),
    "dtype a list": (changed("norm", dtype=["F32"]), "has the type"),
    "dtype wider than the bytes": (
        changed("norm", dtype="F32"),
        "needs 16 bytes, its offsets leave 8",
    ),
    "shape another": (changed("norm", shape=[5]), "needs 10 bytes"),
    "shape negative": (changed("norm", shape=[-2, -2]), "has the shape"),
    "shape true": (changed("norm", shape=[True, 4]), "has the shape"),
    "shape 1.5": (changed("norm", shape=[1.5]), "has the shape"),
    "shape overflows to the same": (changed("norm", shape=[1 << 33, 1 << 31, 4]), "needs"),
    "shape of 9 dims": (changed("norm", shape=[4] + [1] * 8), "has the shape"),
    "shape text": (changed("norm", shape="4"), "has the shape"),
    "offsets backwards": (
        changed("norm", data_offsets=HEADER["norm"]["data_offsets"][::-1]),
        "offsets leave -8",
    ),
    "offsets negative": (changed("norm", data_offsets=[-8, 0]), "has the offsets"),
    "offsets three": (changed("norm", data_offsets=[0, 8, 16]), "has the offsets"),
    "offsets past the end": (
        changed("norm", data_offsets=[1 << 40, (1 << 40) + 8]),
        "begins at byte",
    ),
    "overlap": (whole(OVERLAP), "begins at byte"),
    "a hole": (
        whole({name: row for name, row in HEADER.items() if name != "embed"}),
        "begins at byte|the file has",
    ),
    "a field more": (changed("norm", code="import os"), "has not dtype"),
    "a field less": (whole(HEADER | {"norm": {"dtype": "F16", "shape": [4]}}), "has not dtype"),
    "a tensor that is none": (whole(HEADER | {"norm": 3}), "has not dtype"),
    "a name with a new line": (whole({**HEADER, "a\nb": HEADER["norm"]}), "no name of a tensor"),
    "a name too long": (whole({**HEADER, "a" * 600: HEADER["norm"]}), "no name of a tensor"),
    "no name": (whole({**HEADER, "": HEADER["norm"]}), "no name of a tensor"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_lies_is_refused(tmp_path: Path, name: str) -> None:
    raw, says = BAD[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(InputError, match=says) as caught:
        check(path, InputError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert peak < 8 << 20  # nothing was allocated on the file's word


def test_a_giant_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 1 << 30) + b"{")
        file.truncate((1 << 30) + 100)  # sparse: it takes no room
    with pytest.raises(ArtifactError, match="is the most"):
        check(path)


def test_what_cannot_be_opened_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "is a pipe"), (".", "is a folder"), ("none", "missing")):
        with pytest.raises(ArtifactError, match=says):
            check(tmp_path / name)


Spoil = Callable[[bytearray, st.DataObject], None]


def outcome(path: Path) -> bool:
    """Whether our check lets a file in; if so, the library must agree, for only then it is asked."""
    try:
        ours = check(path)
    except ArtifactError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
        return False
    try:
        with safe_open(path, framework="np") as file:
            assert set(file.keys()) == set(ours)
    except SafetensorError as error:
        pytest.fail(f"we let in what the library refuses: {error}")
    return True


@settings(max_examples=300)
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(tmp_path_factory: Any, data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        noise = data.draw(
            st.binary(min_size=1, max_size=9)
            | st.sampled_from([b"}", b"]", b",", b"-1", b"[[", b'"', b"9" * 20])
        )
        raw[at : at + data.draw(st.sampled_from([0, len(noise)]))] = noise
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(bytes(raw))
    outcome(path)


@settings(max_examples=200)
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "U8", "F4", "I64"]),
                "shape": st.lists(st.integers(0, 4), max_size=3),
                "data_offsets": st.lists(st.integers(0, 32), min_size=2, max_size=2),
            }
        ),
        max_size=3,
    ),
    data_bytes=st.integers(0, 32),
)
def test_any_header_is_judged_as_the_library_does_or_harder(
    tmp_path_factory: Any, header: Any, data_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "made.safetensors"
    path.write_bytes(whole(header, bytes(data_bytes)))
    outcome(path)
