"""Attention: latent (MLA, arXiv 2405.04434 section 2.1) and grouped-query (GQA, arXiv 2305.13245), one interface.

Shapes: B rows, T tokens, S keys, D model width, H heads. Both take a `Context` and an optional cache of this layer.
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
    """What every layer needs of a batch: rotary tables (B, 1, T, rope / 2) and the additive mask (B, 1, T, S).

    For mixtures of experts: `real` (B, T), false on padding, and `safe` (B,), rows that lose no token; None: all, and none.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor
    real: Tensor | None = None
    safe: Tensor | None = None


def same(x: Tensor) -> Tensor:
    """The seam of parallel training where nothing is to be done (train/parallel)."""
    return x


class Norm(nn.Module):
    """RMSNorm (arXiv 1910.07467) over the last dimension, computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def local(weight: Tensor) -> Tensor:
    """This rank's part of a weight that is split over tensor-parallel ranks; the weight itself where it is whole."""
    part: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return part


class Linear(nn.Linear):
    """A matrix, or this rank's part of one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, local(self.weight))


def linear(inner: int, outer: int) -> Linear:
    """A matrix without bias."""
    return Linear(inner, outer, bias=False)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention, q (B, H, T, d), k (B, H, S, d), v (B, H, S, e) -> (B, T, H * e).

    On a CPU the plain form is faster than the fused one at the short rows of commands, forward and backward
    (docs/log.md, 2026-11-22); GPUs take the fused kernel (not run here).
    """
    if q.is_cuda:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        scores = q @ k.transpose(-1, -2) * scale + mask
        out = scores.softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(2)


class GroupedAttention(nn.Module):
    """Grouped-query attention with rotary positions on every feature."""

    def __init__(self, width: int, shape: Gqa) -> None:
        super().__init__()
        self.shape = shape
        self.q = linear(width, shape.num_attention_heads * shape.head_dim)
        self.k = linear(width, shape.num_key_value_heads * shape.head_dim)
        self.v = linear(width, shape.num_key_value_heads * shape.head_dim)
        self.out = linear(shape.num_attention_heads * shape.head_dim, width)
        self.enter = self.leave = self.whole = same

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Tensor:
        B, T, _ = x.shape
        shape = self.shape
        x = self.enter(x)
        q = rotate(
            self.q(x).view(B, T, -1, shape.head_dim).transpose(1, 2), context.cos, context.sin
        )
        k = rotate(
            self.k(x).view(B, T, -1, shape.head_dim).transpose(1, 2), context.cos, context.sin
        )
        v = self.v(x).view(B, T, -1, shape.head_dim).transpose(1, 2)
        k = self.whole(k)
        v = self.whole(v)
        if cache is not None:
            k, v = cache.extend(k, v)
        group = shape.num_attention_heads // shape.num_key_value_heads
        if group > 1:
            k = k.repeat_interleave(group, dim=1)
            v = v.repeat_interleave(group, dim=1)
        return self.leave(self.out(attend(q, k, v, context.mask, shape.score_scale)))


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values come from one latent a token, equations 9-19 of the paper.

    Without a cache the latent is expanded to keys and values (cheapest for whole rows); with one, only the latent and the
    shared rotary key are kept and the expansion is absorbed into query and output.

    Seams of parallel training: `enter` and `leave` stand around what is split by heads, `whole` gathers the latent of a row whose
    tokens lie on several ranks.
    """

    def __init__(self, width: int, shape: Mla, eps: float) -> None:
        super().__init__()
        self.shape = shape
        query = shape.num_attention_heads * shape.query_dim
        if shape.q_lora_rank:
            self.q_down = linear(width, shape.q_lora_rank)
            self.q_norm = Norm(shape.q_lora_rank, eps)
            self.q_up = linear(shape.q_lora_rank, query)
        else:
            self.q_up = linear(width, query)
        self.kv_down = linear(width, shape.kv_lora_rank + shape.qk_rope_head_dim)
        self.kv_norm = Norm(shape.kv_lora_rank, eps)
        self.kv_up = linear(
            shape.kv_lora_rank,
            shape.num_attention_heads * (shape.qk_nope_head_dim + shape.v_head_dim),
        )
        self.out = linear(shape.num_attention_heads * shape.v_head_dim, width)
        self.enter = self.leave = self.whole = same

    def forward(self, x: Tensor, context: Context, cache: Cache | None = None) -> Tensor:
        B, T, _ = x.shape
        shape = self.shape
        q = self.q_up(self.enter(self.q_norm(self.q_down(x)) if shape.q_lora_rank else x))
        q_nope, q_rope = (
            q.view(B, T, -1, shape.query_dim)
            .transpose(1, 2)
            .split((shape.qk_nope_head_dim, shape.qk_rope_head_dim), dim=-1)
        )
        q_rope = rotate(q_rope, context.cos, context.sin)
        latent, k_rope = self.kv_down(x).split((shape.kv_lora_rank, shape.qk_rope_head_dim), dim=-1)
        latent = self.kv_norm(latent)
        k_rope = rotate(k_rope.unsqueeze(1), context.cos, context.sin)
        latent = self.enter(latent.unsqueeze(1))
        k_rope = self.enter(k_rope)
        if cache is not None:
            latents, k_rope = cache.extend(latent, k_rope)
            return self._absorbed(q_nope, q_rope, latents, k_rope, context.mask)
        latent, k_rope = self.whole(latent), self.whole(k_rope)  # (B, 1, S, r), (B, 1, S, rope)
        kv = (
            self.kv_up(latent.squeeze(1))
            .view(B, latent.shape[2], -1, shape.qk_nope_head_dim + shape.v_head_dim)
            .transpose(1, 2)
        )
        k_nope, v = kv.split((shape.qk_nope_head_dim, shape.v_head_dim), dim=-1)
        k = torch.cat((k_nope, k_rope.expand(-1, k_nope.shape[1], -1, -1)), dim=-1)
        return self.leave(
            self.out(
                attend(torch.cat((q_nope, q_rope), dim=-1), k, v, context.mask, shape.score_scale)
            )
        )

    def _absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, k_rope: Tensor, mask: Tensor
    ) -> Tensor:
        """Attention inside the latent (section 2.1.2, "absorbed"): latents (B, 1, S, r), k_rope (B, 1, S, rope)."""
        shape = self.shape
        up = self.kv_up.weight.view(
            shape.num_attention_heads, shape.qk_nope_head_dim + shape.v_head_dim, shape.kv_lora_rank
        )
        w_uk, w_uv = up.split(
            (shape.qk_nope_head_dim, shape.v_head_dim), dim=1
        )  # (H, nope, r), (H, v, r)
        B, H, T, _ = q_nope.shape
        q_latent = torch.einsum("bhtn,hnr->bhtr", q_nope, w_uk).flatten(
            1, 2
        )  # heads as rows: the one latent is never copied
        latents = latents.squeeze(1)
        k_rope = k_rope.squeeze(1)
        scores = q_latent @ latents.transpose(1, 2) + q_rope.flatten(1, 2) @ k_rope.transpose(
            1, 2
        )  # (B, H T, S)
        weights = (scores.view(B, H, T, -1) * shape.score_scale + mask).softmax(dim=-1)
        out = torch.einsum(
            "bhtr,hvr->bhtv", (weights.flatten(1, 2) @ latents).view(B, H, T, -1), w_uv
        )
        return self.out(out.transpose(1, 2).flatten(2))
