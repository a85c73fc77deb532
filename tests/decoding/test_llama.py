"""A model in llama.cpp: rewinding and restoring change nothing, adapters can be switched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from tumen.core.errors import RunnerError
from tumen.decoding.llama import LlamaAdapter, LlamaContext, LlamaModel

PROMPT = [1, 20, 30, 40, 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("llama") / "m.gguf"))


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    context = model.context(64)
    yield context
    context.close()


def test_text_becomes_tokens_and_tokens_become_text(model: LlamaModel) -> None:
    assert model.tokenize("打<do>", begin=True)[0] == 1
    assert model.tokenize("打<do>")[-1] == 3
    assert b"".join(map(model.piece, model.tokenize_inner(" kitchen"))) == b" kitchen"
    assert [model.piece(token).decode() for token in model.tokenize_inner("打开")] == ["打", "开"]
    assert b"".join(map(model.piece, model.tokenize_inner("鑫"))) == "鑫".encode()
    assert model.is_end(model.end)
    assert not model.is_end(PROMPT[1])


def test_a_model_llama_cpp_rejects_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="missing.gguf"):
        LlamaModel(tmp_path / "missing.gguf")


def test_there_is_a_row_of_logits_for_every_token_asked_for(context: LlamaContext) -> None:
    rows = context.decode(PROMPT, rows=len(PROMPT)).copy()
    context.forget(0)
    one_by_one = [context.decode([token])[0].copy() for token in PROMPT]
    np.testing.assert_allclose(rows, one_by_one, atol=0.02)
    context.forget(2)
    np.testing.assert_allclose(context.decode(PROMPT[2:])[0], rows[-1], atol=0.02)


def test_a_restored_state_continues_as_the_saved_one(context: LlamaContext) -> None:
    context.decode(PROMPT)
    state = context.save()
    after = context.decode([9]).copy()
    context.forget(0)
    context.decode([1, 9, 9, 9, 9, 9, 9])
    context.forget(0)
    context.restore(state, len(PROMPT))
    assert context.length == len(PROMPT)
    np.testing.assert_array_equal(context.decode([9]), after)
    with pytest.raises(RunnerError, match="are not a state of this model"):
        context.restore(b"nothing" * 9, 3)


def test_tokens_that_do_not_fit_are_rejected_before_the_pass(context: LlamaContext) -> None:
    with pytest.raises(RunnerError, match="0 \\+ 65 tokens do not fit a context of 64"):
        context.decode([1] * 65)
    context.decode([1] * 60)
    with pytest.raises(RunnerError, match="60 \\+ 5 tokens do not fit a context of 64"):
        context.decode([1] * 5)


def test_a_token_that_does_not_exist_is_an_error(context: LlamaContext) -> None:
    with pytest.raises(RunnerError, match="cannot decode"):
        context.decode([10**6])


def write_adapter(path: Path, scale: float, width: int = 32) -> Path:
    rng = np.random.default_rng(3)
    lora_a = rng.standard_normal((4, width)).astype("f4")
    lora_b = rng.standard_normal((width, 4)).astype("f4") * scale
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_tensor("blk.0.attn_output.weight.lora_a", lora_a)
    writer.add_tensor("blk.0.attn_output.weight.lora_b", lora_b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_adapters_are_switched_on_one_model(
    model: LlamaModel, context: LlamaContext, tmp_path: Path
) -> None:
    half = model.adapter(write_adapter(tmp_path / "half.gguf", 0.5))
    whole = model.adapter(write_adapter(tmp_path / "whole.gguf", 1.0))
    plain = context.decode(PROMPT).copy()

    def logits_with(*adapters: tuple[LlamaAdapter, float]) -> np.ndarray:
        context.use_adapters(adapters)
        assert context.length == 0
        return context.decode(PROMPT).copy()

    assert np.abs(logits_with((half, 1.0)) - plain).max() > 0.1
    np.testing.assert_allclose(logits_with((half, 2.0)), logits_with((whole, 1.0)), atol=0.02)
    np.testing.assert_array_equal(logits_with(), plain)


def test_a_file_that_is_not_an_adapter_of_this_model_is_rejected(
    model: LlamaModel, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match="not an adapter of this model"):
        model.adapter(tmp_path / "nothing.gguf")
    with pytest.raises(RunnerError, match="not an adapter of this model"):
        model.adapter(write_adapter(tmp_path / "wide.gguf", 1.0, width=64))
