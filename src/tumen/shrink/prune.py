"""Pruning: a smaller network out of the parts of a larger one that matter most, as the start of a tier.

What matters is measured on sentences of the recipe, by forward passes alone:
    layers    1 - cosine of what goes in and what comes out (ShortGPT, arXiv 2403.03853, equation 1)
    width     mean absolute activation after the norms (Minitron, arXiv 2407.14679, section 2.2)
    units     mean absolute input of the matrix that reads them: heads, inner units, latents of MLA (the same section)
    experts   how often, and with what weight, each is chosen
Where a mixture becomes one dense layer, units of experts compete with those of the shared ones, each scaled as it was used. What
was cut off has to be healed by training: a tier that starts so is best distilled from the network it was cut from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core.errors import InputError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.data import Batch, Loader, read_shards
from tumen.model import MixtureOfExperts, Transformer, build, causal_mask
from tumen.recipe import Train
from tumen.train import prepare_torch
from tumen.train.weights import read_final

Weights = Mapping[str, Tensor]
MEASURED_ROWS = 256  # of training: the order of the parts has settled long before


def pruned(larger: Path, to: Shape, dataset: Path, section: Train) -> dict[str, Tensor]:
    """The start of a tier of shape `to`: the best parts of a checkpoint artifact, measured on rows of the training shard.

    Raises:
        InputError: `to` is no part of the larger network.
        ArtifactError: checkpoint or dataset are missing or damaged.
    """
    prepare_torch(section)
    shape, weights = read_final(larger)
    refuse(shape, to)
    network = build(shape)
    network.load_state_dict(weights)
    loader = Loader(read_shards(dataset / "train"), section.batch_size, section.seq_len, 0)
    batches = [next(loader) for _ in range(max(1, MEASURED_ROWS // section.batch_size))]
    return cut(weights, shape, to, importance(network, batches))


@dataclass
class Importance:
    """How much every part matters, summed over tokens: only the order counts.

    Attributes:
        layers: (L,).
        width: (D,), over all norms.
        units: by the name of the module that reads them (`3.feed.down`, `0.attention.out`), its inputs.
        experts: by layer, (E,): the weights in the sum that they were chosen with.
        tokens: how many were seen.
    """

    layers: Tensor
    width: Tensor
    units: dict[str, Tensor] = field(default_factory=dict)
    experts: dict[str, Tensor] = field(default_factory=dict)
    tokens: int = 0


@torch.inference_mode()
def importance(network: Transformer, batches: Iterable[Batch]) -> Importance:
    """Measure a network on batches of training rows; padding does not count."""
    watch = _Watch(network)
    network.eval()
    try:
        for batch in batches:
            ids, positions, documents = (
                torch.from_numpy(array) for array in (batch.ids, batch.positions, batch.documents)
            )
            watch.real = documents > 0
            watch.found.tokens += int(watch.real.sum())
            network(ids, positions, causal_mask(documents), real=watch.real)
    finally:
        watch.end()
    return watch.found


class _Watch:
    """Hooks on a network that add up what passes."""

    def __init__(self, network: Transformer) -> None:
        shape = network.shape
        self.found = Importance(
            torch.zeros(shape.num_hidden_layers), torch.zeros(shape.hidden_size)
        )
        self.real = torch.zeros(0, dtype=torch.bool)
        self.hooks: list[Any] = []
        for name, block in network.blocks.items():
            self.hooks.append(block.register_forward_hook(partial(self._layer, int(name))))
            for part, module in block.named_modules():
                if part in ("norm_in", "norm_out"):
                    self.hooks.append(module.register_forward_hook(self._width))
                elif part in (
                    "attention.out",
                    "attention.q_up",
                    "attention.kv_up",
                    "feed.down",
                    "feed.shared.down",
                ):
                    self.hooks.append(
                        module.register_forward_pre_hook(partial(self._units, f"{name}.{part}"))
                    )
                elif isinstance(module, MixtureOfExperts):
                    self.hooks.append(
                        module.register_forward_pre_hook(partial(self._experts, name))
                    )

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def _layer(self, number: int, block: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        away = 1 - F.cosine_similarity(given[0].float(), out.out.float(), dim=-1)
        self.found.layers[number] += away[self.real].sum()

    def _width(self, norm: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        self.found.width += out[self.real].float().abs().sum(dim=0)

    def _units(self, name: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        x = (
            given[0] if given[0].dim() == 2 else given[0].flatten(0, -2)
        )  # rows (N, F) of every token, heads side by side
        real = self.real.flatten()
        self.found.units[name] = self.found.units.get(name, torch.zeros(x.shape[-1])) + x[
            real
        ].float().abs().sum(dim=0)

    def _experts(self, name: str, mixture: MixtureOfExperts, given: tuple[Any, ...]) -> None:
        rows = given[0].flatten(0, 1)[self.real.flatten()]
        choice = mixture.route(rows)
        used = torch.zeros(len(rows), mixture.shape.n_routed_experts).scatter(
            1, choice.expert, choice.weight.float()
        )
        self.found.experts[name] = self.found.experts.get(
            name, torch.zeros(mixture.shape.n_routed_experts)
        ) + used.sum(dim=0)
        for expert in range(mixture.shape.n_routed_experts):
            weight = used[:, expert : expert + 1]
            inner = F.silu(rows @ mixture.gate[expert]) * (rows @ mixture.up[expert])
            key = f"{name}.feed.{expert}"
            self.found.units[key] = self.found.units.get(key, 0) + (
                inner.abs() * weight
            ).float().sum(dim=0)


def cut(weights: Weights, shape: Shape, to: Shape, matters: Importance) -> dict[str, Tensor]:
    """The weights of `to`, taken from a network of `shape`; no part of `to` may be larger.

    Raises:
        InputError: names what cannot be cut from what.
    """
    refuse(shape, to)
    width = best(matters.width, to.hidden_size)
    kept = {
        "embed.weight": weights["embed.weight"][:, width],
        "norm.weight": weights["norm.weight"][width],
    }
    if not to.tie_word_embeddings:
        kept["output.weight"] = weights[
            "embed.weight" if shape.tie_word_embeddings else "output.weight"
        ][:, width]
    for new, old in enumerate(_layers(shape, to, matters)):
        kept |= _block(weights, shape, to, matters, old, new, width)
    return {name: tensor.contiguous().clone() for name, tensor in kept.items()}


def best(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, in ascending order."""
    return scores.topk(count).indices.sort().values


def refuse(shape: Shape, to: Shape) -> None:
    """Refuse a shape that is no part of another.

    Raises:
        InputError: names the first field that does not fit.
    """
    ours, theirs = to.attention, shape.attention
    same = (
        ("kind", "head_dim", "rope_theta")
        if isinstance(ours, Gqa)
        else (
            "kind",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
            "rope_theta",
            "rope_scaling",
        )
    )
    smaller = [
        ("hidden_size", shape, to),
        ("num_hidden_layers", shape, to),
        ("intermediate_size", shape, to),
        ("num_attention_heads", theirs, ours),
    ]
    smaller += [
        (name, theirs, ours)
        for name in ("num_key_value_heads", "q_lora_rank", "kv_lora_rank")
        if getattr(ours, name, None)
    ]
    for name in ("vocab_size", "rms_norm_eps"):
        if getattr(shape, name) != getattr(to, name):
            raise InputError(
                f"shape.{name}: a pruned tier keeps it, {getattr(shape, name)}, not {getattr(to, name)}"
            )
    for name in same:
        if getattr(theirs, name, None) != getattr(ours, name):
            raise InputError(
                f"shape.attention.{name}: a pruned tier keeps it, {getattr(theirs, name, None)}, not {getattr(ours, name)}"
            )
    for name, large, small in smaller:
        if getattr(small, name) > (getattr(large, name, None) or 0):
            raise InputError(
                f"shape.{name}: {getattr(small, name)} cannot be cut from {getattr(large, name, None)}"
            )
    if (
        isinstance(ours, Gqa)
        and isinstance(theirs, Gqa)
        and ours.num_attention_heads // ours.num_key_value_heads
        > theirs.num_attention_heads // theirs.num_key_value_heads
    ):
        raise InputError(
            f"shape.attention.num_attention_heads: {ours.num_attention_heads} for "
            f"{ours.num_key_value_heads} groups are more a group than there are"
        )
    if to.experts and not (
        shape.experts
        and to.experts.n_routed_experts <= shape.experts.n_routed_experts
        and to.experts.moe_intermediate_size == shape.experts.moe_intermediate_size
    ):
        raise InputError(
            "shape.experts: as wide as in the larger tier, and no more of them; or leave them out for a dense tier"
        )
    if (
        to.experts
        and shape.experts
        and to.experts.n_shared_experts != shape.experts.n_shared_experts
    ):
        raise InputError(
            f"shape.experts.n_shared_experts: a pruned mixture keeps all {shape.experts.n_shared_experts}"
        )
    if (
        isinstance(ours, Mla)
        and isinstance(theirs, Mla)
        and bool(ours.q_lora_rank) != bool(theirs.q_lora_rank)
    ):
        raise InputError(
            "shape.attention.q_lora_rank: a pruned tier has one where the larger tier has one"
        )
    if to.num_nextn_predict_layers:
        raise InputError(
            "shape.num_nextn_predict_layers: a head that looks ahead is not cut; set it to 0"
        )


def _layers(shape: Shape, to: Shape, matters: Importance) -> list[int]:
    """Which layers stay: of the dense ones and of the mixtures, as many as the target has; a dense target takes any."""
    if not to.experts or not shape.experts:
        return best(matters.layers, to.num_hidden_layers).tolist()
    dense, wanted = shape.experts.first_k_dense_replace, to.experts.first_k_dense_replace
    first = best(matters.layers[:dense], wanted).tolist()
    return first + [
        dense + layer
        for layer in best(matters.layers[dense:], to.num_hidden_layers - wanted).tolist()
    ]


def _block(
    weights: Weights, shape: Shape, to: Shape, matters: Importance, old: int, new: int, width: Tensor
) -> dict[str, Tensor]:  # fmt: skip
    ours, theirs = f"blocks.{new}", f"blocks.{old}"
    kept = {
        f"{ours}.{norm}.weight": weights[f"{theirs}.{norm}.weight"][width]
        for norm in ("norm_in", "norm_out")
    }
    large, small = shape.attention, to.attention
    if isinstance(large, Gqa) and isinstance(small, Gqa):
        attention = _grouped(weights, large, small, matters, old, width)
    elif isinstance(large, Mla) and isinstance(small, Mla):
        attention = _latent(weights, large, small, matters, old, width)
    else:
        raise InputError(f"shape.attention.kind: {small.kind} cannot be cut from {large.kind}")
    kept |= {f"{ours}.attention.{name}": tensor for name, tensor in attention.items()}
    mixture = f"{theirs}.feed.router.weight" in weights
    if not mixture:
        feed = _dense(
            weights,
            f"{theirs}.feed",
            best(matters.units[f"{old}.feed.down"], to.intermediate_size),
            width,
        )
    elif to.experts and new >= to.experts.first_k_dense_replace:
        feed = _fewer(
            weights,
            f"{theirs}.feed",
            best(matters.experts[str(old)], to.experts.n_routed_experts),
            width,
        )
    else:
        feed = _merged(weights, f"{theirs}.feed", matters, old, to.intermediate_size, width)
    return kept | {f"{ours}.feed.{name}": tensor for name, tensor in feed.items()}


def _rows(heads: Tensor, size: int) -> Tensor:
    """Rows of the given heads in a matrix that has `size` rows a head."""
    return (heads.unsqueeze(1) * size + torch.arange(size)).flatten()


def _grouped(
    weights: Weights, large: Gqa, small: Gqa, matters: Importance, old: int, width: Tensor
) -> dict[str, Tensor]:
    """The best groups of keys and values, and in each the best heads."""
    name = f"blocks.{old}.attention"
    group, fewer, size = (
        large.num_attention_heads // large.num_key_value_heads,
        small.num_attention_heads // small.num_key_value_heads,
        large.head_dim,
    )
    scores = (
        matters.units[f"{old}.attention.out"]
        .view(large.num_key_value_heads, group, size)
        .sum(dim=-1)
    )
    groups = best(scores.topk(fewer, dim=1).values.sum(dim=1), small.num_key_value_heads)
    heads = torch.cat([one * group + best(scores[one], fewer) for one in groups.tolist()])
    q, kv = _rows(heads, size), _rows(groups, size)
    return {
        "q.weight": weights[f"{name}.q.weight"][q][:, width],
        "k.weight": weights[f"{name}.k.weight"][kv][:, width],
        "v.weight": weights[f"{name}.v.weight"][kv][:, width],
        "out.weight": weights[f"{name}.out.weight"][width][:, q],
    }


def _latent(
    weights: Weights, large: Mla, small: Mla, matters: Importance, old: int, width: Tensor
) -> dict[str, Tensor]:
    """The best heads, and of both latents the best features."""
    name = f"blocks.{old}.attention"
    heads = best(
        matters.units[f"{old}.attention.out"].view(large.num_attention_heads, -1).sum(dim=-1),
        small.num_attention_heads,
    )
    kv = best(matters.units[f"{old}.attention.kv_up"], small.kv_lora_rank)
    down = torch.cat((kv, large.kv_lora_rank + torch.arange(large.qk_rope_head_dim)))
    q_rows = _rows(heads, large.query_dim)
    kept = {
        "kv_down.weight": weights[f"{name}.kv_down.weight"][down][:, width],
        "kv_norm.weight": weights[f"{name}.kv_norm.weight"][kv],
        "kv_up.weight": weights[f"{name}.kv_up.weight"][
            _rows(heads, large.qk_nope_head_dim + large.v_head_dim)
        ][:, kv],
        "out.weight": weights[f"{name}.out.weight"][width][:, _rows(heads, large.v_head_dim)],
    }
    if not small.q_lora_rank or not large.q_lora_rank:
        return kept | {"q_up.weight": weights[f"{name}.q_up.weight"][q_rows][:, width]}
    q = best(matters.units[f"{old}.attention.q_up"], small.q_lora_rank)
    return kept | {
        "q_down.weight": weights[f"{name}.q_down.weight"][q][:, width],
        "q_norm.weight": weights[f"{name}.q_norm.weight"][q],
        "q_up.weight": weights[f"{name}.q_up.weight"][q_rows][:, q],
    }


def _dense(weights: Weights, feed: str, units: Tensor, width: Tensor) -> dict[str, Tensor]:
    return {
        "gate.weight": weights[f"{feed}.gate.weight"][units][:, width],
        "up.weight": weights[f"{feed}.up.weight"][units][:, width],
        "down.weight": weights[f"{feed}.down.weight"][width][:, units],
    }


def _fewer(weights: Weights, feed: str, experts: Tensor, width: Tensor) -> dict[str, Tensor]:
    """The experts that are used most; the shared ones stay."""
    kept = {
        "router.weight": weights[f"{feed}.router.weight"][experts][:, width],
        "gate": weights[f"{feed}.gate"][experts][:, width],
        "up": weights[f"{feed}.up"][experts][:, width],
        "down": weights[f"{feed}.down"][experts][:, :, width],
    }
    for name in (name for name in weights if name == f"{feed}.bias"):
        kept["bias"] = weights[name][experts]
    if f"{feed}.shared.gate.weight" in weights:
        everything = torch.arange(len(weights[f"{feed}.shared.gate.weight"]))
        kept |= {
            f"shared.{name}": part
            for name, part in _dense(weights, f"{feed}.shared", everything, width).items()
        }
    return kept


def _merged(
    weights: Weights, feed: str, matters: Importance, old: int, count: int, width: Tensor
) -> dict[str, Tensor]:
    """One dense layer from the best units of all experts; what a routed one adds is scaled by its mean weight in the sum."""
    weight = matters.experts[str(old)] / max(1, matters.tokens)
    gates, ups, downs, scores = [], [], [], []
    if f"{feed}.shared.gate.weight" in weights:
        gates, ups = [weights[f"{feed}.shared.gate.weight"]], [weights[f"{feed}.shared.up.weight"]]
        downs, scores = (
            [weights[f"{feed}.shared.down.weight"]],
            [matters.units[f"{old}.feed.shared.down"]],
        )
    for expert, share in enumerate(weight.tolist()):
        gates.append(weights[f"{feed}.gate"][expert].T)
        ups.append(weights[f"{feed}.up"][expert].T)
        downs.append(weights[f"{feed}.down"][expert].T * share)
        scores.append(matters.units[f"{old}.feed.{expert}"])
    merged = {
        "x.gate.weight": torch.cat(gates),
        "x.up.weight": torch.cat(ups),
        "x.down.weight": torch.cat(downs, dim=1),
    }
    if count > len(merged["x.gate.weight"]):
        raise InputError(
            f"shape.intermediate_size: {count} cannot be cut from the {len(merged['x.gate.weight'])} units of all experts"
        )
    return _dense(merged, "x", best(torch.cat(scores), count), width)
