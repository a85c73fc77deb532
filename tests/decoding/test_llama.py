"""llama.cpp's C API: its layout is checked, going back and coming back change nothing, adapters come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from tumen.core.errors import RunnerError
from tumen.decoding.llama import (
    ContextParams,
    LlamaContext,
    LlamaModel,
    ModelParams,
    library,
    refuse_other_layout,
)

PROMPT = [1, 20, 30, 40, 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("llama") / "m.gguf"))


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    context = model.context(64)
    yield context
    context.close()


def test_the_structs_of_this_build_are_where_they_should_be() -> None:
    api = library()
    refuse_other_layout(api.llama_model_default_params(), api.llama_context_default_params())


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(ModelParams, "use_extra_bufts", False), (ContextParams, "yarn_beta_fast", 0.0)],
)
def test_another_layout_is_refused_in_one_line(
    kind: type[ModelParams | ContextParams], field: str, value: object
) -> None:
    given = kind(**{name: default for name, _, default in kind.table if default is not None})
    refuse_other_layout(given)
    setattr(given, field, value)
    with pytest.raises(
        RunnerError,
        match=rf"another build than xllamacpp .*{kind.__name__}.{field} is .*pip install",
    ) as caught:
        refuse_other_layout(given)
    assert "\n" not in str(caught.value)


def test_tokens_and_pieces(model: LlamaModel) -> None:
    assert model.tokens("打<do>", begin=True)[0] == 1
    assert model.tokens("打<do>")[-1] == 3
    assert b"".join(map(model.piece, model.inner(" kitchen"))) == b" kitchen"
    assert [model.piece(token).decode() for token in model.inner("打开")] == ["打", "开"]
    assert b"".join(map(model.piece, model.inner("鑫"))) == "鑫".encode()
    assert model.is_end(model.end)
    assert not model.is_end(PROMPT[1])


def test_a_row_of_logits_for_every_token_asked_for(context: LlamaContext) -> None:
    rows = context.decode(PROMPT, rows=len(PROMPT)).copy()
    context.forget(0)
    one_by_one = [context.decode([token])[0].copy() for token in PROMPT]
    np.testing.assert_allclose(rows, one_by_one, atol=0.02)
    context.forget(2)
    np.testing.assert_allclose(context.decode(PROMPT[2:])[0], rows[-1], atol=0.02)


def test_a_saved_state_is_the_same_state(context: LlamaContext) -> None:
    context.decode(PROMPT)
    state = context.save()
    after = context.decode([9]).copy()
    context.forget(0)
    context.decode([1, 9, 9, 9, 9, 9, 9])
    context.forget(0)
    context.restore(state, len(PROMPT))
    np.testing.assert_array_equal(context.decode([9]), after)
    with pytest.raises(RunnerError, match="no state of this model"):
        context.restore(b"nothing" * 9, 3)


def test_what_does_not_fit_is_refused_before_it_is_tried(context: LlamaContext) -> None:
    with pytest.raises(RunnerError, match="0 \\+ 65 tokens do not fit a context of 64"):
        context.decode([1] * 65)
    with pytest.raises(RunnerError, match="cannot decode"):
        context.decode([10**6])


def write_adapter(path: Path, scale: float, width: int = 32) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    rng = np.random.default_rng(3)
    writer.add_tensor(
        "blk.0.attn_output.weight.lora_a", rng.standard_normal((4, width)).astype("f4")
    )
    writer.add_tensor(
        "blk.0.attn_output.weight.lora_b", rng.standard_normal((width, 4)).astype("f4") * scale
    )
    for step in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        step()
    return path


def test_adapters_come_and_go_on_one_base(
    model: LlamaModel, context: LlamaContext, tmp_path: Path
) -> None:
    one, other = (
        model.adapter(write_adapter(tmp_path / f"{scale}.gguf", scale)) for scale in (0.5, 1.0)
    )
    plain = context.decode(PROMPT).copy()

    def adapted(*adapters: tuple[object, float]) -> np.ndarray:
        context.adapt(adapters)  # type: ignore[arg-type]
        return context.decode(PROMPT).copy()

    assert np.abs(adapted((one, 1.0)) - plain).max() > 0.1
    np.testing.assert_allclose(adapted((one, 2.0)), adapted((other, 1.0)), atol=0.02)
    np.testing.assert_array_equal(adapted(), plain)


def test_what_is_no_adapter_of_this_model_is_refused(model: LlamaModel, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="no adapter of this model"):
        model.adapter(tmp_path / "nothing.gguf")
    with pytest.raises(RunnerError, match="no adapter of this model"):
        model.adapter(write_adapter(tmp_path / "wide.gguf", 1.0, width=64))
