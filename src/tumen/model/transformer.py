"""The network: a decoder of pre-norm blocks from one `Shape`, dense or mixture of experts, latent or grouped attention."""

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

ENDS = 0.02  # deviation of embedding and head in a fresh network, so that its first loss is the logarithm of the vocabulary
NOT_BUILT = {
    "gated": True,
    "biases": False,
    "n_positions": 0,
    "window": 0,
}  # fields of a shape that are planned alone


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        kind = shape.attention
        self.norm_in = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.attention: nn.Module = (
            LatentAttention(shape.hidden_size, kind, shape.rms_norm_eps)
            if isinstance(kind, Mla)
            else GroupedAttention(shape.hidden_size, kind)
        )
        self.norm_out = Norm(shape.hidden_size, shape.rms_norm_eps)
        mixture = shape.experts is not None and layer >= shape.experts.first_k_dense_replace
        self.feed: nn.Module = (
            MixtureOfExperts(shape.hidden_size, shape.experts)
            if mixture and shape.experts
            else FeedForward(shape.hidden_size, shape.intermediate_size)
        )

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Fed:
        """x (B, T, D) -> x (B, T, D), this layer's balance loss (0 where dense) and load (empty where dense)."""
        x = x + self.attention(self.norm_in(x), context, cache)
        if isinstance(self.feed, MixtureOfExperts):
            fed = self.feed(self.norm_out(x), context.real, context.safe)
            return Fed(x + fed.out, fed.balance, fed.load)
        nothing = x.new_zeros(0, dtype=torch.float32)
        return Fed(x + self.feed(self.norm_out(x)), nothing.sum(), nothing)


class Ahead(nn.Module):
    """Multi-token prediction (arXiv 2412.19437, section 2.2): the state of a token and the next token, for the one after it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm_state = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.norm_embed = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.join = linear(2 * shape.hidden_size, shape.hidden_size)
        self.block = Block(shape, shape.num_hidden_layers)

    def forward(self, x: Tensor, following: Tensor, context: Context) -> Fed:
        """x (B, T, D) before the last norm, following (B, T, D) the next tokens' embeddings."""
        return self.block(
            self.join(torch.cat((self.norm_state(x), self.norm_embed(following)), dim=-1)), context
        )


class Out(NamedTuple):
    """Hidden states after the last norm (B, T, D), the sum of the balance losses, and the states that look one token further."""

    states: Tensor
    balance: Tensor
    ahead: Tensor | None = None


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, D); `head` turns chosen states into logits.

    A pipeline stage is the same class with fewer parts: `cut` leaves some layers, and the ends where they belong.
    """

    embed: nn.Embedding | None
    output: nn.Linear | None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        refuse_unbuilt(shape)
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.blocks = nn.ModuleDict(
            {str(layer): Block(shape, layer) for layer in range(shape.num_hidden_layers)}
        )
        self.norm: Norm | None = Norm(shape.hidden_size, shape.rms_norm_eps)
        if shape.tie_word_embeddings:
            self.output = None
        else:
            self.output = linear(shape.hidden_size, shape.vocab_size)
        self.mtp = Ahead(shape) if shape.num_nextn_predict_layers else None
        self.loads: list[Tensor] = []  # of the mixtures in the last forward pass, see `Fed.load`

    def cut(self, first: int, last: int) -> Transformer:
        """Keep the layers first..last - 1; the embedding stays with layer 0, the head with the last layer."""
        self.blocks = nn.ModuleDict(
            {name: block for name, block in self.blocks.items() if first <= int(name) < last}
        )
        if first > 0:
            self.embed = None
        if last < self.shape.num_hidden_layers:
            self.norm = self.output = None
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
        """Hidden states after the last norm (a stage without it: as they are), and the sum of the balance losses.

        Args:
            x: (B, T) tokens; a later pipeline stage takes hidden states (B, T, D).
            positions: (B, T) place of each token in its own document.
            mask: (B, 1, T, S) additive, 0 where a token may look and -inf where not.
            caches: one `Cache` a layer when decoding.
            real, safe: see `Context`.
            following: (B, T) the next token of each, asked of a network with `mtp` in training.
        """
        kind = self.shape.attention
        if self.embed is None:
            x = x
        else:
            x = self.embed(x)
        turned, yarn = (
            (kind.qk_rope_head_dim, kind.rope_scaling)
            if isinstance(kind, Mla)
            else (kind.head_dim, None)
        )
        cos, sin = angles(positions.unsqueeze(1), turned, kind.rope_theta, yarn)
        context = Context(cos.to(x.dtype), sin.to(x.dtype), mask.to(x.dtype), real, safe)
        feds: list[Fed] = []
        for name, block in self.blocks.items():
            feds.append(block(x, context, caches[int(name)] if caches else None))
            x = feds[-1].out
        states = x if self.norm is None else self.norm(x)
        ahead = None
        if (
            following is not None
            and self.mtp is not None
            and self.embed is not None
            and self.norm is not None
        ):
            feds.append(self.mtp(x, self.embed(following), context))
            ahead = self.norm(feds[-1].out)
        self.loads = [fed.load for fed in feds if len(fed.load)]
        return Out(states, torch.stack([fed.balance for fed in feds]).sum(), ahead)

    def head(self, states: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., D)."""
        if self.output is not None:
            weight = self.output.weight
        elif self.embed is not None:
            weight = self.embed.weight
        else:
            weight = None
        if weight is None:
            raise InputError("this pipeline stage has no head; it stays with the last layer")
        return states @ weight.T

    def every_block(self) -> list[Block]:
        """The layers, and the one that predicts the token after the next."""
        found: list[Any] = [
            *self.blocks.values(),
            *([self.mtp.block] if self.mtp is not None else []),
        ]
        return found

    def mixtures(self) -> list[MixtureOfExperts]:
        """The layers whose loads `loads` holds, in the same order."""
        return [
            block.feed for block in self.every_block() if isinstance(block.feed, MixtureOfExperts)
        ]

    def safe_rows(self, ids: Tensor) -> Tensor | None:
        """Which rows of ids (B, T) lose no token: a share of `protect`, by a hash of their tokens, so the same on any mesh."""
        experts = self.shape.experts
        if experts is None or not self.training:
            return None
        return (
            ids.sum(dim=1) * 2654435761
        ) % 2**32 < experts.protect * 2**32  # Knuth's multiplicative hash


def refuse_unbuilt(shape: Shape) -> None:
    """Refuse shapes no network here has.

    Raises:
        InputError: names the fields.
    """
    if not shape.vocab_size:
        raise ValueError("shape.vocab_size is 0: take it from the tokeniser first")
    foreign = [name for name, ours in NOT_BUILT.items() if getattr(shape, name) != ours]
    if foreign:
        raise InputError(
            f"shape.{', shape.'.join(foreign)}: the planner counts it, no network here has it; leave it out to train"
        )
    if shape.num_nextn_predict_layers > 1:
        raise InputError(
            f"shape.num_nextn_predict_layers {shape.num_nextn_predict_layers}: one more predicted token is built; set it to 1 or 0"
        )


def build(shape: Shape, seed: int = 0) -> Transformer:
    """A fresh fp32 network."""
    network = Transformer(shape)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(fresh(shape, name, weight.shape, seed))
    return network


def fresh(shape: Shape, name: str, size: torch.Size, seed: int) -> Tensor:
    """One weight of a fresh network, from its name and the seed alone: every rank of any mesh can make its own part.

    Normal, those that write to the residual smaller by depth (GPT-2, section 2.3); vectors are ones.
    """
    if len(size) < 2:
        return torch.ones(size)
    if len(size) == 2:
        inner = size[-1]
    else:
        inner = size[-2]
    deviation = 1 / math.sqrt(inner)
    if name.endswith((".out.weight", ".down.weight", ".down")):
        deviation = 0.5 / math.sqrt(shape.hidden_size) / math.sqrt(2 * shape.num_hidden_layers)
    if name.startswith(("embed", "output")):
        deviation = ENDS
    digits = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(digits, "little") >> 1)
    return torch.empty(size).normal_(0, deviation, generator=generator)


def causal_mask(documents: Tensor) -> Tensor:
    """Additive mask (B, 1, T, T) for packed rows: a token sees its own document up to itself. documents: (B, T) ids."""
    T = documents.shape[1]
    places = torch.arange(T, device=documents.device)
    return visible(documents, places, documents, places)


def visible(documents: Tensor, places: Tensor, key_documents: Tensor, key_places: Tensor) -> Tensor:
    """Additive mask (B, 1, T, S): queries of `documents` (B, T) at `places` (T,) in the row see earlier keys of their document."""
    same_document = documents.unsqueeze(2) == key_documents.unsqueeze(1)
    past = key_places.unsqueeze(0) <= places.unsqueeze(1)
    mask = torch.zeros(same_document.shape, device=documents.device)
    return mask.masked_fill_(~(same_document & past), float("-inf")).unsqueeze(1)
