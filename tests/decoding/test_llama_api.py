"""llama.cpp's C API: the layout of its structs is checked before it is used."""

from __future__ import annotations

import pytest

from tumen.core.errors import RunnerError
from tumen.decoding import llama_api
from tumen.decoding.llama_api import ContextParams, ModelParams, check_layout, library


def test_this_build_has_the_expected_structs() -> None:
    api = library()
    check_layout(api.llama_model_default_params(), api.llama_context_default_params())


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ModelParams, "n_gpu_layers", 0),
        (ModelParams, "use_extra_bufts", False),
        (ContextParams, "yarn_beta_fast", 0.0),
        (ContextParams, "n_samplers", 1),
    ],
)
def test_another_layout_is_rejected_in_one_line(
    kind: type[ModelParams | ContextParams], field: str, value: object
) -> None:
    params = kind(**{name: default for name, _, default in kind.table if default is not None})
    check_layout(params)
    setattr(params, field, value)
    message = rf"another build than xllamacpp .*{kind.__name__}.{field} is .*pip install"
    with pytest.raises(RunnerError, match=message) as caught:
        check_layout(params)
    assert "\n" not in str(caught.value)


def test_a_missing_wheel_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llama_api, "find_spec", lambda name: None)
    with pytest.raises(RunnerError, match="llama.cpp is missing; pip install 'xllamacpp=="):
        library.__wrapped__()


def test_the_last_errors_of_the_library_are_kept() -> None:
    llama_api.last_errors.clear()
    for number in range(20):
        llama_api._log(llama_api.GGML_LOG_LEVEL_ERROR, b"error %d\n" % number, None)
        llama_api._log(llama_api.GGML_LOG_LEVEL_ERROR - 1, b"a note", None)
    assert llama_api.last_errors == [f"error {number}" for number in range(12, 20)]
    llama_api.last_errors.clear()
