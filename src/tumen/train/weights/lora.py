"""Low-rank adapters (LoRA, arXiv 2106.09685): y = W x + alpha / r B A x; only A and B are trained.

    adapter.safetensors   blocks.0.attention.q.lora_a (r, inner), .lora_b (outer, r), ...
    adapter.json          rank and alpha; the base by its digest and the layers and rows taken from
    it
                          (its path is a fact of the manifest)

The base is in no gradient, optimizer or checkpoint. B begins as zero, so the first step computes
what the base computes.
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
# Matrices without an adapter: one chooses experts, the other is read in parts while decoding.
KEPT = ("router", "kv_up")


class Adapter(Frozen):
    """What an adapter belongs to.

    Attributes:
        start: the recipe's section about the base.
        digest: of the base.
        rows: the base's tokens that the tier has; None: all.
    """

    start: InitFrom
    digest: str
    rows: tuple[EmbeddingRow, ...] | None = None

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.start.alpha / self.start.rank

    def base(self, shape: Shape) -> dict[str, Tensor]:
        """Read the weights of the base.

        Raises:
            TrainError: it is not the model that the adapter was trained on.
        """
        path = Path(self.start.path)
        if digest_of_start(path) != self.digest:
            raise TrainError(
                f"{path}: is not the model the adapter was trained on; "
                "bring that one back, or train again"
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
        """Input (..., inner), output (..., outer)."""
        low = F.linear(x, self.lora_a)  # (..., rank)
        return F.linear(x, self.weight) + F.linear(low, self.lora_b) * self.scale


def adapted(
    shape: Shape, weights: Mapping[str, Tensor], start: InitFrom, dtype: torch.dtype, seed: int
) -> Transformer:
    """A network of given weights, frozen in `dtype`, with fresh fp32 adapters.

    Raises:
        TrainError: the network has none of the adapter's matrices.
    """
    network = build_of(shape, weights).requires_grad_(False).to(dtype)
    found = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and _has_adapter(name, start):
            found.append(name)
    if not found:
        raise TrainError(
            f"init_from.target_modules: the network has none of {', '.join(start.target_modules)}"
        )
    for name in found:
        above, _, leaf = name.rpartition(".")
        frozen: Any = network.get_submodule(name)
        size = torch.Size((start.rank, frozen.in_features))
        a = fresh(shape, f"{name}.lora_a", size, seed)
        # B A = 0 at first: training starts from the base itself.
        b = torch.zeros(frozen.out_features, start.rank)
        matrix = Adapted(frozen, start.alpha / start.rank, a, b)
        setattr(network.get_submodule(above), leaf, matrix)
    return network


def build_of(shape: Shape, weights: Mapping[str, Tensor]) -> Transformer:
    """A network with given weights; no fresh ones are made first."""
    with torch.device("meta"):
        network = Transformer(shape)
    network.load_state_dict(dict(weights), assign=True)
    return network


def _has_adapter(name: str, start: InitFrom) -> bool:
    leaf = name.rpartition(".")[2]
    named = leaf in start.target_modules and leaf not in KEPT
    return named and name.startswith("blocks.")


def merged(
    weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Merge an adapter into its base: W + scale B A."""
    whole = dict(weights)
    for name, a in adapter.items():
        if name.endswith(".lora_a"):
            matrix = name.removesuffix(".lora_a")
            b = adapter[f"{matrix}.lora_b"]
            weight = f"{matrix}.weight"
            whole[weight] = whole[weight] + scale * b @ a
    return whole


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    shape: Shape,
    about: Adapter,
    inputs: str,
    *,
    made_from: Sequence[str],
    facts: dict[str, Any],
) -> None:
    """Write the trained adapter as an artifact."""
    facts["adapter_parameters"] = sum(tensor.numel() for tensor in tensors.values())
    facts["base"] = about.start.path
    # The file has the base's name alone: its folder differs between machines.
    name = Path(about.start.path).name
    start = about.start.model_copy(update={"path": name})
    named = about.model_copy(update={"start": start})
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(folder, "checkpoint", inputs, made_from, facts) as stage:
        save_file(held, stage / WEIGHTS)
        (stage / ABOUT).write_text(named.model_dump_json(indent=1))
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint is an adapter, which needs its base."""
    return (folder / ABOUT).is_file()


def read_adapter(folder: Path) -> tuple[Shape, Adapter, dict[str, Tensor]]:
    """Read the base's shape, what the adapter belongs to, and its matrices.

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
    """Read shape and fp32 weights of a trained tier; an adapter is merged into its base.

    Raises:
        ArtifactError: missing, damaged, or weights that do not fit the shape.
        TrainError: an adapter whose base has changed.
    """
    if not is_adapter(folder):
        return read_whole(folder)
    shape, about, tensors = read_adapter(folder)
    return shape, merged(about.base(shape), tensors, about.scale)


def write_merged(folder: Path, out: Path) -> Path:
    """Write an adapter merged into its base as a whole checkpoint artifact; return `out`."""
    shape, weights = read_final(folder)
    manifest = manifest_of(folder)
    write_final(out, weights, shape, manifest.inputs, [manifest.digest], {"merged": str(folder)})
    return out
