"""llama.cpp's C API over ctypes, as much of it as decoding needs. The wheel `xllamacpp` exports it, so nothing is compiled.

The names are those of llama.cpp's include/llama.h. Two structs go there by value, so their layout must be this build's own:
every field is held against the default that the library itself gives, and a library that differs is refused before it is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_size_t, c_uint8, c_void_p
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import RunnerError

Logits = NDArray[np.float32]  # (rows, vocabulary), before any softmax
ERROR = 4  # ggml_log_level
BUILD = "xllamacpp 2026.10.11549"

# (name, type, default) in the order of the struct, from llama.h and what the library of BUILD writes.
MODEL_PARAMS: tuple[tuple[str, Any, Any], ...] = (
    *((name, c_void_p, None) for name in ("devices", "tensor_buft_overrides")),
    *(
        ("n_gpu_layers", c_int, -1),
        ("split_mode", c_int, 1),
        ("load_mode", c_int, -1),
        ("lazy_mode", c_int, 1),
    ),
    *(("main_gpu", c_int, 0), ("tensor_split", c_void_p, None)),
    *(
        (name, c_void_p, None)
        for name in ("progress_callback", "progress_callback_user_data", "kv_overrides")
    ),
    *(
        ("vocab_only", c_bool, False),
        ("check_tensors", c_bool, False),
        ("use_extra_bufts", c_bool, True),
    ),
    *((name, c_bool, False) for name in ("no_host", "no_alloc", "load_mtp")),
)
CONTEXT_PARAMS: tuple[tuple[str, Any, Any], ...] = (
    *(
        ("n_ctx", c_int, 512),
        ("n_batch", c_int, 2048),
        ("n_ubatch", c_int, 512),
        ("n_seq_max", c_int, 1),
    ),
    *(("n_rs_seq", c_int, 0), ("n_outputs_max", c_int, 0), ("n_outputs_max_per_seq", c_int, 1)),
    *(("n_threads", c_int, 4), ("n_threads_batch", c_int, 4), ("ctx_type", c_int, 0)),
    *(
        (name, c_int, -1)
        for name in ("rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type")
    ),
    *((name, c_float, 0.0) for name in ("rope_freq_base", "rope_freq_scale")),
    *(
        (f"yarn_{name}", c_float, -1.0)
        for name in ("ext_factor", "attn_factor", "beta_fast", "beta_slow")
    ),
    *(("yarn_orig_ctx", c_int, 0), ("defrag_thold", c_float, -1.0)),
    *((name, c_void_p, None) for name in ("cb_eval", "cb_eval_user_data")),
    *(("type_k", c_int, 1), ("type_v", c_int, 1)),
    *(
        (name, c_void_p, None)
        for name in ("abort_callback", "abort_callback_data", "of_this_build")
    ),
    *(("embeddings", c_bool, False), ("offload_kqv", c_bool, True), ("no_perf", c_bool, True)),
    *(("op_offload", c_bool, True), ("swa_full", c_bool, True), ("kv_unified", c_bool, False)),
    *(("samplers", c_void_p, None), ("n_samplers", c_size_t, 0), ("ctx_other", c_void_p, None)),
)


class Params(ctypes.Structure):
    """A parameter struct; the room behind it is read as zeros by a library that knows one field more."""

    table: tuple[tuple[str, Any, Any], ...] = ()

    def unlike(self) -> str | None:
        """The first field that does not hold its default."""
        return next(
            (name for name, _, default in self.table if getattr(self, name) != default), None
        )


class ModelParams(Params):
    """`struct llama_model_params`."""

    table = MODEL_PARAMS
    _fields_ = [*((name, kind) for name, kind, _ in MODEL_PARAMS), ("room", c_uint8 * 64)]


class ContextParams(Params):
    """`struct llama_context_params`."""

    table = CONTEXT_PARAMS
    _fields_ = [*((name, kind) for name, kind, _ in CONTEXT_PARAMS), ("room", c_uint8 * 64)]


class LlamaBatch(ctypes.Structure):
    """`struct llama_batch`; without `pos` and `seq_id` the tokens go behind those that sequence 0 holds."""

    _fields_ = [
        ("n_tokens", c_int),
        *((name, c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")),
    ]


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
    """The C library, with its prototypes, silent: its errors are kept in `last_words`.

    Raises:
        RunnerError: the wheel is missing, lacks a function, or lays its structs out differently.
    """
    found = find_spec("xllamacpp")
    if found is None or found.origin is None:
        raise RunnerError(f"llama.cpp is missing; pip install '{BUILD.replace(' ', '==')}'")
    try:
        api = ctypes.CDLL(str(next(Path(found.origin).parent.glob("xllamacpp*.so"))))
        for name, (result, *arguments) in PROTOTYPES.items():
            function = getattr(api, name)
            function.restype, function.argtypes = result, arguments
    except (StopIteration, OSError, AttributeError) as error:
        raise RunnerError(_other_build(str(error) or "no library in it")) from None
    refuse_other_layout(api.llama_model_default_params(), api.llama_context_default_params())
    api.llama_log_set(_heard, None)
    return api


def refuse_other_layout(*defaults: Params) -> None:
    """Hold what the library gives as defaults against what its structs should say.

    Raises:
        RunnerError: a field is somewhere else.
    """
    for given in defaults:
        if (field := given.unlike()) is not None:
            raise RunnerError(
                _other_build(f"{type(given).__name__}.{field} is {getattr(given, field)!r}")
            )


def _other_build(why: str) -> str:
    return f"this xllamacpp is another build than {BUILD} ({why}); install that one, pip install '{BUILD.replace(' ', '==')}'"


def _hear(level: int, text: bytes, _: object) -> None:
    if level == ERROR:
        last_words.append(text.decode("utf-8", "replace").strip())
        del last_words[:-8]


last_words: list[str] = []  # what llama.cpp complained about last; no sentence is ever among it
_heard = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(_hear)


class LlamaModel:
    """Weights and vocabulary.

    Raises:
        RunnerError: llama.cpp does not take the file; the line says why.
    """

    def __init__(self, path: Path) -> None:
        self.api = library()
        last_words.clear()
        self._model = self.api.llama_model_load_from_file(
            str(path).encode(), self.api.llama_model_default_params()
        )
        if not self._model:
            raise RunnerError(
                last_words[0] if last_words else f"{path}: llama.cpp does not take it"
            )
        self._vocab, self._pieces = self.api.llama_model_get_vocab(self._model), dict[int, bytes]()
        self.vocab: int = self.api.llama_vocab_n_tokens(self._vocab)
        self.end: int = self.api.llama_vocab_eos(self._vocab)
        if self.end < 0:
            raise RunnerError(
                f"{path}: names no end token, so nothing it writes would end; set tokenizer.ggml.eos_token_id"
            )

    def tokens(self, text: str, begin: bool = False) -> list[int]:
        """Ids of a text, control tokens read as such. `begin` puts the model's own begin token before it."""
        raw = text.encode()
        room = (
            c_int * (3 * len(raw) + 2)
        )()  # a space may be three bytes there, and every byte a token
        count = self.api.llama_tokenize(self._vocab, raw, len(raw), room, len(room), begin, True)
        if count < 0:
            raise RunnerError("llama.cpp cannot cut the text into tokens")
        return room[:count]

    def inner(self, text: str) -> list[int]:
        """Ids of a text as it stands inside a longer one: no space of the tokeniser's own before it."""
        return (
            self.tokens("\n" + text)[len(self._line_end) :] if self._line_end else self.tokens(text)
        )

    @cached_property
    def _line_end(self) -> list[int]:
        """Of a tokeniser that puts a space of its own before a text: what a line's end is; else nothing."""
        return self.tokens("\n") if self.piece(self.tokens("a")[0]).startswith(b" ") else []

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for a control token."""
        if token not in self._pieces:
            size = self.api.llama_token_to_piece(
                self._vocab, token, None, 0, 0, False
            )  # of no room: what it would take, below 0
            room = ctypes.create_string_buffer(-size)
            self.api.llama_token_to_piece(self._vocab, token, room, -size, 0, False)
            self._pieces[token] = room.raw
        return self._pieces[token]

    def is_end(self, token: int) -> bool:
        """Whether generation ends with it."""
        return bool(self.api.llama_vocab_is_eog(self._vocab, token))

    def context(self, size: int, threads: int = 1) -> LlamaContext:
        """Working memory for `size` tokens.

        Raises:
            RunnerError: no room for it.
        """
        return LlamaContext(self, size, threads)

    def adapter(self, path: Path) -> LlamaAdapter:
        """Load a LoRA adapter (GGUF) for this model; see `LlamaContext.adapt`."""
        return LlamaAdapter(self, path)

    def close(self) -> None:
        """FreeText the weights; its contexts must be closed before."""
        self.api.llama_model_free(self._model)


class LlamaAdapter:
    """A LoRA adapter, kept beside its base. It lives as long as the model.

    Raises:
        RunnerError: no adapter, or one for another base.
    """

    def __init__(self, model: LlamaModel, path: Path) -> None:
        last_words.clear()
        self.pointer = model.api.llama_adapter_lora_init(model._model, str(path).encode())
        if not self.pointer:
            raise RunnerError(
                f"{path}: no adapter of this model{': ' + last_words[0] if last_words else ''}"
            )


class LlamaContext:
    """One sequence of tokens a model has read (keys and values), to go on from or to go back in.

    Args:
        size: tokens it can hold; as many fit one batch.
    """

    def __init__(self, model: LlamaModel, size: int, threads: int) -> None:
        self.api, self._vocab, self.length = model.api, model.vocab, 0
        params = self.api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = size
        params.n_outputs_max_per_seq = 0  # as many rows of logits as there are tokens
        params.n_threads = params.n_threads_batch = threads
        last_words.clear()
        self._context = self.api.llama_init_from_model(model._model, params)
        if not self._context:
            raise RunnerError(
                last_words[0] if last_words else f"no room for a context of {size} tokens"
            )
        self.size: int = size
        self._memory = self.api.llama_get_memory(self._context)
        self._tokens, self._wanted = np.zeros(size, np.int32), np.zeros(size, np.int8)
        self._views: dict[tuple[int, int], Logits] = {}
        self._batch = LlamaBatch(token=self._tokens.ctypes.data, logits=self._wanted.ctypes.data)

    def decode(self, tokens: Sequence[int], rows: int = 1) -> Logits:
        """Read tokens in one forward pass.

        Returns:
            logits after each of the last `rows` tokens, (rows, vocabulary); a view that holds until the next pass.

        Raises:
            RunnerError: more tokens than there is room for, or llama.cpp failed.
        """
        count = len(tokens)
        if count + self.length > self.size:
            raise RunnerError(f"{self.length} + {count} tokens do not fit a context of {self.size}")
        self._tokens[:count] = tokens
        self._wanted[: count - rows], self._wanted[count - rows : count] = 0, 1
        self._batch.n_tokens = count
        if code := self.api.llama_decode(self._context, self._batch):
            raise RunnerError(
                f"llama.cpp cannot decode (code {code}){': ' + last_words[-1] if last_words else ''}"
            )
        self.length += count
        return self._view(self.api.llama_get_logits(self._context), rows)

    def _view(self, address: int, rows: int) -> Logits:
        """Memory of llama.cpp's as an array. It is mostly the same memory, so the arrays are kept."""
        if (address, rows) not in self._views:
            pointer = ctypes.cast(address, POINTER(c_float))
            self._views[address, rows] = np.ctypeslib.as_array(pointer, (rows, self._vocab))
        return self._views[address, rows]

    def forget(self, length: int) -> None:
        """Go back to the first `length` tokens.

        Raises:
            RunnerError: a model that cannot (its state is not one entry a token).
        """
        if not self.api.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise RunnerError("this model's memory cannot go back token by token")
        self.length = length

    def save(self) -> bytes:
        """What the context has read, as bytes for `restore`."""
        room = ctypes.create_string_buffer(self.api.llama_state_seq_get_size(self._context, 0))
        size = self.api.llama_state_seq_get_data(self._context, room, len(room), 0)
        return room.raw[:size]

    def restore(self, state: bytes, length: int) -> None:
        """Take up a saved state of `length` tokens, of the same model and adapters.

        Raises:
            RunnerError: not such a state.
        """
        if self.api.llama_state_seq_set_data(self._context, state, len(state), 0) != len(state):
            raise RunnerError(f"{len(state)} bytes are no state of this model")
        self.length = length

    def adapt(self, adapters: Iterable[tuple[LlamaAdapter, float]]) -> None:
        """Decode with these adapters and no others from now on; (adapter, scale). What was read before is forgotten."""
        given = list(adapters)
        pointers = (c_void_p * len(given))(*(adapter.pointer for adapter, _ in given))
        scales = (c_float * len(given))(*(scale for _, scale in given))
        if self.api.llama_set_adapters_lora(self._context, pointers, len(given), scales):
            raise RunnerError("the adapters do not fit this model")
        self.forget(0)

    def close(self) -> None:
        """FreeText it."""
        self.api.llama_free(self._context)
