"""ExecuTorch out: a tier as one `.pte` for phones, by delegate (docs.pytorch.org/executorch, 1.5).

    model.pte    forward(tokens (1, T) int64, start (1,) int64) -> logits after the last token (1, vocabulary) fp32
    pte.json     {context, vocab, begin, end, quantise, delegate}

The keys and values of `context` tokens are buffers of the program: `start` says how many tokens it has read, so start = 0 begins
anew. XNNPACK is run here by the Python runtime and held against torch. Qualcomm's and MediaTek's delegates compile with the
vendor's SDK, which nobody here has: that path is written to the documentation and has not been run.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core import Experts, ExportError, Gqa, Shape, disk
from tumen.model import MixtureOfExperts, Transformer
from tumen.shrink.executorch_quantise import WholeNumberEmbedding, whole_numbers

DELEGATES = {"xnnpack": "executorch", "qualcomm": "QNN_SDK_ROOT", "mediatek": "mtk_converter"}  # name -> what it needs
LONGEST_PROMPT = 128  # tokens of one call; a longer prompt is read in pieces


class StaticCache(nn.Module):
    """Keys and values of one layer at their places, with the interface of `tumen.model.Cache`."""

    def __init__(self, first: tuple[int, int], second: tuple[int, int], context: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(1, first[0], context, first[1]))
        self.register_buffer("second", torch.zeros(1, second[0], context, second[1]))
        self.places: Tensor | None = None

    def extend(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Put T tokens at `places` and return all places; the mask hides those that hold nothing yet."""
        self.first.index_copy_(2, self.places, first)
        self.second.index_copy_(2, self.places, second)
        return self.first, self.second


class EveryExpert(nn.Module):
    """A mixture whose experts all run, weighted by 0 where not chosen: no shape depends on what the router says.

    It costs routed / top_k times the arithmetic, so it is for mixtures of few experts; the result is the same.
    """

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.mixture = mixture
        self.experts = nn.ModuleList(
            nn.ModuleList(_matrix(part[e].T) for part in (mixture.gate, mixture.up, mixture.down)) for e in range(mixture.shape.routed)
        )
        self.shared = mixture.shared
        del mixture.gate, mixture.up, mixture.down, mixture.shared

    def forward(self, x: Tensor) -> Tensor:
        """x (1, T, D) -> (1, T, D)."""
        rows = x.flatten(0, 1)
        choice = self.mixture.route(rows)
        weights = torch.zeros_like(choice.affinity).scatter(1, choice.expert, choice.weight)  # (T, E)
        out = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        for e, (gate, up, down) in enumerate(self.experts):
            out = out + weights[:, e : e + 1] * down(F.silu(gate(rows)) * up(rows))
        return out.view_as(x)


def _matrix(weight: Tensor) -> nn.Linear:
    """A linear layer around a weight (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    return layer


class Steps(nn.Module):
    """A network that reads tokens at their places: what becomes the program."""

    def __init__(self, network: Transformer, context: int) -> None:
        super().__init__()
        shape = network.shape
        self.embed = network.embed
        self.head = _matrix(network.head(torch.eye(shape.width)).T)
        for block in network.every_block():
            if isinstance(block.feed, MixtureOfExperts):
                block.feed = EveryExpert(block.feed)
        network.embed = network.output = None
        self.network = network
        self.caches = nn.ModuleList(StaticCache(*_kept(shape), context) for _ in range(shape.layers))
        self.register_buffer("keys", torch.arange(context))

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Tokens (1, T) after `start` (1,) others -> logits (1, vocabulary) after the last."""
        places = start + torch.arange(tokens.shape[1])
        for cache in self.caches:
            cache.places = places
        mask = torch.where(self.keys.unsqueeze(0) <= places.unsqueeze(1), 0.0, float("-inf"))[None, None]
        states, *_ = self.network(self.embed(tokens), places.unsqueeze(0), mask, list(self.caches))
        return self.head(states[:, -1])


def _kept(shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """(heads, features) of both parts of a cache."""
    attention = shape.attention
    if isinstance(attention, Gqa):
        return (attention.kv_heads, attention.head_dim), (attention.kv_heads, attention.head_dim)
    return (1, attention.kv_rank), (1, attention.rope_dim)


def write_pte(
    path: Path, network: Transformer, quantise: str = "int8", context: int = 512, delegate: str = "xnnpack", soc: str = ""
) -> None:
    """Write one program.

    Args:
        network: in evaluation mode; it is taken apart, do not use it after.
        quantise: int8 (weights per row, activations per token as they come) or bf16 (nothing is quantised: fp32 weights).
        soc: the chip, for qualcomm (SM8650) and mediatek (mt6989).

    Raises:
        ExportError: ExecuTorch or the vendor's SDK is missing, or it cannot be exported.
    """
    lower = lowering(delegate, soc)
    if quantise not in ("int8", "bf16"):
        raise ExportError(f"ExecuTorch: quantise {quantise!r} is not written; take int8 or bf16")
    steps = Steps(network.eval(), context).eval()
    if quantise == "int8":
        whole_numbers(steps)
    length = torch.export.Dim("length", min=1, max=min(LONGEST_PROMPT, context) - 1)
    example = (torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        program = torch.export.export(steps, example, dynamic_shapes=({1: length}, None), strict=False)
    with disk(path):
        path.write_bytes(lower(program).buffer)


def lowering(delegate: str, soc: str) -> Callable[[Any], Any]:
    """How an exported program becomes an ExecuTorch program on a delegate.

    Raises:
        ExportError: unknown, or what it needs is missing.
    """
    if delegate not in DELEGATES:
        raise ExportError(f"delegate {delegate!r} is unknown; known: {', '.join(DELEGATES)}")
    _module("executorch.exir", "pip install 'tumen[executorch]'")
    return {"xnnpack": lambda _: _xnnpack, "qualcomm": _qualcomm, "mediatek": _mediatek}[delegate](soc)


def _module(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"ExecuTorch: {error.name or name} is missing; {remedy}") from None


def _xnnpack(program: Any) -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
