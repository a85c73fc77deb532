"""Pruning: start a tier from the parts of a larger network that matter most.

What matters is measured on the recipe's sentences, by forward passes alone:
    layers    1 - cosine of input and output (ShortGPT, arXiv 2403.03853, equation 1)
    width     mean absolute activation after the norms (Minitron, arXiv 2407.14679, section 2.2)
    units     mean absolute input of the matrix that reads them: heads, inner units, latents of MLA
              (the same section)
    experts   the sum of the routing weights of each
Where a mixture becomes one dense layer, units of routed experts compete with those of shared ones,
each scaled by its use. Pruning costs accuracy that training has to restore: best distill such a
tier from the network it was cut from.
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
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.data import Batch, Loader, read_shards
from tumen.model import MixtureOfExperts, Transformer, build, causal_mask
from tumen.recipe import Train
from tumen.train import prepare_torch
from tumen.train.weights import read_final

Weights = Mapping[str, Tensor]
MEASURED_ROWS = 256  # of training: with more, the order of the parts stays the same
# Modules whose inputs are units that can be cut.
READERS = ("attention.out", "attention.q_up", "attention.kv_up", "feed.down", "feed.shared.down")
# Fields of an attention that pruning keeps.
KEPT_GQA = ("kind", "head_dim", "rope_theta")
KEPT_MLA = (
    "kind",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "rope_theta",
    "rope_scaling",
)


def pruned(larger: Path, to: Shape, dataset: Path, section: Train) -> dict[str, Tensor]:
    """Initial weights of a tier of shape `to`: the best parts of a checkpoint artifact.

    Importance is measured on rows of the training shard.

    Raises:
        InputError: `to` is not a part of the larger network.
        ArtifactError: checkpoint or dataset are missing or damaged.
    """
    prepare_torch(section)
    shape, weights = read_final(larger)
    refuse(shape, to)
    network = build(shape)
    network.load_state_dict(weights)
    shards = read_shards(dataset / "train")
    loader = Loader(shards, section.batch_size, section.seq_len, 0)
    count = max(1, MEASURED_ROWS // section.batch_size)
    batches = [next(loader) for _ in range(count)]
    return cut(weights, shape, to, importance(network, batches))


@dataclass
class Importance:
    """How much every part matters, summed over tokens; only the order counts.

    Attributes:
        layers: (L,).
        width: (D,), over all norms.
        units: inputs of a module by the module's name (`3.feed.down`, `0.attention.out`).
        experts: (E,) by layer: the sum of each expert's routing weights.
        tokens: number of tokens measured.
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
            ids = torch.from_numpy(batch.ids)
            positions = torch.from_numpy(batch.positions)
            documents = torch.from_numpy(batch.documents)
            watch.real = documents > 0  # (B, T)
            watch.found.tokens += int(watch.real.sum())
            network(ids, positions, causal_mask(documents), real=watch.real)
    finally:
        watch.end()
    return watch.found


class _Watch:
    """Hooks on a network that add up activations."""

    def __init__(self, network: Transformer) -> None:
        shape = network.shape
        layers = torch.zeros(shape.num_hidden_layers)
        width = torch.zeros(shape.hidden_size)
        self.found = Importance(layers, width)
        self.real = torch.zeros(0, dtype=torch.bool)
        self.hooks: list[Any] = []
        for name, block in network.blocks.items():
            after_layer = partial(self._layer, int(name))
            self.hooks.append(block.register_forward_hook(after_layer))
            for part, module in block.named_modules():
                self._hook(name, part, module)

    def _hook(self, layer: str, part: str, module: nn.Module) -> None:
        """Watch one module of a layer, if it says something about importance."""
        if part in ("norm_in", "norm_out"):
            self.hooks.append(module.register_forward_hook(self._width))
        elif part in READERS:
            before = partial(self._units, f"{layer}.{part}")
            self.hooks.append(module.register_forward_pre_hook(before))
        elif isinstance(module, MixtureOfExperts):
            route: Any = partial(self._experts, layer)
            self.hooks.append(module.register_forward_pre_hook(route))

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def _layer(self, number: int, block: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        before = given[0].float()  # (B, T, D)
        after = out.out.float()
        away = 1 - F.cosine_similarity(before, after, dim=-1)  # (B, T)
        self.found.layers[number] += away[self.real].sum()

    def _width(self, norm: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        real = out[self.real].float()  # (N, D)
        self.found.width += real.abs().sum(dim=0)

    def _units(self, name: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        x = given[0]
        if x.dim() > 2:
            x = x.flatten(0, -2)  # (B T, F), heads side by side
        real = x[self.real.flatten()].float()
        before = self.found.units.get(name, torch.zeros(x.shape[-1]))
        self.found.units[name] = before + real.abs().sum(dim=0)

    def _experts(self, name: str, mixture: MixtureOfExperts, given: tuple[Any, ...]) -> None:
        rows = given[0].flatten(0, 1)[self.real.flatten()]  # (N, D)
        choice = mixture.route(rows)
        count = mixture.shape.n_routed_experts
        used = torch.zeros(len(rows), count)
        used = used.scatter(1, choice.expert, choice.weight.float())  # (N, E)
        before = self.found.experts.get(name, torch.zeros(count))
        self.found.experts[name] = before + used.sum(dim=0)
        for expert in range(count):
            weight = used[:, expert : expert + 1]  # (N, 1)
            gate = F.silu(rows @ mixture.gate[expert])
            inner = gate * (rows @ mixture.up[expert])  # (N, F)
            scaled = (inner.abs() * weight).float()
            key = f"{name}.feed.{expert}"
            self.found.units[key] = self.found.units.get(key, 0) + scaled.sum(dim=0)


def cut(weights: Weights, shape: Shape, to: Shape, matters: Importance) -> dict[str, Tensor]:
    """Cut the weights of `to` out of a network of `shape`.

    Raises:
        InputError: says which part of `to` cannot be cut out.
    """
    refuse(shape, to)
    width = best(matters.width, to.hidden_size)
    kept = {
        "embed.weight": weights["embed.weight"][:, width],
        "norm.weight": weights["norm.weight"][width],
    }
    if not to.tie_word_embeddings:
        head = "embed.weight" if shape.tie_word_embeddings else "output.weight"
        kept["output.weight"] = weights[head][:, width]
    for new, old in enumerate(_layers(shape, to, matters)):
        block = _Block(weights, shape, to, matters, old, width)
        for name, tensor in block.cut(new).items():
            kept[f"blocks.{new}.{name}"] = tensor
    return {name: tensor.contiguous().clone() for name, tensor in kept.items()}


def best(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, in ascending order."""
    highest = scores.topk(count).indices
    return highest.sort().values


def refuse(shape: Shape, to: Shape) -> None:
    """Refuse a shape that is not a part of another.

    Raises:
        InputError: names the first field that does not fit.
    """
    ours = to.attention
    theirs = shape.attention
    _refuse_changes(shape, to)
    for name in ("hidden_size", "num_hidden_layers", "intermediate_size"):
        _refuse_growth(name, getattr(shape, name), getattr(to, name))
    _refuse_growth("num_attention_heads", theirs.num_attention_heads, ours.num_attention_heads)
    for name in ("num_key_value_heads", "q_lora_rank", "kv_lora_rank"):
        if getattr(ours, name, None):
            _refuse_growth(name, getattr(theirs, name, None), getattr(ours, name))
    if isinstance(ours, Gqa) and isinstance(theirs, Gqa):
        _refuse_groups(theirs, ours)
    if to.experts:
        _refuse_experts(shape.experts, to.experts)
    if isinstance(ours, Mla) and isinstance(theirs, Mla):
        _refuse_query_latent(theirs, ours)
    if to.num_nextn_predict_layers:
        raise InputError(
            "shape.num_nextn_predict_layers: a multi-token prediction head is not cut; set it to 0"
        )


def _refuse_changes(shape: Shape, to: Shape) -> None:
    """Refuse another value of a field that pruning keeps."""
    ours = to.attention
    for name in ("vocab_size", "rms_norm_eps"):
        _refuse_change(f"shape.{name}", getattr(shape, name), getattr(to, name))
    for name in KEPT_GQA if isinstance(ours, Gqa) else KEPT_MLA:
        theirs = getattr(shape.attention, name, None)
        _refuse_change(f"shape.attention.{name}", theirs, getattr(ours, name))


def _refuse_query_latent(theirs: Mla, ours: Mla) -> None:
    """Refuse a latent of queries where the larger network has none, and the reverse."""
    if bool(ours.q_lora_rank) != bool(theirs.q_lora_rank):
        raise InputError(
            "shape.attention.q_lora_rank: a pruned tier has one where the larger tier has one"
        )


def _refuse_change(field: str, theirs: object, ours: object) -> None:
    if theirs != ours:
        raise InputError(f"{field}: a pruned tier keeps it, {theirs}, not {ours}")


def _refuse_growth(name: str, large: int | None, small: int) -> None:
    if small > (large or 0):
        raise InputError(f"shape.{name}: {small} cannot be cut from {large}")


def _refuse_groups(theirs: Gqa, ours: Gqa) -> None:
    """Refuse more query heads for each key head than the larger network has."""
    heads = ours.num_attention_heads
    groups = ours.num_key_value_heads
    if heads // groups > theirs.num_attention_heads // theirs.num_key_value_heads:
        raise InputError(
            f"shape.attention.num_attention_heads: {heads} for "
            f"{groups} groups are more a group than there are"
        )


def _refuse_experts(theirs: Experts | None, ours: Experts) -> None:
    """Refuse experts that differ from the larger network's in more than being fewer."""
    as_wide = theirs is not None and ours.moe_intermediate_size == theirs.moe_intermediate_size
    if theirs is None or not as_wide or ours.n_routed_experts > theirs.n_routed_experts:
        raise InputError(
            "shape.experts: as wide as in the larger tier, and no more of them; "
            "or leave them out for a dense tier"
        )
    if ours.n_shared_experts != theirs.n_shared_experts:
        raise InputError(
            f"shape.experts.n_shared_experts: a pruned mixture keeps all {theirs.n_shared_experts}"
        )


def _layers(shape: Shape, to: Shape, matters: Importance) -> list[int]:
    """Numbers of the layers that stay.

    As many dense layers and as many mixtures as the target has; a dense target takes either.
    """
    if not to.experts or not shape.experts:
        return best(matters.layers, to.num_hidden_layers).tolist()
    dense = shape.experts.first_k_dense_replace
    wanted = to.experts.first_k_dense_replace
    first = best(matters.layers[:dense], wanted).tolist()
    mixtures = best(matters.layers[dense:], to.num_hidden_layers - wanted).tolist()
    return first + [dense + layer for layer in mixtures]


@dataclass(frozen=True)
class _Block:
    """One layer of a network, to be cut.

    Attributes:
        weights: of the whole network.
        shape: of the network.
        to: of the smaller network.
        matters: importance in the network.
        number: of the layer in the network.
        width: indices (D,) of the features that stay.
    """

    weights: Weights
    shape: Shape
    to: Shape
    matters: Importance
    number: int
    width: Tensor

    def cut(self, new: int) -> dict[str, Tensor]:
        """The layer's weights as number `new` of the smaller network, without `blocks.<new>.`."""
        kept = {}
        for norm in ("norm_in", "norm_out"):
            kept[f"{norm}.weight"] = self._weight(f"{norm}.weight")[self.width]
        for name, tensor in self._attention().items():
            kept[f"attention.{name}"] = tensor
        for name, tensor in self._feed(new).items():
            kept[f"feed.{name}"] = tensor
        return kept

    def _weight(self, name: str) -> Tensor:
        return self.weights[f"blocks.{self.number}.{name}"]

    def _units(self, name: str) -> Tensor:
        return self.matters.units[f"{self.number}.{name}"]

    def _attention(self) -> dict[str, Tensor]:
        large = self.shape.attention
        small = self.to.attention
        if isinstance(large, Gqa) and isinstance(small, Gqa):
            return self._grouped(large, small)
        if isinstance(large, Mla) and isinstance(small, Mla):
            return self._latent(large, small)
        raise InputError(f"shape.attention.kind: {small.kind} cannot be cut from {large.kind}")

    def _feed(self, new: int) -> dict[str, Tensor]:
        """A dense layer, fewer experts, or one dense layer out of all experts."""
        mixture = f"blocks.{self.number}.feed.router.weight" in self.weights
        experts = self.to.experts
        if not mixture:
            units = best(self._units("feed.down"), self.to.intermediate_size)
            return self._dense("feed", units)
        if experts and new >= experts.first_k_dense_replace:
            used = self.matters.experts[str(self.number)]
            return self._fewer(best(used, experts.n_routed_experts))
        return self._merged(self.to.intermediate_size)

    def _grouped(self, large: Gqa, small: Gqa) -> dict[str, Tensor]:
        """The best groups of keys and values, and in each the best heads."""
        group = large.num_attention_heads // large.num_key_value_heads
        fewer = small.num_attention_heads // small.num_key_value_heads
        size = large.head_dim
        units = self._units("attention.out")  # (H d,)
        scores = units.view(large.num_key_value_heads, group, size).sum(dim=-1)  # (groups, heads)
        # A group counts as much as the heads that would stay of it.
        by_group = scores.topk(fewer, dim=1).values.sum(dim=1)
        groups = best(by_group, small.num_key_value_heads)
        heads = [one * group + best(scores[one], fewer) for one in groups.tolist()]
        q = _rows(torch.cat(heads), size)  # rows of the kept query heads
        kv = _rows(groups, size)
        return {
            "q.weight": self._weight("attention.q.weight")[q][:, self.width],
            "k.weight": self._weight("attention.k.weight")[kv][:, self.width],
            "v.weight": self._weight("attention.v.weight")[kv][:, self.width],
            "out.weight": self._weight("attention.out.weight")[self.width][:, q],
        }

    def _latent(self, large: Mla, small: Mla) -> dict[str, Tensor]:
        """The best heads, and the best features of both latents."""
        width = self.width
        units = self._units("attention.out").view(large.num_attention_heads, -1)
        heads = best(units.sum(dim=-1), small.num_attention_heads)
        kv = best(self._units("attention.kv_up"), small.kv_lora_rank)
        # Behind the latent stand the rows of the key's rotary part; all stay.
        rotary = large.kv_lora_rank + torch.arange(large.qk_rope_head_dim)
        down = torch.cat((kv, rotary))  # rows of kv_down
        up = _rows(heads, large.qk_nope_head_dim + large.v_head_dim)
        values = _rows(heads, large.v_head_dim)
        kept = {
            "kv_down.weight": self._weight("attention.kv_down.weight")[down][:, width],
            "kv_norm.weight": self._weight("attention.kv_norm.weight")[kv],
            "kv_up.weight": self._weight("attention.kv_up.weight")[up][:, kv],
            "out.weight": self._weight("attention.out.weight")[width][:, values],
        }
        q_up = self._weight("attention.q_up.weight")[_rows(heads, large.query_dim)]
        if not small.q_lora_rank or not large.q_lora_rank:
            return kept | {"q_up.weight": q_up[:, width]}
        q = best(self._units("attention.q_up"), small.q_lora_rank)
        return kept | {
            "q_down.weight": self._weight("attention.q_down.weight")[q][:, width],
            "q_norm.weight": self._weight("attention.q_norm.weight")[q],
            "q_up.weight": q_up[:, q],
        }

    def _dense(self, feed: str, units: Tensor) -> dict[str, Tensor]:
        return _sliced(
            self._weight(f"{feed}.gate.weight"),
            self._weight(f"{feed}.up.weight"),
            self._weight(f"{feed}.down.weight"),
            units,
            self.width,
        )

    def _fewer(self, experts: Tensor) -> dict[str, Tensor]:
        """The experts that are used most; the shared ones stay."""
        width = self.width
        kept = {
            "router.weight": self._weight("feed.router.weight")[experts][:, width],
            "gate": self._weight("feed.gate")[experts][:, width],
            "up": self._weight("feed.up")[experts][:, width],
            "down": self._weight("feed.down")[experts][:, :, width],
        }
        if f"blocks.{self.number}.feed.bias" in self.weights:
            kept["bias"] = self._weight("feed.bias")[experts]
        if self._has_shared():
            everything = torch.arange(len(self._weight("feed.shared.gate.weight")))
            for name, part in self._dense("feed.shared", everything).items():
                kept[f"shared.{name}"] = part
        return kept

    def _has_shared(self) -> bool:
        return f"blocks.{self.number}.feed.shared.gate.weight" in self.weights

    def _merged(self, count: int) -> dict[str, Tensor]:
        """One dense layer from the best units of all experts.

        The output of a routed expert is scaled by its mean routing weight.
        """
        used = self.matters.experts[str(self.number)]
        weight = used / max(1, self.matters.tokens)  # (E,) mean over tokens
        gates = []
        ups = []
        downs = []
        scores = []
        if self._has_shared():
            gates.append(self._weight("feed.shared.gate.weight"))
            ups.append(self._weight("feed.shared.up.weight"))
            downs.append(self._weight("feed.shared.down.weight"))
            scores.append(self._units("feed.shared.down"))
        # Routed experts are stored (E, in, out), dense layers (out, in).
        for expert, share in enumerate(weight.tolist()):
            gates.append(self._weight("feed.gate")[expert].T)
            ups.append(self._weight("feed.up")[expert].T)
            downs.append(self._weight("feed.down")[expert].T * share)
            scores.append(self._units(f"feed.{expert}"))
        gate = torch.cat(gates)
        if count > len(gate):
            raise InputError(
                f"shape.intermediate_size: {count} cannot be cut "
                f"from the {len(gate)} units of all experts"
            )
        units = best(torch.cat(scores), count)
        return _sliced(gate, torch.cat(ups), torch.cat(downs, dim=1), units, self.width)


def _rows(heads: Tensor, size: int) -> Tensor:
    """Rows of the given heads in a matrix that has `size` rows a head."""
    starts = heads.unsqueeze(1) * size  # (heads, 1)
    return (starts + torch.arange(size)).flatten()


def _sliced(
    gate: Tensor, up: Tensor, down: Tensor, units: Tensor, width: Tensor
) -> dict[str, Tensor]:
    """A dense layer with fewer units and features."""
    return {
        "gate.weight": gate[units][:, width],
        "up.weight": up[units][:, width],
        "down.weight": down[width][:, units],
    }
