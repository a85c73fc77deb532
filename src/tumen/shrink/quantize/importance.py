"""Importance of each weight's error: the second moment of its inputs (as llama.cpp's imatrix).

y = W x, so an error E of W costs |E x|^2: on average the sum over columns of E_c^2 mean(x_c^2),
when columns are independent. Hooks on the network measure the moments on sentences of the training
shards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.data import Batch
from tumen.model import MixtureOfExperts, Transformer, causal_mask
from tumen.shrink.gguf_writer import tensors_of

# Least importance, of the mean: a column without input here may have some elsewhere.
LEAST = 1e-3


class Moments:
    """Sums of squares by parameter, in the parameter's own layout.

    Use it as a context around forward passes. `real` marks the rows that are no padding.
    """

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.real = torch.ones(1, dtype=torch.bool)
        self._hooks: list[Any] = []

    def __enter__(self) -> Moments:
        for name, module in self.network.named_modules():
            before: Any = None
            if isinstance(module, MixtureOfExperts):
                before = self._mixture(name)
            elif isinstance(module, nn.Linear) and ".router" not in name:
                before = self._matrix(f"{name}.weight")
            if before:
                self._hooks.append(module.register_forward_pre_hook(before))
            if name.endswith("attention.q_up"):
                after = self._queries(name.removesuffix(".q_up"))
                self._hooks.append(module.register_forward_hook(after))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def add(self, name: str, rows: Tensor) -> None:
        """Add rows (N, columns) that a matrix was multiplied with."""
        before = self.sums.get(name, torch.zeros(rows.shape[-1]))
        self.sums[name] = before + rows.square().sum(dim=0)
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def mean(self, name: str) -> Tensor | None:
        """Mean squares (columns,), scaled to 1 on average; None where no row was seen."""
        if not self.counts.get(name):
            return None
        mean = self.sums[name] / self.counts[name]
        scaled = mean / mean.mean().clamp(min=1e-30)
        return scaled.clamp(min=LEAST)

    def _matrix(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].flatten(0, -2)  # (B T, columns)
            # Some modules get the real rows alone, without padding.
            every_token = len(rows) == len(self.real)
            self.add(name, rows[self.real] if every_token else rows)

        return look

    def _queries(self, name: str) -> Any:
        """The inputs of the keys' up-projection as the file has it.

        There it is absorbed into the query, so its inputs are each head's features without
        position.
        """

        def look(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            kind: Any = self.network.shape.attention
            rows = out.flatten(0, -2)[self.real]  # (N, H query_dim)
            heads = rows.view(-1, kind.num_attention_heads, kind.query_dim)
            plain = heads[..., : kind.qk_nope_head_dim]  # (N, H, nope)
            self.add(f"{name}.queries", plain.flatten(1))

        return look

    def _mixture(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            mixture: Any = module
            rows = given[0].flatten(0, -2)[self.real]  # (N, D)
            chosen = mixture.route(rows).expert  # (N, experts a token)
            for expert in range(mixture.shape.n_routed_experts):
                mine = rows[(chosen == expert).any(dim=1)]
                gate = F.silu(mine @ mixture.gate[expert])
                inner = gate * (mine @ mixture.up[expert])
                self.add(f"{name}.{expert}.in", mine)
                self.add(f"{name}.{expert}.down", inner)

        return look


@torch.no_grad()
def importance_of(network: Transformer, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Importance (..., 1, columns) by the file's names, of each matrix that saw a row."""
    network.eval()
    with Moments(network) as moments:
        for batch in batches:
            _measure(network, moments, batch)
    ours = {}
    for name, weight in network.state_dict().items():
        ours[name] = _spread(network, moments, name, weight)
    found = {}
    for name, tensor in tensors_of(network.shape, ours).items():
        if tensor.dim() > 1:
            first = tensor[..., :1, :]  # all rows are alike
            row = first.clone(memory_format=torch.contiguous_format)
            if not torch.isnan(row).any():
                found[name] = row
    return found


def _measure(network: Transformer, moments: Moments, batch: Batch) -> None:
    """Run one batch; the head counts at action tokens alone."""
    ids = torch.from_numpy(batch.ids)
    documents = torch.from_numpy(batch.documents)
    positions = torch.from_numpy(batch.positions)
    real = documents > 0
    moments.real = real.flatten()
    states, *_ = network(ids, positions, causal_mask(documents), real=real)  # (B, T, D)
    answers = torch.from_numpy(batch.answers).flatten() > 0
    head = "embed.weight" if network.output is None else "output.weight"
    moments.add(head, states.flatten(0, 1)[answers])


def _spread(network: Transformer, moments: Moments, name: str, weight: Tensor) -> Tensor:
    """One parameter's importance in its own shape, NaN where no row was seen."""
    columns = moments.mean(name)
    if name.endswith("kv_up.weight"):
        queries = moments.mean(name.replace("kv_up.weight", "queries"))
        if queries is not None and columns is not None:
            return _keys_values(network.shape.attention, queries, columns, weight)
    elif columns is not None:
        return columns.expand_as(weight)
    if weight.dim() == 3:  # stacked experts (E, columns, outputs)
        return _stacked(moments, name, weight)
    return torch.full_like(weight, torch.nan)


def _keys_values(kind: Any, queries: Tensor, latent: Tensor, weight: Tensor) -> Tensor:
    """Importance of MLA's up-projection: keys by the queries, values by the latent."""
    heads = kind.num_attention_heads
    keys = queries.view(heads, kind.qk_nope_head_dim, 1)  # (H, nope, 1)
    keys = keys.expand(-1, -1, kind.kv_lora_rank)
    values = latent.expand(heads, kind.v_head_dim, -1)  # (H, v, r)
    return torch.cat((keys, values), dim=1).reshape(weight.shape)


def _stacked(moments: Moments, name: str, weight: Tensor) -> Tensor:
    """Importance of stacked experts; 1 for an expert that saw no row."""
    stem, _, part = name.rpartition(".")
    side = "down" if part == "down" else "in"
    rows = []
    for expert in range(len(weight)):
        found = moments.mean(f"{stem}.{expert}.{side}")
        if found is None:
            found = torch.ones(weight.shape[1])
        rows.append(found)
    return torch.stack(rows).unsqueeze(-1).expand_as(weight)
