"""llama.cpp's C API over ctypes: structs, prototypes and the loaded library.

The wheel `xllamacpp` exports the API, so nothing is compiled here. The names are those of
llama.cpp's include/llama.h. Two structs are passed by value, so their layout must be exactly that
of the build. When the library is loaded, every field is compared with the default that the library
itself writes, and a library that differs is rejected before it is used.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_size_t, c_uint8, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tumen.core.errors import RunnerError

BUILD = "xllamacpp 2026.10.11549"
INSTALL = f"pip install '{BUILD.replace(' ', '==')}'"
GGML_LOG_LEVEL_ERROR = 4  # ggml.h
KEPT_ERRORS = 8
SPARE_STRUCT_BYTES = 64  # behind each struct

Field = tuple[str, Any, Any]  # name, C type, default that the library writes

# In the order of the structs in llama.h; the defaults are those that the library of BUILD writes.
MODEL_FIELDS: tuple[Field, ...] = (
    ("devices", c_void_p, None),
    ("tensor_buft_overrides", c_void_p, None),
    ("n_gpu_layers", c_int, -1),
    ("split_mode", c_int, 1),
    ("load_mode", c_int, -1),
    ("lazy_mode", c_int, 1),
    ("main_gpu", c_int, 0),
    ("tensor_split", c_void_p, None),
    ("progress_callback", c_void_p, None),
    ("progress_callback_user_data", c_void_p, None),
    ("kv_overrides", c_void_p, None),
    ("vocab_only", c_bool, False),
    ("check_tensors", c_bool, False),
    ("use_extra_bufts", c_bool, True),
    ("no_host", c_bool, False),
    ("no_alloc", c_bool, False),
    ("load_mtp", c_bool, False),
)
CONTEXT_FIELDS: tuple[Field, ...] = (
    ("n_ctx", c_int, 512),
    ("n_batch", c_int, 2048),
    ("n_ubatch", c_int, 512),
    ("n_seq_max", c_int, 1),
    ("n_rs_seq", c_int, 0),
    ("n_outputs_max", c_int, 0),
    ("n_outputs_max_per_seq", c_int, 1),
    ("n_threads", c_int, 4),
    ("n_threads_batch", c_int, 4),
    ("ctx_type", c_int, 0),
    ("rope_scaling_type", c_int, -1),
    ("pooling_type", c_int, -1),
    ("attention_type", c_int, -1),
    ("flash_attn_type", c_int, -1),
    ("rope_freq_base", c_float, 0.0),
    ("rope_freq_scale", c_float, 0.0),
    ("yarn_ext_factor", c_float, -1.0),
    ("yarn_attn_factor", c_float, -1.0),
    ("yarn_beta_fast", c_float, -1.0),
    ("yarn_beta_slow", c_float, -1.0),
    ("yarn_orig_ctx", c_int, 0),
    ("defrag_thold", c_float, -1.0),
    ("cb_eval", c_void_p, None),
    ("cb_eval_user_data", c_void_p, None),
    ("type_k", c_int, 1),
    ("type_v", c_int, 1),
    ("abort_callback", c_void_p, None),
    ("abort_callback_data", c_void_p, None),
    ("of_this_build", c_void_p, None),
    ("embeddings", c_bool, False),
    ("offload_kqv", c_bool, True),
    ("no_perf", c_bool, True),
    ("op_offload", c_bool, True),
    ("swa_full", c_bool, True),
    ("kv_unified", c_bool, False),
    ("samplers", c_void_p, None),
    ("n_samplers", c_size_t, 0),
    ("ctx_other", c_void_p, None),
)


def _layout(fields: tuple[Field, ...]) -> list[tuple[str, Any]]:
    """Return the layout of a struct, with zeros behind it for a library with more fields."""
    layout = [(name, kind) for name, kind, _ in fields]
    return [*layout, ("spare", c_uint8 * SPARE_STRUCT_BYTES)]


class Params(ctypes.Structure):
    """A struct of parameters."""

    table: tuple[Field, ...] = ()

    def first_difference(self) -> str | None:
        """Return the first field that does not hold its default."""
        for name, _, default in self.table:
            if getattr(self, name) != default:
                return name
        return None


class ModelParams(Params):
    """`struct llama_model_params`."""

    table = MODEL_FIELDS
    _fields_ = _layout(MODEL_FIELDS)


class ContextParams(Params):
    """`struct llama_context_params`."""

    table = CONTEXT_FIELDS
    _fields_ = _layout(CONTEXT_FIELDS)


class LlamaBatch(ctypes.Structure):
    """`struct llama_batch`.

    Without `pos` and `seq_id` the tokens follow those that sequence 0 holds.
    """

    _fields_ = (
        ("n_tokens", c_int),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


PROTOTYPES: dict[str, tuple[Any, ...]] = {  # name -> (result, argument, ...)
    "llama_model_default_params": (ModelParams,),
    "llama_context_default_params": (ContextParams,),
    "llama_model_load_from_file": (c_void_p, c_char_p, ModelParams),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_init_from_model": (c_void_p, c_void_p, ContextParams),
    "llama_free": (None, c_void_p),
    "llama_vocab_n_tokens": (c_int, c_void_p),
    "llama_vocab_eos": (c_int, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int),
    "llama_tokenize": (c_int, c_void_p, c_char_p, c_int, c_void_p, c_int, c_bool, c_bool),
    "llama_token_to_piece": (c_int, c_void_p, c_int, c_char_p, c_int, c_int, c_bool),
    "llama_model_n_embd": (c_int, c_void_p),
    "llama_model_n_ctx_train": (c_int, c_void_p),
    "llama_encode": (c_int, c_void_p, LlamaBatch),
    "llama_get_embeddings": (c_void_p, c_void_p),
    "llama_decode": (c_int, c_void_p, LlamaBatch),
    "llama_get_logits": (c_void_p, c_void_p),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int, c_int, c_int),
    "llama_state_seq_get_size": (c_size_t, c_void_p, c_int),
    "llama_state_seq_get_data": (c_size_t, c_void_p, c_void_p, c_size_t, c_int),
    "llama_state_seq_set_data": (c_size_t, c_void_p, c_char_p, c_size_t, c_int),
    "llama_adapter_lora_init": (c_void_p, c_void_p, c_char_p),
    "llama_adapter_lora_free": (None, c_void_p),
    "llama_set_adapters_lora": (c_int, c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)),
    "llama_log_set": (None, c_void_p, c_void_p),
}


@cache
def library() -> Any:
    """Return the C library with its prototypes.

    It prints nothing; its errors are kept in `last_errors`.

    Raises:
        RunnerError: the wheel is missing, lacks a function, or has other structs.
    """
    found = find_spec("xllamacpp")
    if found is None or found.origin is None:
        raise RunnerError(f"llama.cpp is missing; {INSTALL}")
    path = next(Path(found.origin).parent.glob("xllamacpp*.so"), None)
    if path is None:
        raise RunnerError(_other_build("it contains no library"))
    try:
        api = ctypes.CDLL(str(path))
        _declare_prototypes(api)
    except (OSError, AttributeError) as error:
        raise RunnerError(_other_build(str(error))) from None
    # Before any other call: with another layout each call would write to wrong memory.
    check_layout(api.llama_model_default_params(), api.llama_context_default_params())
    api.llama_log_set(_log_callback, None)
    return api


def _declare_prototypes(api: Any) -> None:
    """Tell ctypes the types of all functions.

    Raises:
        AttributeError: the library lacks one of them.
    """
    for name, (result, *arguments) in PROTOTYPES.items():
        function = getattr(api, name)
        function.restype = result
        function.argtypes = arguments


def check_layout(*defaults: Params) -> None:
    """Compare the defaults that the library writes with those that its structs should have.

    Raises:
        RunnerError: a field is at another place.
    """
    for params in defaults:
        field = params.first_difference()
        if field is not None:
            value = getattr(params, field)
            raise RunnerError(_other_build(f"{type(params).__name__}.{field} is {value!r}"))


def _other_build(reason: str) -> str:
    return f"this xllamacpp is another build than {BUILD} ({reason}); install that one: {INSTALL}"


def _log(level: int, text: bytes, _: object) -> None:
    # Other levels describe the model at length.
    if level == GGML_LOG_LEVEL_ERROR:
        last_errors.append(text.decode("utf-8", "replace").strip())
        del last_errors[:-KEPT_ERRORS]


last_errors: list[str] = []  # of llama.cpp, oldest first; they never quote a sentence
# Kept in a variable: ctypes frees a callback that nothing refers to.
_log_callback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(_log)
