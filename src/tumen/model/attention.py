"""Latent attention (MLA, arXiv 2405.04434, section 2.1) and grouped-query attention (GQA).

GQA is that of arXiv 2305.13245.
Shapes: B rows, T tokens, S keys, D features of the model, H heads, r features of the latent. Both
take a `Context` and optionally this layer's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core.shape import Gqa, Mla
from tumen.model.cache import Cache
from tumen.model.rope import rotate


class Context(NamedTuple):
    """What every layer needs to know about a batch.

    Attributes:
        cos: rotary table (B, 1, T, rope / 2).
        sin: rotary table (B, 1, T, rope / 2).
        mask: additive (B, 1, T, S).
        real: (B, T), false on padding; None: no padding.
        safe: (B,) rows that lose no token in a mixture of experts; None: none.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor
    real: Tensor | None = None
    safe: Tensor | None = None


def same(x: Tensor) -> Tensor:
    """Return x; parallel training puts exchanges between ranks in its place (train/parallel)."""
    return x


class Norm(nn.Module):
    """RMSNorm (arXiv 1910.07467) over the last dimension, computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Input and output (..., width)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def local(weight: Tensor) -> Tensor:
    """This rank's part of a weight split over tensor-parallel ranks; else the weight itself."""
    part: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return part


class Linear(nn.Linear):
    """A matrix, or this rank's part of one."""

    def forward(self, x: Tensor) -> Tensor:
        """Input (..., inner), output (..., outer)."""
        return F.linear(x, local(self.weight))


def linear(inner: int, outer: int) -> Linear:
    """A matrix without bias."""
    return Linear(inner, outer, bias=False)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention, q (B, H, T, d), k (B, H, S, d), v (B, H, S, e) -> (B, T, H * e).

    On a CPU the plain form is faster than the fused one for the short rows of commands, forward and
    backward (docs/log.md, 2026-11-22); GPUs use the fused kernel (not run here).
    """
    if q.is_cuda:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        scores = q @ k.transpose(-1, -2) * scale + mask  # (B, H, T, S)
        out = scores.softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(2)


class GroupedAttention(nn.Module):
    """Grouped-query attention with rotary positions on every feature."""

    def __init__(self, width: int, shape: Gqa) -> None:
        super().__init__()
        self.shape = shape
        heads = shape.num_attention_heads * shape.head_dim
        groups = shape.num_key_value_heads * shape.head_dim
        self.q = linear(width, heads)
        self.k = linear(width, groups)
        self.v = linear(width, groups)
        self.out = linear(heads, width)
        self.enter = same
        self.leave = same
        self.whole = same

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Tensor:
        """Input and output (B, T, D)."""
        shape = self.shape
        x = self.enter(x)
        q = rotate(self._heads(self.q(x)), context.cos, context.sin)  # (B, H, T, d)
        k = rotate(self._heads(self.k(x)), context.cos, context.sin)  # (B, groups, T, d)
        v = self._heads(self.v(x))  # (B, groups, T, d)
        # With context parallelism, from here on keys and values of the whole row.
        k = self.whole(k)
        v = self.whole(v)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, groups, S, d)
        # Every query head of a group reads the same keys and values.
        group = shape.num_attention_heads // shape.num_key_value_heads
        if group > 1:
            k = k.repeat_interleave(group, dim=1)
            v = v.repeat_interleave(group, dim=1)
        out = attend(q, k, v, context.mask, shape.score_scale)
        return self.leave(self.out(out))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H * d) -> (B, H, T, d)."""
        B, T, _ = x.shape
        return x.view(B, T, -1, self.shape.head_dim).transpose(1, 2)


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values from one latent a token (equations 9-19).

    Without a cache the latent is expanded to keys and values, which is cheapest for whole rows.
    With a cache only the latent and the shared rotary key are kept, and the expansion is absorbed
    into query and output.

    Parallel training replaces `enter` and `leave`, around everything that is split by heads, and
    `whole`, which gathers the latents of a row whose tokens lie on several ranks.
    """

    def __init__(self, width: int, shape: Mla, eps: float) -> None:
        super().__init__()
        self.shape = shape
        heads = shape.num_attention_heads
        if shape.q_lora_rank:
            self.q_down = linear(width, shape.q_lora_rank)
            self.q_norm = Norm(shape.q_lora_rank, eps)
            self.q_up = linear(shape.q_lora_rank, heads * shape.query_dim)
        else:
            self.q_up = linear(width, heads * shape.query_dim)
        self.kv_down = linear(width, shape.kv_lora_rank + shape.qk_rope_head_dim)
        self.kv_norm = Norm(shape.kv_lora_rank, eps)
        both = shape.qk_nope_head_dim + shape.v_head_dim
        self.kv_up = linear(shape.kv_lora_rank, heads * both)
        self.out = linear(heads * shape.v_head_dim, width)
        self.enter = same
        self.leave = same
        self.whole = same

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Tensor:
        """Input and output (B, T, D)."""
        shape = self.shape
        q_nope, q_rope = self._queries(x, context)
        down = self.kv_down(x)  # (B, T, r + rope)
        latent, k_rope = down.split((shape.kv_lora_rank, shape.qk_rope_head_dim), dim=-1)
        latent = self.kv_norm(latent)  # (B, T, r)
        k_rope = rotate(k_rope.unsqueeze(1), context.cos, context.sin)  # (B, 1, T, rope)
        latent = self.enter(latent.unsqueeze(1))  # (B, 1, T, r)
        k_rope = self.enter(k_rope)
        if cache is not None:
            latents, k_rope = cache.extend(latent, k_rope)  # (B, 1, S, ...)
            return self._absorbed(q_nope, q_rope, latents, k_rope, context.mask)
        latent = self.whole(latent)  # (B, 1, S, r)
        k_rope = self.whole(k_rope)  # (B, 1, S, rope)
        k_nope, v = self._expanded(latent)
        k_rope = k_rope.expand(-1, k_nope.shape[1], -1, -1)
        k = torch.cat((k_nope, k_rope), dim=-1)  # (B, H, S, nope + rope)
        q = torch.cat((q_nope, q_rope), dim=-1)  # (B, H, T, nope + rope)
        out = attend(q, k, v, context.mask, shape.score_scale)
        return self.leave(self.out(out))

    def _queries(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Queries without position (B, H, T, nope) and with it (B, H, T, rope)."""
        shape = self.shape
        B, T, _ = x.shape
        if shape.q_lora_rank:
            x = self.q_norm(self.q_down(x))
        q = self.q_up(self.enter(x)).view(B, T, -1, shape.query_dim).transpose(1, 2)
        q_nope, q_rope = q.split((shape.qk_nope_head_dim, shape.qk_rope_head_dim), dim=-1)
        return q_nope, rotate(q_rope, context.cos, context.sin)

    def _expanded(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, H, S, nope) and values (B, H, S, v) of a latent (B, 1, S, r)."""
        shape = self.shape
        B, _, S, _ = latent.shape
        both = shape.qk_nope_head_dim + shape.v_head_dim
        kv = self.kv_up(latent.squeeze(1)).view(B, S, -1, both).transpose(1, 2)
        k_nope, v = kv.split((shape.qk_nope_head_dim, shape.v_head_dim), dim=-1)
        return k_nope, v

    def _absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, k_rope: Tensor, mask: Tensor
    ) -> Tensor:
        """Attention inside the latent (section 2.1.2, "absorbed").

        Args:
            q_nope: (B, H, T, nope).
            q_rope: (B, H, T, rope).
            latents: (B, 1, S, r).
            k_rope: (B, 1, S, rope).
            mask: (B, 1, T, S).
        """
        shape = self.shape
        both = shape.qk_nope_head_dim + shape.v_head_dim
        up = self.kv_up.weight.view(shape.num_attention_heads, both, shape.kv_lora_rank)
        # (H, nope, r) and (H, v, r)
        w_uk, w_uv = up.split((shape.qk_nope_head_dim, shape.v_head_dim), dim=1)
        B, H, T, _ = q_nope.shape
        # Heads become rows, so that the one latent is never copied for each head.
        q_latent = torch.einsum("bhtn,hnr->bhtr", q_nope, w_uk).flatten(1, 2)  # (B, H T, r)
        latents = latents.squeeze(1)
        k_rope = k_rope.squeeze(1)
        by_latent = q_latent @ latents.transpose(1, 2)  # (B, H T, S)
        by_place = q_rope.flatten(1, 2) @ k_rope.transpose(1, 2)  # (B, H T, S)
        scores = (by_latent + by_place).view(B, H, T, -1)
        weights = (scores * shape.score_scale + mask).softmax(dim=-1)
        read = (weights.flatten(1, 2) @ latents).view(B, H, T, -1)  # (B, H, T, r)
        out = torch.einsum("bhtr,hvr->bhtv", read, w_uv)
        return self.out(out.transpose(1, 2).flatten(2))
