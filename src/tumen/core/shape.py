"""The arithmetic of an architecture: one `Shape` says what is built, planned, exported and counted.

Two families from one shape (DeepSeek-V2, arXiv 2405.04434; Llama, arXiv 2302.13971):
    attention      `Mla` (latent attention, section 2.1) or `Gqa` (grouped queries)
    feed-forward   dense in every layer (gated SwiGLU, or GPT-3's plain one), or DeepSeekMoE
                   (section 2.2) after the first dense layers
Counts are exact integers and equal what torch holds (tests/core/test_shape.py, tests/contracts/).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base of everything a recipe is made of: frozen, and an unknown field is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields; as in pydantic, the new values are not checked.

        Raises:
            TypeError: there is no such field. Pydantic's own `model_copy` would set it silently.
        """
        unknown = sorted(set(update or ()) - type(self).model_fields.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(unknown)}")
        return super().model_copy(update=update, deep=deep)


class Yarn(Frozen):
    """Positions beyond the trained context (YaRN, arXiv 2309.00071).

    Slow frequencies are divided by `factor`, fast ones stay. `mscale` and `mscale_all_dim` are
    DeepSeek-V2's two temperatures: of the rotary features and of all features.
    """

    type: Literal["yarn"] = "yarn"
    # Names and defaults of `rope_scaling` in DeepSeek-V2's config.json.
    factor: float = Field(ge=1, description="how much longer the context becomes")
    original_max_position_embeddings: Positive = Field(description="tokens of the context before")
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
        # Both temperatures apply to the scores, so what scores have already is divided out.
        return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)

    @property
    def score_scale(self) -> float:
        """Factor of the attention scores."""
        temperature = self._temperature(self.mscale_all_dim)
        return temperature * temperature

    def _temperature(self, weight: float) -> float:
        # YaRN, equation 22: attention gets sharper as the context grows.
        return 0.1 * weight * math.log(self.factor) + 1


class Mla(Frozen):
    """Multi-head latent attention (arXiv 2405.04434, equations 9-19).

    Keys and values are read from one latent of `kv_lora_rank` a token. `qk_rope_head_dim` more
    features, shared by all heads, carry the position. `q_lora_rank` compresses the query as well;
    llama.cpp needs it for every number of layers but 26 and 27.
    """

    kind: Literal["mla"] = "mla"
    num_attention_heads: Positive
    kv_lora_rank: Positive
    q_lora_rank: Positive | None = None
    qk_nope_head_dim: Positive = 128
    qk_rope_head_dim: Positive = 64
    v_head_dim: Positive = 128
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: Yarn | None = None

    @property
    def score_scale(self) -> float:
        """What query times key is multiplied with before the softmax."""
        scale = float(self.query_dim**-0.5)
        if self.rope_scaling:
            scale *= self.rope_scaling.score_scale
        return scale

    @property
    def query_dim(self) -> int:
        """Width of one query head: the part without position and the part with it."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def parameters(self, width: int) -> int:
        """Weights of one attention block at model width `width`, bottleneck norms included."""
        heads = self.num_attention_heads
        query = heads * self.query_dim
        if self.q_lora_rank:
            # Down to the bottleneck, its norm, and up to the heads.
            query_weights = self.q_lora_rank * (width + 1 + query)
        else:
            query_weights = width * query
        down_kv = width * (self.kv_lora_rank + self.qk_rope_head_dim) + self.kv_lora_rank
        up_kv = self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        output = heads * self.v_head_dim * width
        return query_weights + down_kv + up_kv + output

    def cache_elements(self) -> int:
        """Elements kept per token and layer: the latent and the shared rotary key."""
        # Independent of the number of heads: that is what MLA is for.
        return self.kv_lora_rank + self.qk_rope_head_dim

    @model_validator(mode="after")
    def _even_rope(self) -> Mla:
        # Each pair of features is one plane of rotation.
        if self.qk_rope_head_dim % 2:
            raise ValueError(
                f"qk_rope_head_dim {self.qk_rope_head_dim} must be even: "
                "rotary positions turn pairs"
            )
        return self


class Gqa(Frozen):
    """Grouped-query attention (arXiv 2305.13245).

    `num_key_value_heads == num_attention_heads` is plain multi-head attention.
    """

    kind: Literal["gqa"] = "gqa"
    num_attention_heads: Positive
    num_key_value_heads: Positive
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
        # Query and output have all heads, key and value one a group.
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        return width * self.head_dim * heads

    def cache_elements(self) -> int:
        """Elements kept per token and layer: keys and values of every group."""
        return 2 * self.num_key_value_heads * self.head_dim

    @model_validator(mode="after")
    def _groups(self) -> Gqa:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: rotary positions turn pairs")
        return self


Attention = Annotated[Mla | Gqa, Field(discriminator="kind")]


class Experts(Frozen):
    """DeepSeekMoE (arXiv 2405.04434, section 2.2).

    Shared experts process every token; each token is sent to `num_experts_per_tok` of
    `n_routed_experts`. The routed experts lie on `n_group` devices (0: one expert a device).

    Token dropping (section 2.2.4): in training a device takes `capacity_factor` times an even share
    of the tokens, and drops those with the lowest affinity. A share `protect` of the sequences
    never loses a token. Nothing is dropped at evaluation.

    Balance: `aux_loss_alpha`, `balance_devices` and `balance_communication` are the factors of the
    three balance losses (equations 23-31; DeepSeek-V2: 0.003, 0.05, 0.02). `bias_rate` balances
    without a loss instead (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).

    `routed_scaling_factor` multiplies the sum of the routed experts.
    """

    n_routed_experts: Positive
    num_experts_per_tok: Positive
    moe_intermediate_size: Positive
    n_shared_experts: int = Field(1, ge=0)
    first_k_dense_replace: int = Field(1, ge=0)
    scoring_func: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="affinity: softmax (V2) or sigmoid (V3)"
    )
    aux_loss_alpha: float = Field(
        0.003, ge=0, description="factor of the expert-level balance loss"
    )
    balance_devices: float = Field(0.0, ge=0, description="factor of the device-level balance loss")
    balance_communication: float = Field(
        0.0, ge=0, description="factor of the communication balance loss"
    )
    bias_rate: float = Field(
        0.0,
        ge=0,
        description="step of the balancing bias after each training step; 0: no bias (V3: 0.001)",
    )
    routed_scaling_factor: float = Field(1.0, gt=0)
    norm_topk_prob: bool = False
    capacity_factor: float = Field(1.5, gt=0)
    protect: float = Field(
        0.1, ge=0, le=1, description="share of the sequences whose tokens are never dropped"
    )
    n_group: int = Field(0, ge=0, description="devices the experts lie on; 0: one expert a device")
    topk_group: int = Field(
        0, ge=0, description="most devices (nodes) a token is sent to; 0: no limit"
    )

    @property
    def devices(self) -> int:
        """Devices the routed experts lie on."""
        return self.n_group or self.n_routed_experts

    @model_validator(mode="after")
    def _choice(self) -> Experts:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} cannot be more than "
                f"n_routed_experts {self.n_routed_experts}"
            )
        if self.n_routed_experts % self.devices:
            raise ValueError(
                f"n_group {self.n_group} must divide n_routed_experts {self.n_routed_experts}"
            )
        # A token can be sent to the experts of topk_group devices only.
        reach = self.topk_group * (self.n_routed_experts // self.devices)
        if self.n_group and self.topk_group and self.num_experts_per_tok > reach:
            raise ValueError(
                f"topk_group {self.topk_group} leaves {reach} experts to choose from, "
                f"num_experts_per_tok is {self.num_experts_per_tok}"
            )
        return self


# Keys of attention, which a config.json has beside the others and a recipe in a table of its own.
FLAT = frozenset({*Mla.model_fields, *Gqa.model_fields} - {"kind"})
# Values of keys that a config.json leaves out. A recipe's `attention` table has field defaults.
CONFIG_DEFAULTS = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6}


class Shape(Frozen):
    """One decoder-only transformer. In a recipe `vocab_size` may be 0: the tokenizer sets it."""

    # Names of config.json of DeepSeek-V2 and Llama.
    hidden_size: Positive
    num_hidden_layers: Positive
    intermediate_size: Positive
    attention: Attention
    experts: Experts | None = None
    vocab_size: int = Field(0, ge=0)
    tie_word_embeddings: bool = True
    rms_norm_eps: float = Field(1e-5, gt=0)
    # What GPT-3 and others do in another way.
    gated: bool = Field(
        True, description="SwiGLU with three matrices; false: the plain two of GPT-3"
    )
    biases: bool = Field(False, description="biases on every projection and norm, as in GPT-3")
    n_positions: int = Field(0, ge=0, description="learned positions; 0: rotary")
    window: int = Field(0, ge=0, description="sliding attention window in tokens; 0: full")
    num_nextn_predict_layers: int = Field(
        0, ge=0, description="multi-token-prediction layers (arXiv 2412.19437, section 2.2)"
    )

    @model_validator(mode="before")
    @classmethod
    def _pasted(cls, value: Any) -> Any:
        """Accept the flat keys of a DeepSeek-V2 or Llama config.json as well."""
        if not isinstance(value, dict) or "attention" in value:
            return value
        return value if FLAT.isdisjoint(value) else _gathered(value)

    @model_validator(mode="after")
    def _layers(self) -> Shape:
        # A mixture without a layer would be counted as parameters that no layer has.
        if self.experts and self.experts.first_k_dense_replace >= self.num_hidden_layers:
            raise ValueError(
                f"experts.first_k_dense_replace {self.experts.first_k_dense_replace} must be below "
                f"num_hidden_layers {self.num_hidden_layers}"
            )
        return self

    @property
    def moe_layers(self) -> int:
        """Layers whose feed-forward is a mixture of experts."""
        if not self.experts:
            return 0
        return self.num_hidden_layers - self.experts.first_k_dense_replace

    def _blocks(self, routed: int) -> int:
        """Weights of all blocks when `routed` experts of each mixture layer are counted."""
        width = self.hidden_size
        dense = self._matrices() * width * self.intermediate_size
        mixture = self._mixture(routed)
        norms = 2 * width
        every = self.attention.parameters(width) + norms + self._layer_biases()
        dense_layers = self.num_hidden_layers - self.moe_layers
        total = self.num_hidden_layers * every + dense_layers * dense + self.moe_layers * mixture
        # A predicted token costs one more layer, two norms, and the projection that joins both
        # inputs (arXiv 2412.19437, equation 21). Embedding and head are shared.
        joining = 2 * width * width + 2 * width
        predicting = every + (mixture or dense) + joining
        return total + self.num_nextn_predict_layers * predicting

    def _matrices(self) -> int:
        """Matrices of a feed-forward."""
        return 3 if self.gated else 2

    def _mixture(self, routed: int) -> int:
        """Weights of a mixture layer's experts and router; 0 without experts."""
        experts = self.experts
        if not experts:
            return 0
        # The balancing bias is one more number for each expert.
        router = (self.hidden_size + bool(experts.bias_rate)) * experts.n_routed_experts
        expert = self._matrices() * self.hidden_size * experts.moe_intermediate_size
        return expert * (routed + experts.n_shared_experts) + router

    def _layer_biases(self) -> int:
        """Biases of one layer: qkv, attention output, feed-forward matrices and the two norms."""
        if not self.biases:
            return 0
        qkv = self.attention.num_attention_heads * self.attention.query_dim
        if isinstance(self.attention, Gqa):
            qkv += 2 * self.attention.num_key_value_heads * self.attention.head_dim
        # Gate and up end in intermediate_size, down and attention in hidden_size.
        inner = (self._matrices() - 1) * self.intermediate_size
        norms = 2 * self.hidden_size
        return qkv + inner + 2 * self.hidden_size + norms

    def _ends(self) -> int:
        """Weights before and after the layers: embedding, head, learned positions, last norm."""
        tables = 1 if self.tie_word_embeddings else 2
        embeddings = tables * self.vocab_size * self.hidden_size
        positions = self.n_positions * self.hidden_size
        norm = self.hidden_size * (2 if self.biases else 1)
        return embeddings + positions + norm

    def parameters(self) -> int:
        """All weights, embeddings and head included."""
        routed = self.experts.n_routed_experts if self.experts else 0
        return self._blocks(routed) + self._ends()

    def active_parameters(self) -> int:
        """Weights that one token uses: `num_experts_per_tok` routed experts instead of all."""
        return self._active_blocks() + self._ends()

    def _active_blocks(self) -> int:
        return self._blocks(self.experts.num_experts_per_tok if self.experts else 0)

    def cache_elements(self) -> int:
        """Elements of the key-value cache per token, all layers (DeepSeek-V2: 34,560)."""
        return self.num_hidden_layers * self.attention.cache_elements()

    def cache_bytes(self, bits: float = 16) -> float:
        """Bytes of the key-value cache per token at `bits` an element."""
        return self.cache_elements() * bits / 8

    def flops_per_token(self, context: int) -> int:
        """FLOPs of the forward pass for one token that attends to `context` tokens.

        Matrix products and attention scores; a multiply-add is two FLOPs.
        """
        attention = self.attention
        # Tokens outside of a sliding window are not attended to.
        if self.window:
            context = min(context, self.window)
        # Each predicted token goes through a layer and the head again.
        layers = self.num_hidden_layers + self.num_nextn_predict_layers
        heads = 1 + self.num_nextn_predict_layers
        matmuls = self._active_blocks() + heads * self.vocab_size * self.hidden_size
        v_dim = attention.v_head_dim if isinstance(attention, Mla) else attention.head_dim
        head_scores = (attention.query_dim + v_dim) * context
        scores = layers * attention.num_attention_heads * head_scores
        return 2 * (matmuls + scores)


class EncoderShape(Frozen):
    """One BERT with label heads (arXiv 1810.04805); tokenizer and ontology set its last fields."""

    kind: Literal["encoder"] = "encoder"
    # Names of BERT's config.json.
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    max_position_embeddings: Positive = 512
    layer_norm_eps: float = Field(1e-12, gt=0)
    hidden_dropout_prob: float = Field(0.0, ge=0, lt=1, description="in training alone")
    vocab_size: int = Field(0, ge=0)
    labels: tuple[int, int, int] = Field(
        (0, 0, 0), description="outputs for a sentence, tags for a word, intents"
    )

    @model_validator(mode="after")
    def _heads(self) -> EncoderShape:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self

    def _layers(self) -> int:
        # Four square matrices, two of the feed-forward, biases and two norms.
        width, inner = self.hidden_size, self.intermediate_size
        return self.num_hidden_layers * (4 * width**2 + 2 * width * inner + inner + 9 * width)

    def parameters(self) -> int:
        """All weights, embeddings and label heads included."""
        sentence, tags, intents = self.labels
        tables = (self.vocab_size + self.max_position_embeddings + 2) * self.hidden_size
        heads = sentence * (2 * self.hidden_size + 1) + tags * (self.hidden_size + 1 + intents)
        return tables + self._layers() + heads

    def active_parameters(self) -> int:
        """All weights: every token uses them."""
        return self.parameters()

    def flops_per_token(self, context: int) -> int:
        """FLOPs of the forward pass for one token of a row of `context` tokens."""
        return 2 * (self._layers() + 2 * self.num_hidden_layers * self.hidden_size * context)


def _gathered(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat keys of a config.json as fields of a shape.

    Attention is MLA when there is a `kv_lora_rank`, else GQA. A key without a field stays where it
    is, so that it is reported as an unknown field.
    """
    # A copy: keys are moved out of it one after the other.
    left: dict[str, Any] = CONFIG_DEFAULTS | dict(config)
    if "kv_lora_rank" in config:
        left["attention"] = _gathered_mla(left)
    else:
        left["attention"] = _gathered_gqa(left)
    if "n_routed_experts" in config and "experts" not in config:
        left["experts"] = _gathered_experts(left)
    return left


def _gathered_mla(left: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of MLA out of `left`."""
    attention = {"kind": "mla", **_taken(left, Mla)}
    if left.get("num_key_value_heads") == attention.get("num_attention_heads"):
        left.pop("num_key_value_heads", None)  # the config says the same twice
    return attention


def _gathered_gqa(left: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of GQA out of `left`; missing ones follow from the others, as in Llama's."""
    attention = {"kind": "gqa", **_taken(left, Gqa)}
    heads = attention.get("num_attention_heads")
    width = left.get("hidden_size")
    attention.setdefault("num_key_value_heads", heads)
    if isinstance(heads, int) and heads > 0 and isinstance(width, int):
        attention.setdefault("head_dim", width // heads)
    return attention


def _gathered_experts(left: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of a mixture of experts out of `left`."""
    # What DeepSeek's own config class means by a missing key.
    defaults = {"first_k_dense_replace": 0, "n_shared_experts": 0, "aux_loss_alpha": 0.001}
    experts = defaults | _taken(left, Experts)
    method = left.get("topk_method")
    if method == "greedy":  # transformers then reads neither n_group nor topk_group
        experts.pop("n_group", None)
        experts.pop("topk_group", None)
    if method in ("greedy", "group_limited_greedy"):
        left.pop("topk_method")
    return experts


def _taken(left: dict[str, Any], model: type[Frozen]) -> dict[str, Any]:
    """Move the fields of `model` out of `left`; `kind` is not a key of a config.json."""
    names = [name for name in model.model_fields if name in left and name != "kind"]
    return {name: left.pop(name) for name in names}
