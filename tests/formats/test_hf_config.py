"""config.json: read in both spellings, refused where it says what no network here has."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from tumen.core.errors import ExportError, InputError, RecipeError
from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn
from tumen.formats.hf_config import PLAIN, SILENT, config_of, shape_of
from tumen.recipe import recipe_of

# As published with DeepSeek-V2-Lite (huggingface.co/deepseek-ai/DeepSeek-V2-Lite, config.json).
LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "aux_loss_alpha": 0.001, "bos_token_id": 100000,
    "eos_token_id": 100001, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 10944, "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2,
    "norm_topk_prob": False, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
    "num_key_value_heads": 16, "pretraining_tp": 1, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": True, "tie_word_embeddings": False,
    "topk_group": 1, "topk_method": "greedy", "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True,
    "v_head_dim": 128, "vocab_size": 102400,
}  # fmt: skip
LITE_SHAPE = Shape(
    hidden_size=2048, num_hidden_layers=27, intermediate_size=10944, vocab_size=102_400, tie_word_embeddings=False, rms_norm_eps=1e-6,
    attention=Mla(num_attention_heads=16, kv_lora_rank=512, rope_scaling=Yarn(factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707)),
    experts=Experts(n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408, aux_loss_alpha=0.001),
)  # fmt: skip
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": 70, "rms_norm_eps": 1e-5,
}  # fmt: skip


def refused(config: dict[str, Any], *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        shape_of(config, "folder/config.json")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("folder/config.json: ")
    for part in parts:
        assert part in str(caught.value)


def test_v2_lite_as_published() -> None:
    assert shape_of(LITE) == LITE_SHAPE
    again = config_of(LITE_SHAPE)
    silent = LITE.keys() - again.keys()
    assert silent == {
        "attention_dropout", "auto_map", "bos_token_id", "eos_token_id", "initializer_range", "pretraining_tp", "seq_aux",
        "torch_dtype", "transformers_version", "use_cache",
    }  # fmt: skip
    assert {name: again[name] for name in LITE.keys() & again.keys()} == {
        name: LITE[name] for name in LITE.keys() & again.keys()
    }


def test_v2_is_limited_to_three_of_eight_devices() -> None:
    v2 = LITE | {
        "q_lora_rank": 1536, "n_routed_experts": 160, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3,
        "routed_scaling_factor": 16.0,
    }  # fmt: skip
    experts = shape_of(v2).experts
    assert experts is not None
    assert (
        experts.n_group,
        experts.topk_group,
        experts.routed_scaling_factor,
        experts.n_routed_experts,
    ) == (8, 3, 16.0, 160)
    assert {
        name: config_of(shape_of(v2))[name] for name in ("topk_method", "n_group", "topk_group")
    } == {name: v2[name] for name in ("topk_method", "n_group", "topk_group")}


def test_one_expert_a_device_is_a_group_each() -> None:
    shape = LITE_SHAPE.model_copy(
        update={
            "experts": Experts(
                n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=8, topk_group=2
            )
        }
    )
    assert config_of(shape)["n_group"] == 6


def test_the_newer_spelling_of_rope_is_the_same() -> None:
    newer = {
        name: value for name, value in LITE.items() if name not in ("rope_theta", "rope_scaling")
    }
    newer["rope_parameters"] = LITE["rope_scaling"] | {"rope_theta": 10000, "rope_type": "yarn"}
    assert shape_of(newer) == LITE_SHAPE
    plain = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}
    assert shape_of(LLAMA | plain).attention.rope_theta == 500


def test_llama_fills_what_it_leaves_out() -> None:
    assert shape_of(LLAMA) == Shape(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=96,
        vocab_size=70,
        tie_word_embeddings=False,
        attention=Gqa(num_attention_heads=4, num_key_value_heads=4, head_dim=16),
    )


def test_all_layers_dense() -> None:
    assert shape_of(LITE | {"first_k_dense_replace": 27}).experts is None
    assert shape_of(LITE | {"n_routed_experts": None}).experts is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_bias", True), ("mlp_bias", True), ("hidden_act", "gelu"), ("quantization_config", {"quant_method": "fp8"}),
        ("sliding_window", 4096), ("scoring_func", "sigmoid"), ("moe_layer_freq", 2), ("norm_topk_prob", True),
        ("topk_method", "noaux_tc"), ("num_key_value_heads", 4), ("model_type", "mixtral"), ("rms_norm_eps", 1e-5),
        ("num_nextn_predict_layers", 1), ("hidden_size", "wide"), ("num_hidden_layers", None), ("num_attention_heads", 0),
        ("vocab_size", -1), ("qk_rope_head_dim", 63), ("num_experts_per_tok", 65), ("first_k_dense_replace", "x"),
    ],
)  # fmt: skip
def test_a_value_that_no_network_here_has(field: str, value: object) -> None:
    refused(LITE | {field: value})


@pytest.mark.parametrize(
    "field", ["hidden_size", "kv_lora_rank", "q_lora_rank", "moe_intermediate_size", "vocab_size"]
)
def test_a_field_is_missing(field: str) -> None:
    refused({name: value for name, value in LITE.items() if name != field}, f"{field} is missing")


def test_fields_that_say_what_is_wrong() -> None:
    refused(LITE | {"attention_bias": True}, "attention_bias is True")
    refused(LITE | {"odd_field": 3}, "odd_field is unknown")
    refused(LLAMA | {"kv_lora_rank": 3}, "kv_lora_rank is unknown")
    refused(LITE | {"model_type": None}, "model_type is None")
    refused(LLAMA | {"num_attention_heads": 0}, "wrong kind")


@pytest.mark.parametrize(
    ("scaling", "part"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, "'llama3'"),
        ({"type": "linear", "factor": 2}, "'linear'"),
        ({"type": "yarn", "factor": 2}, "original_max_position_embeddings is missing"),
        (
            {"type": "yarn", "factor": 2, "original_max_position_embeddings": 9, "mscale": 0.5},
            "readers do not agree",
        ),
        (
            {
                "type": "yarn",
                "factor": 2,
                "original_max_position_embeddings": 9,
                "attention_factor": 1.0,
            },
            "attention_factor is 1.0",
        ),
        (
            {"type": "yarn", "factor": 2, "original_max_position_embeddings": 9, "truncate": False},
            "truncate is False",
        ),
        ({"type": "yarn", "factor": 0.5, "original_max_position_embeddings": 9}, "factor"),
        (
            {"type": "yarn", "factor": 2, "original_max_position_embeddings": 9, "odd": 1},
            "odd is unknown",
        ),
        ({"type": ["yarn"]}, "wrong kind"),
        ("yarn", "wrong kind"),
    ],
)
def test_rope_scaling_that_is_not_read(scaling: object, part: str) -> None:
    refused(LITE | {"rope_scaling": scaling}, part)


def test_llama_takes_no_yarn() -> None:
    refused(LLAMA | {"rope_scaling": LITE["rope_scaling"]}, "'yarn'")


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        (LITE_SHAPE.model_copy(update={"rms_norm_eps": 1e-5}), "train with rms_norm_eps = 1e-06"),
        (LITE_SHAPE.model_copy(update={"hidden_size": 2047}), "no multiple of 16 heads"),
        (
            LITE_SHAPE.model_copy(
                update={
                    "experts": Experts(
                        n_routed_experts=4,
                        num_experts_per_tok=1,
                        moe_intermediate_size=8,
                        n_shared_experts=0,
                    )
                }
            ),
            "experts.n_shared_experts is 0",
        ),
        (
            LITE_SHAPE.model_copy(
                update={
                    "experts": Experts(
                        n_routed_experts=4,
                        num_experts_per_tok=1,
                        moe_intermediate_size=8,
                        norm_topk_prob=True,
                    )
                }
            ),
            "experts.norm_topk_prob",
        ),
        (
            LITE_SHAPE.model_copy(
                update={
                    "attention": Mla(
                        num_attention_heads=16,
                        kv_lora_rank=8,
                        rope_scaling=Yarn(factor=2, original_max_position_embeddings=9, mscale=0.5),
                    )
                }
            ),
            "mscale",
        ),
    ],
)
def test_shapes_that_do_not_go_out(shape: Shape, part: str) -> None:
    with pytest.raises(ExportError) as caught:
        config_of(shape)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def toml(table: dict[str, Any]) -> str:
    """The keys of a config as lines of TOML, which has no null."""
    lines = []
    for name, value in table.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items())
            lines.append(f"{name} = {{ {inner} }}")
        elif value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines)


# As published with TinyLlama-1.1B (huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0, config.json).
TINY_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5632, "max_position_embeddings": 2048,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.35.0", "use_cache": True, "vocab_size": 32000,
}  # fmt: skip


@pytest.mark.parametrize(
    "config", [LITE, TINY_LLAMA, LLAMA | {"tie_word_embeddings": True}, LLAMA],
    ids=["DeepSeek-V2-Lite", "TinyLlama", "tied", "few keys"],
)  # fmt: skip
def test_a_config_pasted_into_a_recipe_is_the_same_shape(config: dict[str, Any]) -> None:
    def pasted(keys: dict[str, Any]) -> Shape:
        text = f'name = "t"\n[serve]\ndevice = "x"\ncloud = "x"\n[family.x.train]\nsteps = 1\n[family.x.shape]\n{toml(keys)}'
        return recipe_of(tomllib.loads(text), "r.toml").family["x"].shape

    with pytest.raises(RecipeError) as caught:
        pasted(config)
    unknown = {fault.partition(":")[0].split(".")[-1] for fault in caught.value.faults}
    assert all(": unknown field" in fault for fault in caught.value.faults)
    assert unknown <= SILENT | PLAIN.keys(), "only keys that change nothing may be refused"
    assert pasted({name: config[name] for name in config.keys() - unknown}) == shape_of(config)


def test_a_pasted_v2_keeps_its_device_limit() -> None:
    v2 = LITE | {
        "q_lora_rank": 1536,
        "topk_method": "group_limited_greedy",
        "n_group": 8,
        "topk_group": 3,
    }
    keys = v2.keys() - SILENT - PLAIN.keys()
    assert Shape.model_validate({name: v2[name] for name in keys}) == shape_of(v2)


def test_a_pasted_config_with_another_number_of_key_value_heads_is_refused() -> None:
    keys = LITE.keys() - SILENT - PLAIN.keys()
    with pytest.raises(ValidationError, match="num_key_value_heads"):
        Shape.model_validate({name: LITE[name] for name in keys} | {"num_key_value_heads": 2})


def test_learned_positions_are_not_max_position_embeddings() -> None:
    keys = LLAMA.keys() - SILENT - PLAIN.keys()
    with pytest.raises(ValidationError, match="max_position_embeddings"):
        Shape.model_validate({name: LLAMA[name] for name in keys} | {"max_position_embeddings": 64})
