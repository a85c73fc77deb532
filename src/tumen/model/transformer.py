"""The network: a decoder of pre-norm blocks from one `Shape`, dense or mixture of experts, latent or grouped attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tumen.core import InputError, Mla, Shape
from tumen.model.attention import Context, GroupedAttention, LatentAttention, Norm, linear
from tumen.model.cache import Cache
from tumen.model.experts import FeedForward, MixtureOfExperts
from tumen.model.rope import angles

ENDS = 0.02  # deviation of embedding and head in a fresh network, so that its first loss is the logarithm of the vocabulary


NOT_BUILT = {"gated": True, "biases": False, "positions": 0, "window": 0, "mtp": 0}  # fields of a shape that are planned alone


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        kind = shape.attention
        self.norm_in = Norm(shape.width, shape.norm_eps)
        self.attention: nn.Module = (
            LatentAttention(shape.width, kind, shape.norm_eps) if isinstance(kind, Mla) else GroupedAttention(shape.width, kind)
        )
        self.norm_out = Norm(shape.width, shape.norm_eps)
        mixture = shape.experts is not None and layer >= shape.experts.dense_layers
        self.feed: nn.Module = (
            MixtureOfExperts(shape.width, shape.experts)
            if mixture and shape.experts
            else FeedForward(shape.width, shape.feed_forward)
        )

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> x (B, T, D) and this layer's balance loss (0 where dense)."""
        x = x + self.attention(self.norm_in(x), context, cache)
        fed = self.feed(self.norm_out(x))
        if isinstance(fed, tuple):
            return x + fed[0], fed[1]
        return x + fed, x.new_zeros((), dtype=torch.float32)


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, D); `head` turns chosen states into logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if not shape.vocab:
            raise ValueError("shape.vocab is 0: take it from the tokeniser first")
        foreign = [name for name, ours in NOT_BUILT.items() if getattr(shape, name) != ours]
        if foreign:
            raise InputError(
                f"shape.{', shape.'.join(foreign)}: the planner counts it, no network here has it; leave it out to train"
            )
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_eps)
        self.output = None if shape.tied else linear(shape.width, shape.vocab)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, caches: list[Cache] | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states after the last norm, and the sum of the balance losses.

        Args:
            ids: (B, T) tokens.
            positions: (B, T) place of each token in its own document.
            mask: (B, 1, T, S) additive, 0 where a token may look and -inf where not.
            caches: one `Cache` a layer when decoding.
        """
        kind = self.shape.attention
        rope_dim = kind.rope_dim if isinstance(kind, Mla) else kind.head_dim
        x = self.embed(ids)
        cos, sin = angles(positions.unsqueeze(1), rope_dim, kind.rope_theta)
        context = Context(cos.to(x.dtype), sin.to(x.dtype), mask.to(x.dtype))
        balance = torch.zeros((), device=x.device)
        for layer, block in enumerate(self.blocks):
            x, loss = block(x, context, caches[layer] if caches else None)
            balance = balance + loss
        return self.norm(x), balance

    def head(self, states: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., D)."""
        weight = self.embed.weight if self.output is None else self.output.weight
        return states @ weight.T


def build(shape: Shape, seed: int = 0) -> Transformer:
    """A fresh fp32 network: normal weights, those that write to the residual smaller by depth (GPT-2, section 2.3)."""
    network = Transformer(shape)
    generator = torch.Generator().manual_seed(seed)
    residual = 0.5 / math.sqrt(shape.width) / math.sqrt(2 * shape.layers)
    for name, weight in network.named_parameters():
        if weight.dim() < 2:
            continue
        inner = weight.shape[-1] if weight.dim() == 2 else weight.shape[-2]
        deviation = residual if name.endswith((".out.weight", ".down.weight", ".down")) else 1 / math.sqrt(inner)
        deviation = ENDS if name.startswith(("embed", "output")) else deviation
        with torch.no_grad():
            weight.normal_(0, deviation, generator=generator)
    return network


def causal_mask(documents: Tensor) -> Tensor:
    """Additive mask (B, 1, T, T) for packed rows: a token sees its own document up to itself. documents: (B, T) ids."""
    T = documents.shape[1]
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    past = torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()
    return torch.zeros(same.shape, device=documents.device).masked_fill_(~(same & past), float("-inf")).unsqueeze(1)
