"""The network: a decoder of pre-norm blocks from one `Shape`, dense or MoE, with MLA or GQA."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tumen.core.errors import InputError
from tumen.core.shape import Mla, Shape
from tumen.model.attention import Context, GroupedAttention, LatentAttention, Norm, linear
from tumen.model.cache import Cache
from tumen.model.experts import Fed, FeedForward, MixtureOfExperts
from tumen.model.rope import angles

# Standard deviation of embedding and head in a fresh network. With it the first loss is the
# logarithm of the vocabulary.
ENDS = 0.02
# Fields of a shape that only the planner knows, and the values that this network has.
NOT_BUILT = {"gated": True, "biases": False, "n_positions": 0, "window": 0}
KNUTH = 2654435761  # multiplicative hash over 32 bits


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        kind = shape.attention
        width = shape.hidden_size
        eps = shape.rms_norm_eps
        self.norm_in = Norm(width, eps)
        self.attention: nn.Module
        if isinstance(kind, Mla):
            self.attention = LatentAttention(width, kind, eps)
        else:
            self.attention = GroupedAttention(width, kind)
        self.norm_out = Norm(width, eps)
        self.feed: nn.Module
        if shape.experts is not None and layer >= shape.experts.first_k_dense_replace:
            self.feed = MixtureOfExperts(width, shape.experts)
        else:
            self.feed = FeedForward(width, shape.intermediate_size)

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Fed:
        """Input (B, T, D); a dense layer's balance loss is 0 and its load is empty."""
        x = x + self.attention(self.norm_in(x), context, cache)  # (B, T, D)
        if isinstance(self.feed, MixtureOfExperts):
            fed = self.feed(self.norm_out(x), context.real, context.safe)
            return Fed(x + fed.out, fed.balance, fed.load)
        nothing = x.new_zeros(0, dtype=torch.float32)
        return Fed(x + self.feed(self.norm_out(x)), nothing.sum(), nothing)


class Ahead(nn.Module):
    """Multi-token prediction (arXiv 2412.19437, section 2.2).

    It predicts the token after the next from a token's state and the next token.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm_state = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.norm_embed = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.join = linear(2 * shape.hidden_size, shape.hidden_size)
        self.block = Block(shape, shape.num_hidden_layers)

    def forward(self, x: Tensor, following: Tensor, context: Context) -> Fed:
        """Run the extra layer.

        Args:
            x: (B, T, D) states before the last norm.
            following: (B, T, D) embeddings of the next tokens.
            context: of the batch.
        """
        both = torch.cat((self.norm_state(x), self.norm_embed(following)), dim=-1)  # (B, T, 2 D)
        return self.block(self.join(both), context)


class Out(NamedTuple):
    """Result of a network.

    Attributes:
        states: (B, T, D) after the last norm; of a stage without it, before.
        balance: sum of the layers' balance losses.
        ahead: (B, T, D) states of multi-token prediction; None without it.
    """

    states: Tensor
    balance: Tensor
    ahead: Tensor | None = None


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, D); `head` computes logits of chosen states.

    A pipeline stage is the same class with fewer layers: `cut` removes the others, and embedding
    and head where they belong to another stage.
    """

    embed: nn.Embedding | None
    output: nn.Linear | None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        refuse_unbuilt(shape)
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        layers = range(shape.num_hidden_layers)
        self.blocks = nn.ModuleDict({str(layer): Block(shape, layer) for layer in layers})
        self.norm: Norm | None = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.output = None
        if not shape.tie_word_embeddings:
            self.output = linear(shape.hidden_size, shape.vocab_size)
        self.mtp = Ahead(shape) if shape.num_nextn_predict_layers else None
        # Loads of the mixtures in the last forward pass, see `Fed.load`.
        self.loads: list[Tensor] = []

    def cut(self, first: int, last: int) -> Transformer:
        """Keep layers first..last - 1; the embedding stays with layer 0, the head with the last."""
        layers = self.blocks.items()
        kept = {name: block for name, block in layers if first <= int(name) < last}
        self.blocks = nn.ModuleDict(kept)
        if first > 0:
            self.embed = None
        if last < self.shape.num_hidden_layers:
            self.norm = None
            self.output = None
        return self

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        caches: list[Cache] | None = None,
        *,
        real: Tensor | None = None,
        safe: Tensor | None = None,
        following: Tensor | None = None,
    ) -> Out:
        """Run all layers.

        Args:
            x: (B, T) tokens; in a later pipeline stage hidden states (B, T, D).
            positions: (B, T) place of each token in its own document.
            mask: (B, 1, T, S) additive, 0 where a token sees a key and -inf elsewhere.
            caches: one `Cache` a layer when decoding.
            real: see `Context`.
            safe: see `Context`.
            following: (B, T) the next tokens, for training with multi-token prediction.
        """
        if self.embed is not None:
            x = self.embed(x)  # (B, T, D)
        cos, sin = self._angles(positions)  # (B, 1, T, rope / 2)
        context = Context(cos.to(x.dtype), sin.to(x.dtype), mask.to(x.dtype), real, safe)
        feds: list[Fed] = []
        for name, block in self.blocks.items():
            cache = caches[int(name)] if caches else None
            feds.append(block(x, context, cache))
            x = feds[-1].out
        states = x if self.norm is None else self.norm(x)
        ahead = None
        fed = self._ahead(x, following, context)
        if fed is not None and self.norm is not None:
            feds.append(fed)
            ahead = self.norm(fed.out)
        self.loads = [fed.load for fed in feds if len(fed.load)]
        balance = torch.stack([fed.balance for fed in feds]).sum()
        return Out(states, balance, ahead)

    def _ahead(self, x: Tensor, following: Tensor | None, context: Context) -> Fed | None:
        """Run multi-token prediction; None without it, and in a pipeline stage."""
        if following is None or self.mtp is None or self.embed is None or self.norm is None:
            return None
        return self.mtp(x, self.embed(following), context)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables (B, 1, T, rope / 2)."""
        kind = self.shape.attention
        places = positions.unsqueeze(1)
        if isinstance(kind, Mla):
            return angles(places, kind.qk_rope_head_dim, kind.rope_theta, kind.rope_scaling)
        return angles(places, kind.head_dim, kind.rope_theta, None)

    def head(self, states: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., D)."""
        matrix = self.embed if self.output is None else self.output
        if matrix is None:
            raise InputError("this pipeline stage has no head; it stays with the last layer")
        return states @ matrix.weight.T

    def every_block(self) -> list[Block]:
        """The layers, and the one of multi-token prediction."""
        found: list[Any] = list(self.blocks.values())
        if self.mtp is not None:
            found.append(self.mtp.block)
        return found

    def mixtures(self) -> list[MixtureOfExperts]:
        """The layers whose loads `loads` holds, in the same order."""
        feeds = [block.feed for block in self.every_block()]
        return [feed for feed in feeds if isinstance(feed, MixtureOfExperts)]

    def safe_rows(self, ids: Tensor) -> Tensor | None:
        """Which rows of ids (B, T) lose no token: a share of `protect`.

        Chosen by a hash of their tokens, so it is the same on any mesh.
        """
        experts = self.shape.experts
        if experts is None or not self.training:
            return None
        hashed = (ids.sum(dim=1) * KNUTH) % 2**32
        return hashed < experts.protect * 2**32


def refuse_unbuilt(shape: Shape) -> None:
    """Refuse shapes that this network does not implement.

    Raises:
        InputError: names the fields.
    """
    if not shape.vocab_size:
        raise ValueError("shape.vocab_size is 0: take it from the tokenizer first")
    unsupported = [name for name, ours in NOT_BUILT.items() if getattr(shape, name) != ours]
    if unsupported:
        raise InputError(
            f"shape.{', shape.'.join(unsupported)}: the planner counts it, no network here has it; "
            "leave it out to train"
        )
    if shape.num_nextn_predict_layers > 1:
        raise InputError(
            f"shape.num_nextn_predict_layers {shape.num_nextn_predict_layers}: "
            "one more predicted token is built; set it to 1 or 0"
        )


def build(shape: Shape, seed: int = 0) -> Transformer:
    """A fresh fp32 network."""
    network = Transformer(shape)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(fresh(shape, name, weight.shape, seed))
    return network


def fresh(shape: Shape, name: str, size: torch.Size, seed: int) -> Tensor:
    """One weight of a fresh network, from its name and the seed alone.

    So every rank of any mesh can make its own part. Matrices are normal, smaller with depth where
    they write to the residual (GPT-2, section 2.3); vectors are ones.
    """
    if len(size) < 2:
        return torch.ones(size)
    inner = size[-1] if len(size) == 2 else size[-2]  # stacked experts are (E, inner, outer)
    deviation = 1 / math.sqrt(inner)
    if name.endswith((".out.weight", ".down.weight", ".down")):
        deviation = 0.5 / math.sqrt(shape.hidden_size) / math.sqrt(2 * shape.num_hidden_layers)
    if name.startswith(("embed", "output")):
        deviation = ENDS
    # One generator a weight, so that the order of making them does not matter.
    digits = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    number = int.from_bytes(digits, "little") >> 1  # torch's seeds have 63 bits
    generator = torch.Generator().manual_seed(number)
    return torch.empty(size).normal_(0, deviation, generator=generator)


def causal_mask(documents: Tensor) -> Tensor:
    """Additive mask (B, 1, T, T) for packed rows: a token sees its own document up to itself.

    Args:
        documents: (B, T) ids.
    """
    T = documents.shape[1]
    places = torch.arange(T, device=documents.device)
    return visible(documents, places, documents, places)


def visible(documents: Tensor, places: Tensor, key_documents: Tensor, key_places: Tensor) -> Tensor:
    """Additive mask (B, 1, T, S): a query sees the earlier keys of its own document.

    Args:
        documents: (B, T) of the queries.
        places: (T,) of the queries in the row.
        key_documents: (B, S).
        key_places: (S,).
    """
    same_document = documents.unsqueeze(2) == key_documents.unsqueeze(1)  # (B, T, S)
    past = key_places.unsqueeze(0) <= places.unsqueeze(1)  # (T, S)
    mask = torch.zeros(same_document.shape, device=documents.device)
    return mask.masked_fill_(~(same_document & past), float("-inf")).unsqueeze(1)
