"""Places: the file's tensors and ours are the same numbers."""

from __future__ import annotations

import pytest
import torch
from tests.shrink.test_gguf import SHAPES

from tumen.model import build
from tumen.shrink.gguf_writer import matrices_of, tensors_of
from tumen.shrink.quantize.tensors import Places


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back(name: str) -> None:
    shape = SHAPES[name].model_copy(update={"vocab_size": 40})
    weights, blank = build(shape, 1).state_dict(), build(shape, 2).state_dict()
    found = Places(shape, weights).back(blank, tensors_of(shape, weights))
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_what_is_not_named_stays() -> None:
    shape = SHAPES["deepseek2 moe"].model_copy(update={"vocab_size": 40})
    weights = build(shape, 1).state_dict()
    one = {
        name: torch.zeros_like(tensor)
        for name, tensor in matrices_of(tensors_of(shape, weights)).items()
        if "blk.1.attn_k_b" in name
    }
    found = Places(shape, weights).back(weights, one)
    changed = [key for key in weights if not torch.equal(found[key], weights[key])]
    assert changed == ["blocks.1.attention.kv_up.weight"]
    kind = shape.attention
    up = found[changed[0]].view(kind.num_attention_heads, -1, 32)
    assert not up[:, : kind.qk_nope_head_dim].any()  # type: ignore[union-attr]
    assert up[:, kind.qk_nope_head_dim :].all()  # type: ignore[union-attr]
