"""`config.json` of a public checkpoint <-> `Shape`: DeepseekV2ForCausalLM and LlamaForCausalLM.

Everything that the network is made of is read or refused. An unknown field is refused too, as it
may change the numbers. Both spellings of the rope fields are read; the older one is written
(`rope_theta`, `rope_scaling`), which every reader accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import ExportError, InputError
from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn

# max_position_embeddings without YaRN; rotary positions have no end of their own.
CONTEXT = 4096
BOTTLENECK_EPS = 1e-6  # of DeepSeek-V2's two inner norms, whatever rms_norm_eps says
MODELS = {"DeepseekV2ForCausalLM": "deepseek_v2", "LlamaForCausalLM": "llama"}
ABSENT = object()
# Fields of a shape for which both architectures have one value only.
FIXED = {
    "gated": True,
    "biases": False,
    "n_positions": 0,
    "window": 0,
    "num_nextn_predict_layers": 0,
}
# Fields of a config that may only say what our network does anyway.
PLAIN: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0, None),
    "scoring_func": ("softmax",),
    "moe_layer_freq": (1,),
    # transformers does not read it, DeepSeek's own code does: readers disagree on true.
    "norm_topk_prob": (False, None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, None),
}
ROUTING = (
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_shared_experts",
    "routed_scaling_factor",
    "aux_loss_alpha",
    "topk_method",
    "n_group",
    "topk_group",
)
# Fields that do not change what a network computes.
SILENT = frozenset(
    (
        "_name_or_path",
        "architectures",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "ep_size",
        "id2label",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "max_position_embeddings",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "qk_head_dim",
        "return_dict",
        "seq_aux",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)


def architecture_of(shape: Shape) -> str:
    """Return the class of transformers that a shape is an instance of.

    Raises:
        ExportError: neither of the two classes has such a network.
    """
    name = "DeepseekV2ForCausalLM" if isinstance(shape.attention, Mla) else "LlamaForCausalLM"
    # Such a field would be lost in the config, and the model would compute something else.
    unsupported = [field for field, value in FIXED.items() if getattr(shape, field) != value]
    if unsupported:
        raise ExportError(
            f"shape.{', shape.'.join(unsupported)}: {name} has no such thing, "
            "so this model cannot be written as one"
        )
    if shape.experts and isinstance(shape.attention, Gqa):
        raise ExportError(
            "experts with GQA: neither DeepseekV2ForCausalLM nor LlamaForCausalLM has them; "
            "use MLA to export"
        )
    return name


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the `config.json` of a shape, without token ids and the type of the weights.

    Raises:
        ExportError: the public architectures have no such network.
    """
    architecture = architecture_of(shape)
    kind = shape.attention
    if shape.hidden_size % kind.num_attention_heads:
        raise ExportError(
            f"shape.hidden_size {shape.hidden_size} is no multiple of {kind.num_attention_heads} "
            "heads: transformers does not load that"
        )
    common = {
        "architectures": [architecture],
        "model_type": MODELS[architecture],
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": kind.num_attention_heads,
        "hidden_act": "silu",
        "rms_norm_eps": shape.rms_norm_eps,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": kind.rope_theta,
        "rope_scaling": None,
        "max_position_embeddings": CONTEXT,
    }
    if isinstance(kind, Gqa):
        return common | {"num_key_value_heads": kind.num_key_value_heads, "head_dim": kind.head_dim}
    return common | _latent_config(shape, kind)


def _latent_config(shape: Shape, kind: Mla) -> dict[str, Any]:
    if shape.rms_norm_eps != BOTTLENECK_EPS:
        raise ExportError(
            f"shape.rms_norm_eps {shape.rms_norm_eps}: the norms inside DeepSeek-V2's attention "
            f"have {BOTTLENECK_EPS}, so the exported model would be another; "
            f"train with rms_norm_eps = {BOTTLENECK_EPS}"
        )
    # A model without experts is one whose layers are all dense.
    dense = shape.experts.first_k_dense_replace if shape.experts else shape.num_hidden_layers
    config = {
        "num_key_value_heads": kind.num_attention_heads,
        "q_lora_rank": kind.q_lora_rank,
        "kv_lora_rank": kind.kv_lora_rank,
        "qk_nope_head_dim": kind.qk_nope_head_dim,
        "qk_rope_head_dim": kind.qk_rope_head_dim,
        "v_head_dim": kind.v_head_dim,
        "first_k_dense_replace": dense,
    }
    if shape.experts:
        config |= _experts_config(shape.experts)
    if kind.rope_scaling:
        config |= _yarn_config(kind.rope_scaling)
    return config


def _experts_config(experts: Experts) -> dict[str, Any]:
    if not experts.n_shared_experts:
        raise ExportError(
            "experts.n_shared_experts is 0: DeepseekV2ForCausalLM always has shared experts"
        )
    if experts.norm_topk_prob:
        raise ExportError(
            "experts.norm_topk_prob: transformers' DeepseekV2ForCausalLM does not normalise, "
            "so its answers would be others"
        )
    # Device-limited routing, or none: then there is one group.
    groups = {"topk_method": "greedy", "n_group": 1, "topk_group": 1}
    if experts.topk_group:
        groups["topk_method"] = "group_limited_greedy"
        groups["n_group"] = experts.n_group or experts.n_routed_experts
        groups["topk_group"] = experts.topk_group
    return {
        "n_routed_experts": experts.n_routed_experts,
        "num_experts_per_tok": experts.num_experts_per_tok,
        "moe_intermediate_size": experts.moe_intermediate_size,
        "n_shared_experts": experts.n_shared_experts,
        "routed_scaling_factor": experts.routed_scaling_factor,
        "aux_loss_alpha": experts.aux_loss_alpha,
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "moe_layer_freq": 1,
        **groups,
    }


def _yarn_config(yarn: Yarn) -> dict[str, Any]:
    if not _one_meaning(yarn.mscale, yarn.mscale_all_dim):
        raise ExportError(
            "attention.rope_scaling: readers agree on mscale only with mscale_all_dim beside it; "
            "set both, or mscale = 1"
        )
    # The older spelling; transformers reads it as rope_type.
    scaling = {
        "type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
    }
    if yarn.mscale_all_dim:
        scaling |= {"mscale": yarn.mscale, "mscale_all_dim": yarn.mscale_all_dim}
    context = round(yarn.factor * yarn.original_max_position_embeddings)
    return {"rope_scaling": scaling, "max_position_embeddings": context}


def _one_meaning(mscale: float, mscale_all_dim: float) -> bool:
    """Whether transformers and DeepSeek's own code read the two temperatures alike.

    They do when both are set, or none.
    """
    if mscale_all_dim:
        return bool(mscale)
    return mscale == 1


class _Fields:
    """Fields of a config, taken one by one, so that the unknown ones are left at the end."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.left = dict(fields)
        self.where = where  # for errors

    def take(self, name: str, default: Any = ABSENT) -> Any:
        value = self.left.pop(name, default)
        if value is ABSENT:
            raise InputError(f"{self.where}: {name} is missing")
        return value

    def plain(self, name: str, allowed: tuple[Any, ...]) -> None:
        """Take a field that may only have one of the allowed values; the first is the default."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            raise InputError(
                f"{self.where}: {name} is {value!r}; no network here has that, only {allowed[0]!r}"
            )

    def end(self) -> None:
        """Refuse fields that are left, unless they are silent."""
        # Sorted, so that the same file gives the same error.
        unknown = sorted(set(self.left) - SILENT)
        if unknown:
            raise InputError(
                f"{self.where}: {unknown[0]} is unknown and may change the network; "
                "remove it if it does not"
            )


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> Shape:
    """Return the shape that a `config.json` describes.

    Args:
        config: the parsed file.
        where: its path, for errors.

    Raises:
        InputError: another architecture, a missing field, a value that no network here has, or an
            unknown field.
    """
    model = config.get("model_type")
    if model not in MODELS.values():
        known = " and ".join(MODELS.values())
        raise InputError(f"{where}: model_type is {model!r}; {known} are read")
    fields = _Fields(config, where)
    for name, allowed in PLAIN.items():
        fields.plain(name, allowed)
    shape = _checked_shape(fields, latent=model == "deepseek_v2")
    fields.end()
    return shape


def _checked_shape(fields: _Fields, latent: bool) -> Shape:
    """Return the shape, and name the field where a value does not fit."""
    try:
        return _shape(fields, latent)
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(map(str, fault["loc"]))
        message = f"{path}: {fault['msg']}, not {fault['input']!r}"
    except (TypeError, ValueError, ZeroDivisionError) as error:
        # Widths are divided before they are checked.
        message = f"a value is of the wrong kind ({error})"
    raise InputError(f"{fields.where}: {message}")


def _shape(fields: _Fields, latent: bool) -> Shape:
    """Return the shape; what is left in `fields` then is not part of it."""
    # Widths first: other fields depend on them.
    take = fields.take
    theta, yarn = _rope(fields)
    width = take("hidden_size")
    layers = take("num_hidden_layers")
    heads = take("num_attention_heads")
    eps = take("rms_norm_eps", 1e-6)
    if latent and eps != BOTTLENECK_EPS:
        raise InputError(
            f"{fields.where}: rms_norm_eps is {eps}; the norms inside the attention have "
            f"{BOTTLENECK_EPS}, ours are all one"
        )
    # Llama with YaRN exists, but Gqa here has no scaling.
    if not latent and yarn:
        raise InputError(
            f"{fields.where}: rope_scaling is 'yarn'; only deepseek_v2 is read with it"
        )
    parts = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": take("intermediate_size"),
        "vocab_size": take("vocab_size"),
        "tie_word_embeddings": take("tie_word_embeddings", False),
        "rms_norm_eps": eps,
    }
    if latent:
        attention = _latent(fields, heads) | {"rope_theta": theta, "rope_scaling": yarn}
        return Shape(**parts, attention=Mla(**attention), experts=_experts(fields, layers))
    return Shape(**parts, attention=_grouped(fields, heads, width, theta))


def _grouped(fields: _Fields, heads: int, width: int, theta: float) -> Gqa:
    """Return Llama's attention; older configs have neither groups nor a size of heads."""
    return Gqa(
        num_attention_heads=heads,
        rope_theta=theta,
        num_key_value_heads=fields.take("num_key_value_heads", None) or heads,
        head_dim=fields.take("head_dim", None) or width // heads,
    )


def _latent(fields: _Fields, heads: int) -> dict[str, Any]:
    take = fields.take
    # MLA has one latent for all heads; the field repeats their number.
    fields.plain("num_key_value_heads", (heads, None))
    take("head_dim", None)  # transformers sets it to the rotary part
    return {
        "num_attention_heads": heads,
        "q_lora_rank": take("q_lora_rank"),
        "kv_lora_rank": take("kv_lora_rank"),
        "qk_nope_head_dim": take("qk_nope_head_dim"),
        "qk_rope_head_dim": take("qk_rope_head_dim"),
        "v_head_dim": take("v_head_dim"),
    }


def _experts(fields: _Fields, layers: int) -> Experts | None:
    """Return the mixture of experts; None when every layer is dense."""
    dense = fields.take("first_k_dense_replace", 0)
    routed = fields.take("n_routed_experts", None)
    if routed is None or dense >= layers:
        # Fields of the routing mean nothing then; they are taken so that none is left.
        for name in ROUTING:
            fields.take(name, None)
        return None
    return Experts(
        n_routed_experts=routed,
        num_experts_per_tok=fields.take("num_experts_per_tok"),
        moe_intermediate_size=fields.take("moe_intermediate_size"),
        n_shared_experts=fields.take("n_shared_experts") or 0,
        first_k_dense_replace=dense,
        routed_scaling_factor=fields.take("routed_scaling_factor", 1.0),
        aux_loss_alpha=fields.take("aux_loss_alpha", 0.001),
        **_device_limits(fields),
    )


def _device_limits(fields: _Fields) -> dict[str, Any]:
    """Return the limits of device-limited routing; greedy routing ignores both fields."""
    method = fields.take("topk_method", "greedy")
    groups = fields.take("n_group", None)
    limit = fields.take("topk_group", None)
    if method not in ("greedy", "group_limited_greedy"):
        raise InputError(
            f"{fields.where}: topk_method is {method!r}; greedy and group_limited_greedy are read"
        )
    if method == "greedy":
        return {}
    return {"n_group": groups, "topk_group": limit}


def _rope(fields: _Fields) -> tuple[float, Yarn | None]:
    """Return the base of the frequencies and their scaling, from the older or newer spelling."""
    older = fields.take("rope_scaling", None)
    newer = fields.take("rope_parameters", None)
    inner = _Fields(newer or older or {}, f"{fields.where}: rope_scaling")
    # The newer spelling has the base inside, and may have the older one beside it.
    theta = fields.take("rope_theta", 10_000.0)
    theta = inner.take("rope_theta", theta)
    kinds = {inner.take("type", None), inner.take("rope_type", None)} - {None, "default"}
    if kinds and kinds != {"yarn"}:
        names = " and ".join(sorted(map(repr, kinds)))
        raise InputError(f"{inner.where} is {names}; no network here stretches positions like that")
    yarn = _yarn(inner) if kinds else None
    inner.end()
    return theta, yarn


def _yarn(fields: _Fields) -> Yarn:
    mscale = fields.take("mscale", 1.0)
    all_dim = fields.take("mscale_all_dim", 0.0)
    if not _one_meaning(mscale, all_dim):
        raise InputError(
            f"{fields.where}: mscale {mscale} with mscale_all_dim {all_dim}: "
            "readers do not agree on what that means"
        )
    fields.plain("partial_rotary_factor", (1, None))
    fields.plain("attention_factor", (None,))
    fields.plain("truncate", (True,))
    return Yarn(
        factor=fields.take("factor"),
        original_max_position_embeddings=fields.take("original_max_position_embeddings"),
        beta_fast=fields.take("beta_fast", 32),
        beta_slow=fields.take("beta_slow", 1),
        mscale=mscale,
        mscale_all_dim=all_dim,
    )
