"""The arithmetic of an architecture: one `Shape` says what is built, planned, exported and counted.

Two families from one shape (DeepSeek-V2, arXiv 2405.04434; Llama, arXiv 2302.13971):
    attention   `Mla` (latent attention, section 2.1) or `Gqa` (grouped queries)
    feed        a dense FFN (gated SwiGLU, or GPT-3's plain one) in every layer, or DeepSeekMoE (section 2.2) after dense ones
Counts are exact integers and equal what torch holds (tests/core/test_shape.py, tests/contracts/).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]


class Frozen(BaseModel):
    """Base of everything a recipe is made of: frozen, and a field nobody knows is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Yarn(Frozen):
    """Positions beyond the trained context (YaRN, arXiv 2309.00071): slow frequencies are divided by `factor`, fast ones stay.

    `mscale` and `mscale_all_dim` are DeepSeek-V2's two temperatures, of the rotary features and of all.
    """

    factor: float = Field(ge=1, description="how much longer the context becomes")
    original: Positive = Field(description="tokens of the context before")
    beta_fast: float = Field(
        32.0, gt=0, description="turns within the old context from which on a frequency stays"
    )
    beta_slow: float = Field(
        1.0, gt=0, description="turns within the old context up to which a frequency is divided"
    )
    mscale: float = Field(1.0, ge=0)
    mscale_all_dim: float = Field(0.0, ge=0)

    @property
    def turn_scale(self) -> float:
        """Factor of cosine and sine."""
        return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)

    @property
    def score_scale(self) -> float:
        """Factor of the attention scores."""
        temperature = self._temperature(self.mscale_all_dim)
        return temperature * temperature

    def _temperature(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1


class Mla(Frozen):
    """Multi-head latent attention (arXiv 2405.04434, equations 9-19).

    Keys and values are read from one latent of `kv_rank` a token; `rope_dim` more carry the position, shared by all heads.
    `q_rank` compresses the query as well; llama.cpp wants it set for every layer count but 26 and 27.
    """

    kind: Literal["mla"] = "mla"
    heads: Positive
    kv_rank: Positive
    q_rank: Positive | None = None
    nope_dim: Positive = 128
    rope_dim: Positive = 64
    v_dim: Positive = 128
    rope_theta: float = Field(10_000.0, gt=0)
    yarn: Yarn | None = None

    @property
    def score_scale(self) -> float:
        """What query times key is multiplied with before the softmax."""
        return float(self.query_dim**-0.5) * (self.yarn.score_scale if self.yarn else 1.0)

    @property
    def query_dim(self) -> int:
        """Width of one query head: the part without position and the part with it."""
        return self.nope_dim + self.rope_dim

    def parameters(self, width: int) -> int:
        """Weights of one attention block at model width `width`, bottleneck norms included."""
        query = self.heads * self.query_dim
        down_q = (
            width * self.q_rank + self.q_rank + self.q_rank * query
            if self.q_rank
            else width * query
        )
        down_kv = width * (self.kv_rank + self.rope_dim) + self.kv_rank
        up_kv = self.kv_rank * self.heads * (self.nope_dim + self.v_dim)
        return down_q + down_kv + up_kv + self.heads * self.v_dim * width

    def cache_elements(self) -> int:
        """Elements kept per token and layer: the latent and the shared rotary key."""
        return self.kv_rank + self.rope_dim

    @model_validator(mode="after")
    def _even_rope(self) -> Mla:
        if self.rope_dim % 2:
            raise ValueError(f"rope_dim {self.rope_dim} must be even: rotary positions turn pairs")
        return self


class Gqa(Frozen):
    """Grouped-query attention (arXiv 2305.13245); `kv_heads == heads` is plain multi-head attention."""

    kind: Literal["gqa"] = "gqa"
    heads: Positive
    kv_heads: Positive
    head_dim: Positive = 64
    rope_theta: float = Field(10_000.0, gt=0)

    @property
    def query_dim(self) -> int:
        """Width of one query head."""
        return self.head_dim

    @property
    def score_scale(self) -> float:
        """What query times key is multiplied with before the softmax."""
        return float(self.head_dim**-0.5)

    def parameters(self, width: int) -> int:
        """Weights of one attention block at model width `width`."""
        return width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    def cache_elements(self) -> int:
        """Elements kept per token and layer: keys and values of every group."""
        return 2 * self.kv_heads * self.head_dim

    @model_validator(mode="after")
    def _groups(self) -> Gqa:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: rotary positions turn pairs")
        return self


Attention = Annotated[Mla | Gqa, Field(discriminator="kind")]


class Experts(Frozen):
    """DeepSeekMoE (arXiv 2405.04434, section 2.2): shared experts see every token, `top_k` of `routed` are chosen.

    The routed experts lie on `groups` devices (0: one expert a device). In training a device takes `capacity` times an even
    share of the tokens, those with the lowest affinity are dropped; `protect` of the sequences never lose one, and nothing is
    dropped at evaluation (section 2.2.4). `balance`, `balance_devices` and `balance_communication` are the factors of the three
    balance losses (equations 23-31; DeepSeek-V2: 0.003, 0.05, 0.02). `bias_rate` balances without a loss instead
    (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). `scale` multiplies the routed sum.
    """

    routed: Positive
    top_k: Positive
    width: Positive
    shared: int = Field(1, ge=0)
    dense_layers: int = Field(1, ge=0)
    gate: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="affinity: softmax (V2) or sigmoid (V3)"
    )
    balance: float = Field(0.003, ge=0, description="factor of the expert-level balance loss")
    balance_devices: float = Field(0.0, ge=0, description="factor of the device-level balance loss")
    balance_communication: float = Field(
        0.0, ge=0, description="factor of the communication balance loss"
    )
    bias_rate: float = Field(
        0.0,
        ge=0,
        description="step of the balancing bias after each training step; 0: no bias (V3: 0.001)",
    )
    scale: float = Field(1.0, gt=0)
    normalise: bool = False
    capacity: float = Field(1.5, gt=0)
    protect: float = Field(
        0.1, ge=0, le=1, description="share of the sequences whose tokens are never dropped"
    )
    groups: int = Field(0, ge=0, description="devices the experts lie on; 0: one expert a device")
    device_limit: int = Field(
        0, ge=0, description="most devices (nodes) a token is sent to; 0: no limit"
    )

    @property
    def devices(self) -> int:
        """Devices the routed experts lie on."""
        return self.groups or self.routed

    @model_validator(mode="after")
    def _choice(self) -> Experts:
        if self.top_k > self.routed:
            raise ValueError(f"top_k {self.top_k} cannot be more than routed {self.routed}")
        if self.routed % self.devices:
            raise ValueError(f"groups {self.groups} must divide routed {self.routed}")
        reach = self.device_limit * (self.routed // self.devices)
        if self.groups and self.device_limit and self.top_k > reach:
            raise ValueError(
                f"device_limit {self.device_limit} leaves {reach} experts to choose from, top_k is {self.top_k}"
            )
        return self


class Shape(Frozen):
    """One decoder-only transformer. `vocab` is 0 in a recipe that takes the vocabulary from its tokeniser."""

    width: Positive
    layers: Positive
    feed_forward: Positive
    attention: Attention
    experts: Experts | None = None
    vocab: int = Field(0, ge=0)
    tied: bool = True
    norm_eps: float = Field(1e-5, gt=0)
    gated: bool = Field(
        True, description="SwiGLU with three matrices; false: the plain two of GPT-3"
    )
    biases: bool = Field(False, description="biases on every projection and norm, as in GPT-3")
    positions: int = Field(0, ge=0, description="learned positions; 0: rotary")
    window: int = Field(0, ge=0, description="sliding attention window in tokens; 0: full")
    mtp: int = Field(
        0, ge=0, description="multi-token-prediction layers (arXiv 2412.19437, section 2.2)"
    )

    @model_validator(mode="after")
    def _layers(self) -> Shape:
        if self.experts and self.experts.dense_layers >= self.layers:
            raise ValueError(
                f"experts.dense_layers {self.experts.dense_layers} must be below layers {self.layers}"
            )
        return self

    @property
    def moe_layers(self) -> int:
        """Layers whose feed-forward is a mixture of experts."""
        return self.layers - self.experts.dense_layers if self.experts else 0

    def _block(self, routed: int) -> int:
        """Weights of all blocks when `routed` experts a mixture layer are counted."""
        matrices = 3 if self.gated else 2
        dense = matrices * self.width * self.feed_forward
        mixture = 0
        if self.experts:
            gate = (self.width + bool(self.experts.bias_rate)) * self.experts.routed
            mixture = (
                matrices * self.width * self.experts.width * (routed + self.experts.shared) + gate
            )
        every = self.attention.parameters(self.width) + 2 * self.width + self._layer_biases()
        total = (
            self.layers * every
            + (self.layers - self.moe_layers) * dense
            + self.moe_layers * mixture
        )
        # one more layer a predicted token, two norms and the projection that joins both inputs; embedding and head are shared
        return total + self.mtp * (
            every + (mixture or dense) + 2 * self.width * self.width + 2 * self.width
        )

    def _layer_biases(self) -> int:
        """Biases of one layer: qkv, attention output, both feed-forward matrices and the two norms."""
        if not self.biases:
            return 0
        qkv = self.attention.heads * self.attention.query_dim
        if isinstance(self.attention, Gqa):
            qkv += 2 * self.attention.kv_heads * self.attention.head_dim
        return (
            qkv
            + self.width
            + self.feed_forward * (2 if self.gated else 1)
            + self.width
            + 2 * self.width
        )

    def _ends(self) -> int:
        """Weights before and after the layers: embedding, head, learned positions, last norm."""
        embeddings = self.vocab * self.width * (1 if self.tied else 2)
        return embeddings + self.positions * self.width + self.width * (2 if self.biases else 1)

    def parameters(self) -> int:
        """All weights, embeddings and head included."""
        return self._block(self.experts.routed if self.experts else 0) + self._ends()

    def active_parameters(self) -> int:
        """Weights that one token uses: `top_k` routed experts instead of all."""
        return self._block(self.experts.top_k if self.experts else 0) + self._ends()

    def cache_elements(self) -> int:
        """Elements of the key-value cache per token, all layers (DeepSeek-V2: 34,560)."""
        return self.layers * self.attention.cache_elements()

    def cache_bytes(self, bits: float = 16) -> float:
        """Bytes of the key-value cache per token at `bits` an element."""
        return self.cache_elements() * bits / 8

    def flops_per_token(self, context: int) -> int:
        """Forward multiply-adds times two for one token that attends to `context` tokens: matmuls and attention scores."""
        head = self.vocab * self.width * (1 + self.mtp)
        context = min(context, self.window) if self.window else context
        matmuls = self._block(self.experts.top_k if self.experts else 0) + head
        v_dim = self.attention.v_dim if isinstance(self.attention, Mla) else self.attention.head_dim
        scores = (
            (self.layers + self.mtp)
            * self.attention.heads
            * (self.attention.query_dim + v_dim)
            * context
        )
        return 2 * (matmuls + scores)
