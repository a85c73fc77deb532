"""`config.json` of a public checkpoint <-> `Shape`: `DeepseekV2ForCausalLM` and `LlamaForCausalLM`.

What the network is made of is read or refused; a field nobody knows is refused too, for it may change the numbers. Of the rope
fields the older spelling is written (`rope_theta`, `rope_scaling`), which every reader takes; both are read.
Stands in core because a recipe takes the shape of an outside model from here, on machines without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import ExportError, InputError
from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn

CONTEXT = (
    4096  # max_position_embeddings where no yarn says it; rotary positions have no end of their own
)
BOTTLENECK_EPS = 1e-6  # of DeepSeek-V2's two inner norms, whatever rms_norm_eps says
MODELS = {"DeepseekV2ForCausalLM": "deepseek_v2", "LlamaForCausalLM": "llama"}
ABSENT = object()
THEIRS = {
    "gated": True,
    "biases": False,
    "n_positions": 0,
    "window": 0,
    "num_nextn_predict_layers": 0,
}  # fields of a shape that both leave no choice of

PLAIN: dict[str, tuple[Any, ...]] = {  # fields that may only say what our network does anyway
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0, None),
    "scoring_func": ("softmax",),
    "moe_layer_freq": (1,),
    "norm_topk_prob": (
        False,
        None,
    ),  # transformers does not read it, DeepSeek's own code does: no meaning both share
    "sliding_window": (None,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, None),
}
ROUTING = (
    "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts", "routed_scaling_factor", "aux_loss_alpha", "topk_method",
    "n_group", "topk_group",
)  # fmt: skip
SILENT = frozenset(  # fields that change nothing a network computes
    (
        "_name_or_path", "architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "ep_size",
        "id2label", "initializer_range", "is_encoder_decoder", "label2id", "max_position_embeddings", "model_type",
        "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "problem_type",
        "qk_head_dim", "return_dict", "seq_aux", "torch_dtype", "transformers_version", "use_cache",
    )
)  # fmt: skip


def architecture_of(shape: Shape) -> str:
    """The public class that a shape is an instance of.

    Raises:
        ExportError: none that we write.
    """
    name = "DeepseekV2ForCausalLM" if isinstance(shape.attention, Mla) else "LlamaForCausalLM"
    foreign = [field for field, theirs in THEIRS.items() if getattr(shape, field) != theirs]
    if foreign:
        raise ExportError(
            f"shape.{', shape.'.join(foreign)}: {name} has no such thing, so this model cannot be written as one"
        )
    if shape.experts and isinstance(shape.attention, Gqa):
        raise ExportError(
            "experts with GQA: neither DeepseekV2ForCausalLM nor LlamaForCausalLM has them; use MLA to export"
        )
    return name


def config_of(shape: Shape) -> dict[str, Any]:
    """What `config.json` says of a shape; token ids and the type of the weights are not in it.

    Raises:
        ExportError: the public architectures have no such network.
    """
    architecture = architecture_of(shape)
    kind = shape.attention
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
    if shape.hidden_size % kind.num_attention_heads:
        raise ExportError(
            f"shape.hidden_size {shape.hidden_size} is no multiple of {kind.num_attention_heads} heads: transformers does not load that"
        )
    if isinstance(kind, Gqa):
        return common | {"num_key_value_heads": kind.num_key_value_heads, "head_dim": kind.head_dim}
    return common | _latent_config(shape, kind)


def _latent_config(shape: Shape, kind: Mla) -> dict[str, Any]:
    if shape.rms_norm_eps != BOTTLENECK_EPS:
        raise ExportError(
            f"shape.rms_norm_eps {shape.rms_norm_eps}: the norms inside DeepSeek-V2's attention have {BOTTLENECK_EPS}, so the exported "
            f"model would be another; train with rms_norm_eps = {BOTTLENECK_EPS}"
        )
    config = {
        "num_key_value_heads": kind.num_attention_heads,
        "q_lora_rank": kind.q_lora_rank,
        "kv_lora_rank": kind.kv_lora_rank,
        "qk_nope_head_dim": kind.qk_nope_head_dim,
        "qk_rope_head_dim": kind.qk_rope_head_dim,
        "v_head_dim": kind.v_head_dim,
        "first_k_dense_replace": shape.experts.first_k_dense_replace
        if shape.experts
        else shape.num_hidden_layers,
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
            "experts.norm_topk_prob: transformers' DeepseekV2ForCausalLM does not normalise, so its answers would be others"
        )
    limited = bool(experts.topk_group)
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
        "topk_method": "group_limited_greedy" if limited else "greedy",
        "n_group": (experts.n_group or experts.n_routed_experts) if limited else 1,
        "topk_group": experts.topk_group if limited else 1,
    }


def _yarn_config(yarn: Yarn) -> dict[str, Any]:
    if not _one_meaning(yarn.mscale, yarn.mscale_all_dim):
        raise ExportError(
            "attention.rope_scaling: readers agree on mscale only with mscale_all_dim beside it; set both, or mscale = 1"
        )
    scaling = {
        "type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
    }
    if yarn.mscale_all_dim:
        scaling |= {"mscale": yarn.mscale, "mscale_all_dim": yarn.mscale_all_dim}
    return {
        "rope_scaling": scaling,
        "max_position_embeddings": round(yarn.factor * yarn.original_max_position_embeddings),
    }


def _one_meaning(mscale: float, mscale_all_dim: float) -> bool:
    """Whether transformers and DeepSeek's own code read the two temperatures alike: they do with both or with none."""
    return bool(mscale and mscale_all_dim) or (mscale == 1 and not mscale_all_dim)


class _Fields:
    """Fields of a config that are taken one by one; what is left at the end is known to be silent or refused."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.left, self.where = dict(fields), where

    def take(self, name: str, default: Any = ABSENT) -> Any:
        value = self.left.pop(name, default)
        if value is ABSENT:
            raise InputError(f"{self.where}: {name} is missing")
        return value

    def plain(self, name: str, allowed: tuple[Any, ...]) -> None:
        if (value := self.take(name, allowed[0])) not in allowed:
            raise InputError(
                f"{self.where}: {name} is {value!r}; no network here has that, only {allowed[0]!r}"
            )

    def end(self) -> None:
        unknown = sorted(set(self.left) - SILENT)
        if unknown:
            raise InputError(
                f"{self.where}: {unknown[0]} is unknown and may change the network; remove it if it does not"
            )


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> Shape:
    """The shape that a `config.json` describes.

    Raises:
        InputError: another architecture, a missing field, a value that no network here has, or a field nobody knows.
    """
    model = config.get("model_type")
    if model not in MODELS.values():
        raise InputError(
            f"{where}: model_type is {model!r}; {' and '.join(MODELS.values())} are read"
        )
    fields = _Fields(config, where)
    for name, allowed in PLAIN.items():
        fields.plain(name, allowed)
    try:
        shape = _shape(fields, latent=model == "deepseek_v2")
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(
            f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}, not {fault['input']!r}"
        ) from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{where}: a value is of the wrong kind ({error})") from None
    fields.end()
    return shape


def _shape(fields: _Fields, latent: bool) -> Shape:
    take = fields.take
    theta, yarn = _rope(fields)
    width, layers, heads = (
        take("hidden_size"),
        take("num_hidden_layers"),
        take("num_attention_heads"),
    )
    eps = take("rms_norm_eps", 1e-6)
    if latent and eps != BOTTLENECK_EPS:
        raise InputError(
            f"{fields.where}: rms_norm_eps is {eps}; the norms inside the attention have {BOTTLENECK_EPS}, ours are all one"
        )
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
    grouped = {
        "num_key_value_heads": take("num_key_value_heads", None) or heads,
        "head_dim": take("head_dim", None) or width // heads,
    }
    return Shape(**parts, attention=Gqa(num_attention_heads=heads, rope_theta=theta, **grouped))


def _latent(fields: _Fields, heads: int) -> dict[str, Any]:
    take = fields.take
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
    dense, routed = fields.take("first_k_dense_replace", 0), fields.take("n_routed_experts", None)
    if routed is None or dense >= layers:
        for name in ROUTING:
            fields.take(name, None)
        return None
    top_k, width, shared = (fields.take(name) for name in ROUTING[:3])
    scale, balance = fields.take("routed_scaling_factor", 1.0), fields.take("aux_loss_alpha", 0.001)
    method, groups, limit = (
        fields.take("topk_method", "greedy"),
        fields.take("n_group", None),
        fields.take("topk_group", None),
    )
    if method not in ("greedy", "group_limited_greedy"):
        raise InputError(
            f"{fields.where}: topk_method is {method!r}; greedy and group_limited_greedy are read"
        )
    limits = {"n_group": groups, "topk_group": limit} if method == "group_limited_greedy" else {}
    return Experts(
        n_routed_experts=routed,
        num_experts_per_tok=top_k,
        moe_intermediate_size=width,
        n_shared_experts=shared or 0,
        first_k_dense_replace=dense,
        routed_scaling_factor=scale,
        aux_loss_alpha=balance,
        **limits,
    )


def _rope(fields: _Fields) -> tuple[float, Yarn | None]:
    """Base of the frequencies and their stretching, in the older or the newer spelling."""
    older, newer = fields.take("rope_scaling", None), fields.take("rope_parameters", None)
    inner = _Fields(newer or older or {}, f"{fields.where}: rope_scaling")
    theta = fields.take("rope_theta", 10_000.0)
    theta = inner.take("rope_theta", theta)
    kinds = {inner.take("type", None), inner.take("rope_type", None)} - {None, "default"}
    if not kinds:
        inner.end()
        return theta, None
    if kinds != {"yarn"}:
        raise InputError(
            f"{inner.where} is {' and '.join(sorted(map(repr, kinds)))}; no network here stretches positions like that"
        )
    mscale, all_dim = inner.take("mscale", 1.0), inner.take("mscale_all_dim", 0.0)
    if not _one_meaning(mscale, all_dim):
        raise InputError(
            f"{inner.where}: mscale {mscale} with mscale_all_dim {all_dim}: readers do not agree on what that means"
        )
    inner.plain("partial_rotary_factor", (1, None))
    inner.plain("attention_factor", (None,))
    inner.plain("truncate", (True,))
    yarn = Yarn(
        factor=inner.take("factor"),
        original_max_position_embeddings=inner.take("original_max_position_embeddings"),
        beta_fast=inner.take("beta_fast", 32),
        beta_slow=inner.take("beta_slow", 1),
        mscale=mscale,
        mscale_all_dim=all_dim,
    )
    inner.end()
    return theta, yarn
