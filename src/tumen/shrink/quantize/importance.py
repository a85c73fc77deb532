"""How much an error of each weight counts: the second moment of what it is multiplied with (as llama.cpp's imatrix).

y = W x, so an error E of W costs |E x|^2: on average the sum over columns of E_c^2 mean(x_c^2), when columns are independent. The
moments come from sentences of the training shards, by hooks on the network as it runs.
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

LEAST = 1e-3  # of the mean: a column that was never used counts a little, for elsewhere it may be


class Moments:
    """Sums of squares by parameter, in the parameter's own layout; use as a context around forward passes."""

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.real = torch.ones(1, dtype=torch.bool)
        self._hooks: list[Any] = []

    def __enter__(self) -> Moments:
        for name, module in self.network.named_modules():
            if isinstance(module, MixtureOfExperts):
                self._hooks.append(module.register_forward_pre_hook(self._mixture(name)))
            elif isinstance(module, nn.Linear) and ".router" not in name:
                self._hooks.append(module.register_forward_pre_hook(self._matrix(f"{name}.weight")))
            if name.endswith("attention.q_up"):
                self._hooks.append(
                    module.register_forward_hook(self._queries(name.removesuffix(".q_up")))
                )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def add(self, name: str, rows: Tensor) -> None:
        """Rows (N, columns) that a matrix was multiplied with."""
        self.sums[name] = self.sums.get(name, torch.zeros(rows.shape[-1])) + rows.square().sum(
            dim=0
        )
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def mean(self, name: str) -> Tensor | None:
        """(columns,), 1 on average; None where nothing was seen."""
        if not self.counts.get(name):
            return None
        mean = self.sums[name] / self.counts[name]
        return (mean / mean.mean().clamp(min=1e-30)).clamp(min=LEAST)

    def _matrix(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].flatten(0, -2)
            self.add(name, rows[self.real] if len(rows) == len(self.real) else rows)

        return look

    def _queries(self, name: str) -> Any:
        """What the up-projection of keys meets in the file, where it is absorbed into the query: each head's plain features."""

        def look(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            kind: Any = self.network.shape.attention
            heads = out.flatten(0, -2)[self.real].view(
                -1, kind.num_attention_heads, kind.query_dim
            )[..., : kind.qk_nope_head_dim]
            self.add(f"{name}.queries", heads.flatten(1))

        return look

    def _mixture(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            mixture: Any = module
            rows = given[0].flatten(0, -2)[self.real]
            chosen = mixture.route(rows).expert
            for expert in range(mixture.shape.n_routed_experts):
                mine = rows[(chosen == expert).any(dim=1)]
                self.add(f"{name}.{expert}.in", mine)
                self.add(
                    f"{name}.{expert}.down",
                    F.silu(mine @ mixture.gate[expert]) * (mine @ mixture.up[expert]),
                )

        return look


@torch.no_grad()
def importance_of(network: Transformer, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Importance by the file's names, (..., 1, columns) of each matrix; one that saw nothing is left out."""
    network.eval()
    with Moments(network) as moments:
        for batch in batches:
            ids, documents, positions = (
                torch.from_numpy(part) for part in (batch.ids, batch.documents, batch.positions)
            )
            moments.real = (documents > 0).flatten()
            states, *_ = network(ids, positions, causal_mask(documents), real=documents > 0)
            answers = torch.from_numpy(batch.answers).flatten() > 0
            moments.add(
                "output.weight" if network.output is not None else "embed.weight",
                states.flatten(0, 1)[answers],
            )
    ours = {
        name: _spread(network, moments, name, weight)
        for name, weight in network.state_dict().items()
    }
    theirs = tensors_of(network.shape, ours)
    first = {
        name: tensor[..., :1, :] for name, tensor in theirs.items() if tensor.dim() > 1
    }  # all rows are alike
    seen = {name: row.clone(memory_format=torch.contiguous_format) for name, row in first.items()}
    return {name: tensor for name, tensor in seen.items() if not torch.isnan(tensor).any()}


def _spread(network: Transformer, moments: Moments, name: str, weight: Tensor) -> Tensor:
    """One parameter's importance in its own shape, NaN where nothing was seen."""
    columns = moments.mean(name)
    if columns is not None and not name.endswith("kv_up.weight"):
        return columns.expand_as(weight)
    if name.endswith("kv_up.weight"):
        kind: Any = network.shape.attention
        queries, latent = moments.mean(name.replace("kv_up.weight", "queries")), columns
        if queries is not None and latent is not None:
            keys = queries.view(kind.num_attention_heads, kind.qk_nope_head_dim, 1).expand(
                -1, -1, kind.kv_lora_rank
            )
            return torch.cat(
                (keys, latent.expand(kind.num_attention_heads, kind.v_head_dim, -1)), dim=1
            ).reshape(weight.shape)
    stem, _, part = name.rpartition(".")
    if weight.dim() == 3:  # stacked experts (E, columns, outputs)
        found = [
            moments.mean(f"{stem}.{expert}.{'down' if part == 'down' else 'in'}")
            for expert in range(len(weight))
        ]
        rows = [torch.ones(weight.shape[1]) if one is None else one for one in found]
        return torch.stack(rows).unsqueeze(-1).expand_as(weight)
    return torch.full_like(weight, torch.nan)
