"""Adapters: they begin as nothing, learn alone, resume exactly, and are what base and adapter are together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.shrink.test_gguf import SHAPES
from tests.strangers import lively
from tests.train.test_loop import KilledError, kill_at

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError, TrainError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import write_dataset, write_tokenizer
from tumen.formats.pretrained import digest_of_start, shape_of_start
from tumen.model import causal_mask
from tumen.recipe import InitFrom, Train
from tumen.recipe import Tokenizer as Section
from tumen.recipe.field_types import LINEAR
from tumen.train import Making, Method, fit
from tumen.train.weights import (
    Adapter,
    export_public,
    is_adapter,
    merged,
    read_adapter,
    read_final,
    start_from,
)
from tumen.train.weights.initial import read_start
from tumen.train.weights.lora import adapted, build_of, write_merged

IDS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def section() -> Train:
    return Train(
        steps=6,
        batch_size=4,
        seq_len=192,
        learning_rate=1e-2,
        sentence_weight=0.0,
        precision="fp32",
        compile=False,
        checkpoint_every=2,
        threads=1,
    )


@pytest.fixture(scope="module")
def foreign(stranger: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the stranger's tokens."""
    folder = tmp_path_factory.mktemp("foreign")
    write_tokenizer(Section(init_from=str(stranger)), corpus, folder / "tokenizer", "x")
    write_dataset(corpus, folder / "tokenizer", folder / "dataset", "x")
    return folder / "dataset"


@pytest.fixture(scope="module")
def start(stranger: Path) -> InitFrom:
    return InitFrom(path=str(stranger), tune="lora", rank=4, alpha=8)


def tuned(
    section: Train, start: InitFrom, dataset: Path, out: Path, events: Events | None = None
) -> Path:
    path = Path(start.path)
    adapter = Adapter(start=start, digest=digest_of_start(path))
    shape = shape_of_start(path)
    fit(
        section,
        shape,
        dataset,
        out,
        method=Method(start=start_from(path, shape), adapter=adapter),
        making=Making(seed=3, inputs="in", events=events),
    )
    return out


@pytest.fixture(scope="module")
def trained(section: Train, start: InitFrom, foreign: Path) -> Path:
    return tuned(section, start, foreign, foreign.with_name("lora"))


def states_of(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        states, *_ = network.eval()(
            IDS, torch.arange(IDS.shape[1])[None], causal_mask(torch.ones_like(IDS))
        )
    return states


@pytest.mark.parametrize("name", SHAPES)
def test_begins_as_the_base_and_learns_as_what_is_merged(name: str) -> None:
    shape = SHAPES[name].model_copy(update={"vocab_size": 40})
    weights = lively(shape)
    network = adapted(shape, weights, InitFrom(path="x", rank=4, alpha=8), torch.float32, 0)
    assert torch.equal(states_of(network), states_of(build_of(shape, weights)))
    learned = {
        key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad
    }
    assert {key.rpartition(".")[2] for key in learned} == {"lora_a", "lora_b"}
    assert not any("router" in key or "kv_up" in key or "embed" in key for key in learned)
    for key, parameter in learned.items():
        torch.nn.init.normal_(parameter, 0, 0.1, generator=torch.Generator().manual_seed(len(key)))
    whole = build_of(
        shape, merged(weights, {key: parameter.detach() for key, parameter in learned.items()}, 2.0)
    )
    torch.testing.assert_close(states_of(network), states_of(whole), atol=1e-4, rtol=1e-4)


def test_only_named_matrices_learn() -> None:
    shape = SHAPES["llama"].model_copy(update={"vocab_size": 40})
    network = adapted(
        shape, lively(shape), InitFrom(path="x", target_modules=("q", "down")), torch.float32, 0
    )
    assert {key.split(".")[-2] for key, one in network.named_parameters() if one.requires_grad} == {
        "q",
        "down",
    }
    with pytest.raises(TrainError, match=r"the network has none of q_down"):
        adapted(
            shape, lively(shape), InitFrom(path="x", target_modules=("q_down",)), torch.float32, 0
        )
    assert "kv_up" not in LINEAR


def test_the_artifact_holds_the_adapter_alone(
    trained: Path, stranger: Path, start: InitFrom
) -> None:
    manifest = verify(trained, "checkpoint")
    assert sorted(manifest.files) == ["adapter.json", "adapter.safetensors", "shape.json"]
    shape, adapter, tensors = read_adapter(trained)
    assert (shape, adapter.start, adapter.digest) == (
        shape_of_start(stranger),
        start,
        digest_of_start(stranger),
    )
    assert manifest.facts["adapter_parameters"] == sum(
        tensor.numel() for tensor in tensors.values()
    )
    assert str(stranger.parent) not in (trained / "adapter.json").read_text(), (
        "where the base lies changes no digest"
    )
    assert is_adapter(trained)
    assert all(
        float(tensor.abs().max()) > 0 for name, tensor in tensors.items() if name.endswith("lora_b")
    )


def test_read_final_is_base_and_adapter(trained: Path, stranger: Path, tmp_path: Path) -> None:
    shape, weights = read_final(trained)
    _, base = read_start(stranger)
    _, adapter, tensors = read_adapter(trained)
    name = "blocks.1.attention.q"
    change = adapter.scale * tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]
    torch.testing.assert_close(weights[f"{name}.weight"], base[f"{name}.weight"] + change)
    assert torch.equal(weights["embed.weight"], base["embed.weight"])
    _, whole = read_final(write_merged(trained, tmp_path / "whole"))
    assert all(torch.equal(whole[key], weight) for key, weight in weights.items())
    export_public(trained, tmp_path / "hf")
    assert torch.equal(read_start(tmp_path / "hf")[1][f"{name}.weight"], weights[f"{name}.weight"])
    assert read_start(tmp_path / "hf")[0] == shape


def test_learns(section: Train, start: InitFrom, foreign: Path, tmp_path: Path) -> None:
    seen = Events(None)
    tuned(section.model_copy(update={"steps": 30}), start, foreign, tmp_path / "x", seen)
    losses = [row["loss"] for row in seen.seen if row["event"] == "step"]
    assert losses[-1] < losses[0] - 1


def test_killed_and_resumed_ends_in_the_same_bits(
    section: Train,
    start: InitFrom,
    foreign: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KilledError):
            tuned(section, start, foreign, tmp_path / "x")
    kept = sorted((tmp_path / ".x.work").glob("step-*/*.safetensors"))
    with safe_open(kept[-1], "pt") as file:
        names = list(file.keys())  # safe_open is no dict
    assert {name.rpartition(".")[2] for name in names} == {"lora_a", "lora_b"}, "no base in it"
    resumed = Events(None)
    tuned(section, start, foreign, tmp_path / "x", resumed)
    assert any(row["event"] == "resumed" for row in resumed.seen)
    assert manifest_of(tmp_path / "x").digest == manifest_of(trained).digest


class TestRefused:
    def test_another_base(self, trained: Path, tmp_path: Path, stranger: Path) -> None:
        import json
        import shutil

        copy = Path(shutil.copytree(trained, tmp_path / "lora"))
        base = tmp_path / "model.gguf"
        base.write_bytes(stranger.read_bytes()[:-1] + b"\x11")
        tree = json.loads((copy / "manifest.json").read_text())
        tree["facts"]["base"] = str(base)
        (copy / "manifest.json").write_text(json.dumps(tree))
        with pytest.raises(TrainError, match="is not the model the adapter was trained on"):
            read_final(copy)

    def test_a_whole_checkpoint(self, device: Path) -> None:
        with pytest.raises(ArtifactError, match="is a whole checkpoint, no adapter"):
            read_adapter(device)

    def test_many_ranks(
        self,
        section: Train,
        start: InitFrom,
        foreign: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from tumen.train import loop
        from tumen.train.world import World

        spread = section.model_copy(update={"mesh": section.mesh.model_copy(update={"dp": 2})})
        shape: Shape = shape_of_start(Path(start.path))
        adapter = Adapter(start=start, digest="")
        with pytest.raises(TrainError, match="an adapter trains in one process"):
            loop.trainer_of(
                spread,
                shape,
                World(0, 2, torch.device("cpu")),
                0,
                loop.Method(adapter=adapter, start={}),
            )
