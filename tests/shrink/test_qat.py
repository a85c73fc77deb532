"""Training with the types: what it sees is what is shipped, it helps, and a kill costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tumen.core.artifact import verify
from tumen.core.events import Events
from tumen.data import read_shards
from tumen.recipe import Quantize, Recipe, Train
from tumen.shrink import BundleInputs, pack
from tumen.shrink.gguf_writer import read_weights
from tumen.shrink.quantize import train_quantized, write_types
from tumen.shrink.quantize.allocation import read_types
from tumen.shrink.quantize.divergence import Reference, some_batches
from tumen.shrink.quantize.qat import FakeQuantize
from tumen.shrink.quantize.tensors import Places
from tumen.train import Making
from tumen.train.weights import read_final

ABOUT = {"recipe": "tiny", "tier": "device", "serve": {}, "gate": {}}
ASKED = Quantize(type="q4_0", calibrate=40, qat=True, steps=24, learning_rate=3e-4)
EVERY = 16  # steps between checkpoints


@pytest.fixture(scope="module")
def section(recipe: Recipe) -> Train:
    return ASKED.section(recipe.family["device"].train).model_copy(
        update={"checkpoint_every": EVERY, "precision": "fp32"}
    )


@pytest.fixture(scope="module")
def types(device: Path, tokenizer: Path, dataset: Path) -> Path:
    folder = device.with_name("device-quant")
    write_types(
        device, tokenizer, dataset, ASKED, "tiny-device", folder, making=Making(seed=3, inputs="in")
    )
    return folder


def train_on(
    section: Train, device: Path, types: Path, dataset: Path, out: Path, teach: float = 1.0
) -> Path:
    train_quantized(
        section,
        teach,
        device,
        types,
        dataset,
        out,
        making=Making(seed=3, inputs="in", made_from=[], events=Events(None)),
    )
    return out


@pytest.fixture(scope="module")
def retrained(section: Train, device: Path, types: Path, dataset: Path) -> Path:
    return train_on(section, device, types, dataset, device.with_name("device-qat"))


@pytest.mark.parametrize("tier", ["device", "cloud"])
def test_what_is_seen_is_what_is_written_to_the_bit(
    tier: str,
    request: pytest.FixtureRequest,
    tokenizer: Path,
    dataset: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    checkpoint = request.getfixturevalue(tier)
    write_types(
        checkpoint,
        tokenizer,
        dataset,
        ASKED,
        "t",
        tmp_path / "quant",
        making=Making(seed=3, inputs="in"),
    )
    pack(
        BundleInputs(checkpoint, tokenizer, corpus, tmp_path / "quant"),
        "q4_0",
        ABOUT,
        tmp_path / "bundle",
        "in",
    )
    shape, weights = read_final(checkpoint)
    seen = FakeQuantize(shape, weights, read_types(tmp_path / "quant"))(weights)
    shipped = Places(shape, weights).back(weights, read_weights(tmp_path / "bundle" / "model.gguf"))
    assert all(torch.equal(seen[name], shipped[name]) for name in weights)
    assert any(not torch.equal(seen[name], weights[name]) for name in weights)


def test_the_validated_network_computed_with_the_shipped_weights(
    retrained: Path, types: Path, dataset: Path, section: Train
) -> None:
    """The loss in the checkpoint's facts is that of the weights that are packed, not that of the fp32 ones behind them."""
    from tumen.core.shape import Shape
    from tumen.train.loop import trainer_of, validate
    from tumen.train.world import join

    shape, weights = read_final(retrained)
    shipped = FakeQuantize(shape, weights, read_types(types))(weights)

    def loss_of(held: dict[str, torch.Tensor], of: Shape) -> float:
        trainer = trainer_of(section, of, join(1), 0)
        trainer.network.load_state_dict(held)  # type: ignore[attr-defined]
        return round(validate(trainer, read_shards(dataset / "validation"), section, 3), 6)

    assert (
        verify(retrained, "checkpoint").facts["validation_loss"]
        == loss_of(shipped, shape)
        != loss_of(weights, shape)
    )


def test_training_with_the_types_comes_nearer_to_the_whole_model(
    section: Train, sure: Path, tokenizer: Path, dataset: Path, tmp_path: Path
) -> None:
    write_types(
        sure, tokenizer, dataset, ASKED, "t", tmp_path / "quant", making=Making(seed=3, inputs="in")
    )
    retrained = train_on(
        section.model_copy(update={"steps": 60}),
        sure,
        tmp_path / "quant",
        dataset,
        tmp_path / "retrained",
    )
    shape, weights = read_final(sure)
    seen = FakeQuantize(shape, weights, read_types(tmp_path / "quant"))
    reference = Reference(shape, weights, some_batches(dataset / "validation", 60, 0))

    def divergence(checkpoint: Path) -> float:
        return float(reference.divergence(seen(read_final(checkpoint)[1])).mean())

    assert divergence(retrained) < 0.7 * divergence(sure)


def test_killed_and_gone_on_it_ends_in_the_same_bits(
    retrained: Path,
    section: Train,
    device: Path,
    types: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    whole = FakeQuantize.__call__

    def dying(self: FakeQuantize, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == EVERY + 4:
            raise KeyboardInterrupt
        return whole(self, weights)

    out = tmp_path / retrained.name
    with monkeypatch.context() as patch:
        patch.setattr(FakeQuantize, "__call__", dying)
        with pytest.raises(KeyboardInterrupt):
            train_on(section, device, types, dataset, out)
    assert not out.exists()
    assert (tmp_path / f".{out.name}.work" / f"step-{EVERY:06d}").is_dir()
    train_on(section, device, types, dataset, out)
    assert verify(out).digest == verify(retrained).digest


def test_the_data_alone_can_teach(
    section: Train, device: Path, types: Path, dataset: Path, tmp_path: Path
) -> None:
    out = train_on(
        section.model_copy(update={"steps": 4}),
        device,
        types,
        dataset,
        tmp_path / "plain",
        teach=0.0,
    )
    assert verify(out, "checkpoint").facts["validation_loss"] > 0
