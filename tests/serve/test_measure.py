"""Synthetic models: what is counted from a shape is what stands in the file, it runs, and limits hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tumen.core.errors import MissingExtra, RunnerError
from tumen.core.events import Events
from tumen.core.shape import Experts, Shape
from tumen.fit.device import Device
from tumen.fit.footprint import TensorSize
from tumen.fit.footprint import of_header as footprint_of_header
from tumen.fit.footprint import of_shape as footprint_of_shape
from tumen.fit.pace import device_here
from tumen.fit.verdict import fit_on
from tumen.formats.ggml_types import BY_NUMBER
from tumen.formats.gguf_header import check as header_of
from tumen.language.action import HOME
from tumen.serve import measure_model, write_synthetic_gguf
from tumen.serve.measure import BEGIN, shape_of
from tumen.serve.runners import DeviceRunner
from tumen.serve.runners.child_process import ChildProcess

EXPERTS = Experts(
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_shared_experts=1,
    moe_intermediate_size=64,
    first_k_dense_replace=1,
)
SHAPES = {
    "gqa": shape_of(128, 2, 256),
    "mla": shape_of(128, 2, 256, mla=True),
    "mla, experts": shape_of(128, 2, 256, mla=True, experts=EXPERTS),
}


@pytest.mark.parametrize("kind", ["int8", "int4", "bf16", "Q4_1"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_counted_as_its_file(name: str, kind: str, tmp_path: Path) -> None:
    path = write_synthetic_gguf(tmp_path / "m.gguf", SHAPES[name], kind)
    header, told = header_of(path), footprint_of_shape(SHAPES[name], kind, name)
    tensors = [
        TensorSize(one.name, one.dims, BY_NUMBER[one.kind].name) for one in header.tensors.values()
    ]
    seen = footprint_of_header(header.pairs, tensors, path.stat().st_size, name)
    assert seen.tensors == told.tensors
    assert {n: one.bytes for n, one in header.tensors.items()} == {
        one.name: one.bytes for one in told.tensors
    }
    assert (seen.share, seen.mla, seen.cache_elements) == (
        told.share,
        told.mla,
        told.cache_elements,
    )
    assert told.file_bytes == pytest.approx(seen.file_bytes, rel=0.03)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """This machine, as far as memory goes."""
    folder, trials = tmp_path_factory.mktemp("trials"), []
    asked: list[tuple[Shape, str, int]] = [
        (shape_of(64, 2, 128), "int8", 512),
        (shape_of(64, 2, 128, vocab=32_768), "int8", 512),
    ]
    asked += [
        (shape_of(512, 2, 512), "int8", 2048),
        (shape_of(512, 6, 1536), "int8", 512),
        (shape_of(512, 6, 1536), "int4", 512),
    ]
    for shape, kind, context in asked:
        model = footprint_of_shape(shape, kind, "trial")
        trials.append(
            measure_model(
                write_synthetic_gguf(folder / "m.gguf", shape, kind),
                model,
                1,
                context,
                rounds=1,
                seconds=0,
            )
        )
    return device_here(trials)


def longest(path: Path, memory: float, threads: int = 1) -> tuple[int, int]:
    """The longest sentence a runner with a limit has room for: tokens it wrote, and threads of its process."""
    process = ChildProcess("limited", path, threads, 512, memory=int(memory))
    process.start()
    with DeviceRunner(process, HOME, Events(None)) as runner:
        done = runner.complete([BEGIN, *[300] * 480], max_tokens=4)
        return done.completion_tokens, len(list(Path(f"/proc/{runner.pid}/task").iterdir()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_gguf(
        tmp_path_factory.mktemp("model") / "m.gguf", shape_of(768, 6, 2048, vocab=4096), "int4"
    )


def told(here: Device) -> float:
    return fit_on(
        footprint_of_shape(shape_of(768, 6, 2048, vocab=4096), "int4", "unseen"), here, 1, 512
    ).peak_bytes


def test_what_is_predicted_is_enough(here: Device, model: Path) -> None:
    assert longest(model, 1.1 * told(here))[0] == 4


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_clearly_less_is_one_line(here: Device, model: Path, share: float) -> None:
    limit = share * told(here)
    with pytest.raises(RunnerError, match="`tumen fit` says what it needs") as caught:
        longest(model, limit)
    assert f"its memory limit is {limit / 1e6:.0f} MB" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_threads_are_as_many_as_asked(model: Path) -> None:
    one, two = (longest(model, 0, threads)[1] for threads in (1, 2))
    assert 1 <= two - one <= 2  # llama.cpp's, and where numpy is in the child its own


def test_without_gguf_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tumen\[fit\]'"):
        write_synthetic_gguf(tmp_path / "m.gguf", SHAPES["gqa"], "int8")
