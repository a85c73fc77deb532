"""One small shape of every kind the model room builds."""

from __future__ import annotations

from tumen.core.shape import Experts, Gqa, Mla, Shape, Yarn

GQA = Gqa(heads=4, kv_heads=2, head_dim=8)
MLA = Mla(heads=2, kv_rank=16, q_rank=12, nope_dim=8, rope_dim=4, v_dim=8)
EXPERTS = Experts(routed=4, top_k=2, width=16, shared=1, dense_layers=1)

SHAPES = {
    "gqa": Shape(width=32, layers=2, feed_forward=48, vocab=50, attention=GQA),
    "mha": Shape(width=32, layers=2, feed_forward=48, vocab=50, attention=Gqa(heads=2, kv_heads=2, head_dim=8), tied=False),
    "mla": Shape(width=32, layers=2, feed_forward=48, vocab=50, attention=MLA),
    "mla without query rank": Shape(
        width=32, layers=2, feed_forward=48, vocab=50, attention=MLA.model_copy(update={"q_rank": None})
    ),
    "mla, stretched": Shape(
        width=32, layers=2, feed_forward=48, vocab=50,
        attention=MLA.model_copy(update={"yarn": Yarn(factor=4, original=4, mscale=0.8, mscale_all_dim=0.6)}),
    ),
    "mla moe": Shape(width=32, layers=2, feed_forward=48, vocab=50, attention=MLA, experts=EXPERTS),
    "mla moe on devices": Shape(
        width=32,
        layers=3,
        feed_forward=48,
        vocab=50,
        tied=False,
        attention=MLA,
        experts=EXPERTS.model_copy(update={"routed": 8, "groups": 4, "device_limit": 2}),
    ),
    "mla moe v3": Shape(
        width=32,
        layers=2,
        feed_forward=48,
        vocab=50,
        tied=False,
        attention=MLA,
        experts=EXPERTS.model_copy(update={"gate": "sigmoid", "bias_rate": 0.001, "normalise": True}),
        mtp=1,
    ),
    "gqa moe": Shape(
        width=32, layers=3, feed_forward=48, vocab=50, attention=GQA, experts=EXPERTS.model_copy(update={"shared": 0})
    ),
}  # fmt: skip
