"""Devices are data with sources; what is predicted for them stays near what was published; this machine is learned from trials."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tumen.core.errors import PlanError
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.fit.device import (
    Device,
    decode_seconds,
    device_of,
    devices,
    load_device,
    prompt_seconds,
    store_device,
)
from tumen.fit.footprint import Footprint
from tumen.fit.footprint import of_shape as footprint_of_shape
from tumen.fit.pace import Trial, device_here
from tumen.fit.verdict import fit_on

WANTED = ("speaker", "phone-4gb", "phone-8gb", "phone-16gb", "car", "robot", "laptop")
TABLE: dict[str, dict[str, Any]] = tomllib.loads(
    resources.files("tumen.fit").joinpath("devices.toml").read_text("utf-8")
)
LLAMA_1B = Shape(
    hidden_size=2048,
    num_hidden_layers=16,
    intermediate_size=8192,
    vocab_size=128_256,
    attention=Gqa(num_attention_heads=32, num_key_value_heads=8),
)
TINYLLAMA = Shape(
    hidden_size=2048,
    num_hidden_layers=22,
    intermediate_size=5632,
    vocab_size=32_000,
    tie_word_embeddings=False,
    attention=Gqa(num_attention_heads=32, num_key_value_heads=4),
)
SMOLLM = Shape(
    hidden_size=576,
    num_hidden_layers=30,
    intermediate_size=1536,
    vocab_size=49_152,
    attention=Gqa(num_attention_heads=9, num_key_value_heads=3),
)
MODELS = {1.24e9: LLAMA_1B, 1.10e9: TINYLLAMA, 0.135e9: SMOLLM}


def gqa(width: int, layers: int, inner: int, vocab: int = 1024) -> Shape:
    return Shape(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        vocab_size=vocab,
        attention=Gqa(num_attention_heads=width // 64, num_key_value_heads=1),
    )


def test_the_devices_people_ask_for_are_there() -> None:
    assert tuple(devices()) == WANTED


@pytest.mark.parametrize("name", WANTED)
def test_figures_are_possible(name: str) -> None:
    device = devices()[name]
    assert device.source
    assert device.assumptions
    assert device.npu
    assert 0 < device.left_bytes < device.memory_bytes
    assert device.memory_rate < 1e9 * TABLE[name]["memory_gb_s"]
    assert list(device.paces) == list(range(1, device.cores + 1))
    for pace in device.paces.values():
        assert all(pace.far[kind] <= pace.near[kind] for kind in pace.near)
    model = footprint_of_shape(SMOLLM, "int8", "smollm")
    rates = [fit_on(model, device, threads).tokens_per_second for threads in device.paces]
    assert rates == sorted(rates)


@pytest.mark.parametrize("name", [name for name in WANTED if "seen" in TABLE[name]])
def test_predictions_are_near_published_runs(name: str) -> None:
    seen = TABLE[name]["seen"]
    model = footprint_of_shape(MODELS[seen["parameters"]], seen["quantize"], name)
    assert model.parameters == pytest.approx(seen["parameters"], rel=0.02)
    assert 1 / decode_seconds(model, devices()[name], seen["threads"], 64) == pytest.approx(
        seen["tokens_per_second"], rel=0.35
    )
    if "prompt_tokens_per_second" in seen:
        rate = 512 / prompt_seconds(model, devices()[name], seen["threads"], 512)
        assert rate == pytest.approx(seen["prompt_tokens_per_second"], rel=0.35)


def test_long_names_are_the_same_device() -> None:
    assert device_of("POCO-F5") == device_of("phone-8gb")
    with pytest.raises(PlanError, match="did you mean phone-8gb"):
        device_of("phone8")
    with pytest.raises(PlanError, match=r"add it to fit/devices.toml with a source\. Known: "):
        device_of("zzzz")


def test_a_device_has_only_so_many_threads() -> None:
    with pytest.raises(PlanError, match="--threads 9: speaker is known with 1, 2, 3, 4 threads"):
        fit_on(footprint_of_shape(SMOLLM, "int8", "smollm"), device_of("speaker"), 9)


def trials_of(device: Device) -> Iterator[Trial]:
    """What a machine that behaves as `device` would give."""
    mla = Mla(
        num_attention_heads=2,
        kv_lora_rank=64,
        q_lora_rank=128,
        qk_nope_head_dim=48,
        qk_rope_head_dim=16,
        v_head_dim=64,
    )
    mixture = Experts(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=128)
    shapes = [gqa(64, 2, 128), gqa(64, 24, 128), gqa(64, 2, 128, 65_536), gqa(512, 2, 512)]
    shapes += [
        Shape(
            hidden_size=128,
            num_hidden_layers=8,
            intermediate_size=256,
            vocab_size=1024,
            attention=mla,
            experts=experts,
        )
        for experts in (None, mixture)
    ]
    asked = [(shape, "int8", 512) for shape in shapes] + [(gqa(512, 2, 512), "int8", 2048)]
    asked += [(gqa(512, 3, 1536), kind, 512) for kind in ("int8", "int4", "bf16")]
    asked += [(gqa(1024, 12, 3072), kind, 512) for kind in ("int8", "int4", "bf16")]
    for shape, kind, context in asked:
        model = footprint_of_shape(shape, kind, "trial")
        for threads in (1, 2):
            told = fit_on(model, device, threads, context)
            seconds = (
                decode_seconds(model, device, threads, 0),
                prompt_seconds(model, device, threads, 24),
            )
            yield Trial(model, threads, context, 24, *seconds, told.peak_bytes, 1.0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Device, Device]:
    """A device, and what is learned from trials of it with a cache of the same size."""
    with pytest.MonkeyPatch.context() as patch:
        real = devices()["phone-8gb"]
        patch.setattr("tumen.fit.pace.cache_size", lambda: real.cache_bytes)
        found = device_here(list(trials_of(real)))
    path = tmp_path_factory.mktemp("here") / "device.json"
    store_device(found, path)
    return real, load_device(path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("quantize", ["int8", "int4", "bf16"])
@pytest.mark.parametrize("shape", [SMOLLM, gqa(256, 3, 512, 3072)], ids=["large", "small"])
def test_this_machine_is_learnt_from_trials(
    learned: tuple[Device, Device], shape: Shape, quantize: str, threads: int
) -> None:
    real, found = learned
    model = footprint_of_shape(shape, quantize, "unseen")
    told, true = fit_on(model, found, threads), fit_on(model, real, threads)
    assert told.tokens_per_second == pytest.approx(true.tokens_per_second, rel=0.15)
    assert told.peak_bytes == pytest.approx(true.peak_bytes, rel=0.03)


def test_a_machine_that_was_not_measured(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="tumen fit --calibrate"):
        load_device(tmp_path / "device.json")
    (tmp_path / "device.json").write_text('{"name": "here"}')
    with pytest.raises(PlanError, match="no measured device"):
        load_device(tmp_path / "device.json")


def peak(model: Footprint, device: Device, context: int = 512) -> float:
    return fit_on(model, device, 1, context).peak_bytes


def test_what_makes_a_model_larger() -> None:
    phone, model = device_of("phone-4gb"), footprint_of_shape(LLAMA_1B, "int8", "llama")
    assert peak(model, phone, 2048) > peak(model, phone)
    assert peak(model.but(layers=8), phone) < peak(model, phone)
    assert model.but(quantize="int4").file_bytes < model.file_bytes
    assert (
        model.but(layers=8).parameters
        == footprint_of_shape(
            LLAMA_1B.model_copy(update={"num_hidden_layers": 8}), "int8", "x"
        ).parameters
    )


def test_a_small_model_stays_in_the_cache() -> None:
    phone = device_of("phone-16gb")
    assert (
        fit_on(footprint_of_shape(gqa(256, 3, 512, 3072), "int8", "pocket"), phone).from_memory == 0
    )
    assert fit_on(footprint_of_shape(LLAMA_1B, "int8", "llama"), phone).from_memory == 1


@pytest.mark.parametrize("limit", [3e8, 6e8, 1.2e9])
def test_cuts_are_kept(limit: float) -> None:
    model, phone = footprint_of_shape(LLAMA_1B, "bf16", "llama"), device_of("phone-8gb")
    told = fit_on(model, phone, 4, 4096, limit)
    assert not told.fits
    for cut in told.cuts:
        assert cut.fits == (cut.peak_bytes <= limit)
        assert cut.peak_bytes < told.peak_bytes
        assert cut.tokens_per_second >= told.tokens_per_second
    layered = [cut for cut in told.cuts if cut.what.startswith("layers")]
    assert all(cut.fits for cut in layered)
    assert any(cut.fits for cut in told.cuts) or limit < 4e8


def test_experts_without_an_architecture_are_refused() -> None:
    shape = LLAMA_1B.model_copy(
        update={
            "experts": Experts(n_routed_experts=4, num_experts_per_tok=1, moe_intermediate_size=64)
        }
    )
    with pytest.raises(PlanError, match="mla"):
        footprint_of_shape(shape, "int8", "odd")
