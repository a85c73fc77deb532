"""Low-rank adapters (LoRA, arXiv 2106.09685): W stays, A and B beside it learn, y = W x + alpha / r B A x.

    adapter.safetensors   blocks.0.attention.q.lora_a (r, inner), blocks.0.attention.q.lora_b (outer, r), ...
    adapter.json          rank and alpha; the base by its digest, and what of it was taken (where it was is a fact of the manifest)

The base is in no gradient, optimiser or checkpoint. B begins as zero, so the first step sees the base itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tumen.core.artifact import manifest_of, verify, writing
from tumen.core.errors import ArtifactError, TrainError
from tumen.core.shape import Frozen, Shape
from tumen.data.tokenizer import EmbeddingRow
from tumen.formats import digest_of_start
from tumen.model import Transformer, fresh
from tumen.recipe import InitFrom
from tumen.train.checkpoints.checkpoint import SHAPE, load_tensors, read_whole, write_final
from tumen.train.weights.initial import start_from

WEIGHTS = "adapter.safetensors"
ABOUT = "adapter.json"
KEPT = ("router", "kv_up")  # one chooses experts, the other is read in parts while decoding


class Adapter(Frozen):
    """What an adapter belongs to. `rows` are the base's tokens that the tier has; None: all."""

    start: InitFrom
    digest: str
    rows: tuple[EmbeddingRow, ...] | None = None

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.start.alpha / self.start.rank

    def base(self, shape: Shape) -> dict[str, Tensor]:
        """Weights of the base.

        Raises:
            TrainError: it is not what the adapter was trained on.
        """
        path = Path(self.start.path)
        if digest_of_start(path) != self.digest:
            raise TrainError(
                f"{path}: is not the model the adapter was trained on; bring that one back, or train again"
            )
        return start_from(path, shape, self.start.layers, self.rows)


class Adapted(nn.Linear):
    """A frozen matrix with an adapter beside it."""

    def __init__(self, frozen: nn.Linear, scale: float, a: Tensor, b: Tensor) -> None:
        super().__init__(frozen.in_features, frozen.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(frozen.weight.detach(), requires_grad=False)
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(b)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return (
            F.linear(x, self.weight) + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale
        )


def adapted(
    shape: Shape, weights: Mapping[str, Tensor], start: InitFrom, dtype: torch.dtype, seed: int
) -> Transformer:
    """A network of given weights, frozen in `dtype`, with fresh fp32 adapters.

    Raises:
        TrainError: none of the matrices the adapter names is there.
    """
    network = build_of(shape, weights).requires_grad_(False).to(dtype)
    found = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and _is_meant(name, start)
    ]
    if not found:
        raise TrainError(
            f"init_from.target_modules: the network has none of {', '.join(start.target_modules)}"
        )
    for name in found:
        above, _, leaf = name.rpartition(".")
        frozen: Any = network.get_submodule(name)
        a = fresh(shape, f"{name}.lora_a", torch.Size((start.rank, frozen.in_features)), seed)
        b = torch.zeros(frozen.out_features, start.rank)
        setattr(network.get_submodule(above), leaf, Adapted(frozen, start.alpha / start.rank, a, b))
    return network


def build_of(shape: Shape, weights: Mapping[str, Tensor]) -> Transformer:
    """A network that holds given weights, without fresh ones first."""
    with torch.device("meta"):
        network = Transformer(shape)
    network.load_state_dict(dict(weights), assign=True)
    return network


def _is_meant(name: str, start: InitFrom) -> bool:
    leaf = name.rpartition(".")[2]
    return name.startswith("blocks.") and leaf in start.target_modules and leaf not in KEPT


def merged(
    weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """The weights that base and adapter are together."""
    whole = dict(weights)
    for name, a in adapter.items():
        if name.endswith(".lora_a"):
            matrix = name.removesuffix(".lora_a")
            whole[f"{matrix}.weight"] = (
                whole[f"{matrix}.weight"] + scale * adapter[f"{matrix}.lora_b"] @ a
            )
    return whole


def write_adapter(
    folder: Path, tensors: Mapping[str, Tensor], shape: Shape, about: Adapter, inputs: str,
    made_from: Sequence[str], facts: dict[str, Any],
) -> None:  # fmt: skip
    """The trained adapter as an artifact."""
    facts |= {
        "adapter_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "base": about.start.path,
    }
    named = about.model_copy(
        update={"start": about.start.model_copy(update={"path": Path(about.start.path).name})}
    )
    with writing(folder, "checkpoint", inputs, made_from, facts) as stage:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            stage / WEIGHTS,
        )
        (stage / ABOUT).write_text(named.model_dump_json(indent=1))
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint is an adapter beside a base."""
    return (folder / ABOUT).is_file()


def read_adapter(folder: Path) -> tuple[Shape, Adapter, dict[str, Tensor]]:
    """Shape of the base, what the adapter belongs to, and its matrices.

    Raises:
        ArtifactError: missing or damaged.
    """
    manifest = verify(folder, "checkpoint")
    if not is_adapter(folder):
        raise ArtifactError(f"{folder}: is a whole checkpoint, no adapter")
    shape = Shape.model_validate_json((folder / SHAPE).read_text())
    about = Adapter.model_validate_json((folder / ABOUT).read_text())
    start = about.start.model_copy(update={"path": manifest.facts["base"]})
    return shape, about.model_copy(update={"start": start}), load_tensors(folder / WEIGHTS)


def read_final(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Shape and fp32 weights of a trained tier; those of an adapter are merged with its base.

    Raises:
        ArtifactError: missing, damaged, or weights that do not fit the shape.
        TrainError: an adapter whose base is another by now.
    """
    if not is_adapter(folder):
        return read_whole(folder)
    shape, about, tensors = read_adapter(folder)
    return shape, merged(about.base(shape), tensors, about.scale)


def write_merged(folder: Path, out: Path) -> Path:
    """An adapter and its base as one whole checkpoint artifact; returns `out`."""
    shape, weights = read_final(folder)
    manifest = manifest_of(folder)
    write_final(out, weights, shape, manifest.inputs, [manifest.digest], {"merged": str(folder)})
    return out
