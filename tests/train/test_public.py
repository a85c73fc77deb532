"""Out to `transformers` and back in: the same logits both ways, the same bits on the way back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tumen.core import ArtifactError, DiskError, Experts, ExportError, Gqa, InputError, Mla, Shape, TrainError, Yarn, manifest_of, verify
from tumen.model import build, causal_mask, config_of, shape_of
from tumen.train import export_public, import_public, read_final, start_from
from tumen.train.checkpoint import SHAPE, WEIGHTS, write_final

CLOSE = {"atol": 1e-4, "rtol": 0.0}
LATENT = Mla(heads=4, kv_rank=16, q_rank=12, nope_dim=8, rope_dim=8, v_dim=12)
LITE = LATENT.model_copy(update={"q_rank": None})
MOE = Experts(routed=8, top_k=3, width=16, shared=2, dense_layers=1)
SHORT = {"width": 32, "layers": 3, "feed_forward": 48, "vocab": 60, "norm_eps": 1e-6, "tied": False}
YARN = Yarn(factor=4, original=16, mscale=0.8, mscale_all_dim=0.6)
SHAPES = {
    "v2": Shape(**SHORT, attention=LATENT, experts=MOE.model_copy(update={"scale": 2.5})),
    "lite": Shape(**SHORT, attention=LITE, experts=MOE),
    "latent, dense, tied": Shape(**SHORT | {"tied": True}, attention=LATENT),
    "llama": Shape(**SHORT, attention=Gqa(heads=4, kv_heads=2, head_dim=12)),
    "llama, tied": Shape(**SHORT | {"tied": True, "norm_eps": 1e-5}, attention=Gqa(heads=4, kv_heads=4, head_dim=8, rope_theta=5e5)),
}
# Shapes whose network the model room builds from the next change of its own on; until then they would be built as if without.
LATER: dict[str, Shape] = {
    "v2, device-limited": Shape(
        **SHORT, attention=LATENT, experts=MOE.model_copy(update={"scale": 16.0, "groups": 4, "device_limit": 2})
    ),
    "lite, yarn": Shape(**SHORT, attention=LITE.model_copy(update={"yarn": YARN}), experts=MOE),
}
BUILT = SHAPES  # and LATER


@pytest.fixture(scope="module")
def auto() -> Iterator[Any]:
    """`transformers.AutoModelForCausalLM`, told to stay off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TQDM_DISABLE", "1")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield transformers.AutoModelForCausalLM


def lively(shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights with which every layer matters, norms included."""
    generator = torch.Generator().manual_seed(seed)
    weights = build(shape, seed).state_dict()
    for name, weight in weights.items():
        if weight.dim() == 1:
            weight.uniform_(0.5, 1.5, generator=generator)
        else:
            weight.normal_(0, 1 if name.startswith("embed") else 1.5 * weight.shape[-1] ** -0.5, generator=generator)
    return weights


def checkpoint_of(shape: Shape, folder: Path, seed: int = 0) -> Path:
    write_final(folder, lively(shape, seed), shape, "", [], {})
    return folder


def our_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    shape, weights = read_final(folder)
    network = build(shape).eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        states, _ = network(ids, torch.arange(ids.shape[1]).expand_as(ids), causal_mask(torch.ones_like(ids)))
        return network.head(states)


def their_logits(auto: Any, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), "no weight is missing, unexpected or of another size"
    with torch.no_grad():
        return model.eval()(ids).logits


def ids_of(shape: Shape) -> torch.Tensor:
    return torch.randint(0, shape.vocab, (2, 24), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", BUILT)
def test_transformers_computes_our_logits(name: str, auto: Any, tmp_path: Path) -> None:
    shape = BUILT[name]
    export_public(checkpoint_of(shape, tmp_path / "ours"), tmp_path / "hf", shard_bytes=20_000)
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 2
    ours, ids = our_logits(tmp_path / "ours", ids_of(shape)), ids_of(shape)
    assert ours.std() > 0.5, "or equality would be cheap"
    torch.testing.assert_close(their_logits(auto, tmp_path / "hf", ids), ours, **CLOSE)


@pytest.mark.parametrize("name", BUILT)
def test_we_compute_its_logits_and_give_back_its_bits(name: str, auto: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig

    shape, ids, theirs = BUILT[name], ids_of(BUILT[name]), tmp_path / "theirs"
    torch.manual_seed(3)
    config = config_of(shape) | {"initializer_range": 0.3}
    model = auto.from_config(AutoConfig.for_model(**config)).eval()
    model.save_pretrained(theirs, max_shard_size="20KB")
    assert len(list(theirs.glob("model-*.safetensors"))) > 2
    assert import_public(theirs, tmp_path / "ours") == shape
    with torch.no_grad():
        torch.testing.assert_close(our_logits(tmp_path / "ours", ids), model(ids).logits, **CLOSE)
    export_public(tmp_path / "ours", tmp_path / "back", like=theirs)
    assert same_bits(theirs, tmp_path / "back")


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same_bits(one: Path, other: Path) -> bool:
    ours, theirs = tensors_in(one), tensors_in(other)
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )
