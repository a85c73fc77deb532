"""One small shape of every kind the model room builds."""

from __future__ import annotations

from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn

GQA = Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=8)
MLA = Mla(
    num_attention_heads=2,
    kv_lora_rank=16,
    q_lora_rank=12,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=8,
)
EXPERTS = Experts(
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    n_shared_experts=1,
    first_k_dense_replace=1,
)

SHAPES = {
    "gqa": Shape(hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50, attention=GQA),
    "mha": Shape(hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50, attention=Gqa(num_attention_heads=2, num_key_value_heads=2, head_dim=8), tie_word_embeddings=False),
    "mla": Shape(hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50, attention=MLA),
    "mla without query rank": Shape(
        hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50, attention=MLA.model_copy(update={"q_lora_rank": None})
    ),
    "mla, stretched": Shape(
        hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50,
        attention=MLA.model_copy(update={"rope_scaling": Yarn(factor=4, original_max_position_embeddings=4, mscale=0.8, mscale_all_dim=0.6)}),
    ),
    "mla moe": Shape(hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50, attention=MLA, experts=EXPERTS),
    "mla moe on devices": Shape(
        hidden_size=32,
        num_hidden_layers=3,
        intermediate_size=48,
        vocab_size=50,
        tie_word_embeddings=False,
        attention=MLA,
        experts=EXPERTS.model_copy(update={"n_routed_experts": 8, "n_group": 4, "topk_group": 2}),
    ),
    "mla moe v3": Shape(
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        vocab_size=50,
        tie_word_embeddings=False,
        attention=MLA,
        experts=EXPERTS.model_copy(update={"scoring_func": "sigmoid", "bias_rate": 0.001, "norm_topk_prob": True}),
        num_nextn_predict_layers=1,
    ),
    "gqa moe": Shape(
        hidden_size=32, num_hidden_layers=3, intermediate_size=48, vocab_size=50, attention=GQA, experts=EXPERTS.model_copy(update={"n_shared_experts": 0})
    ),
}  # fmt: skip
