"""A GGUF model in llama.cpp: its vocabulary, contexts and LoRA adapters.

Each class wraps a handle of `llama_api.library`. A handle is freed by `close`, or when the process
ends.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from ctypes import POINTER, c_float, c_int, c_void_p
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import RunnerError
from tumen.decoding.llama_api import ContextParams, LlamaBatch, last_errors, library

Logits = NDArray[np.float32]  # (rows, vocabulary), before any softmax
SEQUENCE = 0  # the only one of a context
NO_POOLING = 0  # llama.cpp's LLAMA_POOLING_TYPE_NONE: a hidden state for each token


def sized_params(api: Any, size: int, threads: int) -> ContextParams:
    """Return the parameters of a context of `size` tokens that all fit one forward pass."""
    params: ContextParams = api.llama_context_default_params()
    params.n_ctx = size
    params.n_batch = size
    params.n_ubatch = size
    params.n_outputs_max_per_seq = 0  # as many rows of logits as there are tokens
    params.n_threads = threads
    params.n_threads_batch = threads
    return params


class LlamaModel:
    """Weights and vocabulary.

    Args:
        path: of a GGUF that `formats.gguf_header.check` has passed.

    Attributes:
        vocab: number of tokens.
        end: the end token.

    Raises:
        RunnerError: llama.cpp rejects the file; the message has its reason.
    """

    def __init__(self, path: Path) -> None:
        self.api = library()
        last_errors.clear()
        params = self.api.llama_model_default_params()
        self.handle = self.api.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise RunnerError(_first_error(f"{path}: llama.cpp rejects the file"))
        self.vocab_handle = self.api.llama_model_get_vocab(self.handle)
        self.vocab: int = self.api.llama_vocab_n_tokens(self.vocab_handle)
        self.end: int = self.api.llama_vocab_eos(self.vocab_handle)
        if self.end < 0:
            raise RunnerError(
                f"{path}: has no end token, so its answers would not end; "
                "set tokenizer.ggml.eos_token_id"
            )
        self._pieces: dict[int, bytes] = {}  # of the tokens asked for so far

    def tokenize(self, text: str, begin: bool = False) -> list[int]:
        """Return the ids of a text; control tokens in it are read as such.

        Args:
            text: any text.
            begin: whether to put the model's begin token before it.

        Raises:
            RunnerError: llama.cpp cannot tokenize the text.
        """
        raw = text.encode()
        # At most a token a byte, and a space may take three bytes in the vocabulary.
        buffer = (c_int * (3 * len(raw) + 2))()
        read_control_tokens = True
        count = self.api.llama_tokenize(
            self.vocab_handle, raw, len(raw), buffer, len(buffer), begin, read_control_tokens
        )
        if count < 0:
            raise RunnerError("llama.cpp cannot tokenize the text")
        return buffer[:count]

    def tokenize_inner(self, text: str) -> list[int]:
        """Return the ids of a text inside a longer one.

        Some tokenizers put a space before a text; it is left out here.
        """
        if not self._line_end:
            return self.tokenize(text)
        # The space comes before the line break then, and both are cut off.
        return self.tokenize("\n" + text)[len(self._line_end) :]

    @cached_property
    def _line_end(self) -> list[int]:
        """The tokens of a line break if the tokenizer puts a space before a text; else none."""
        first = self.tokenize("a")[0]
        return self.tokenize("\n") if self.piece(first).startswith(b" ") else []

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; none for a control token."""
        if token not in self._pieces:
            self._pieces[token] = self._read_piece(token)
        return self._pieces[token]

    def _read_piece(self, token: int) -> bytes:
        to_piece = self.api.llama_token_to_piece
        # Into a buffer of no bytes it writes nothing and returns the needed size, negated.
        size = -to_piece(self.vocab_handle, token, None, 0, 0, False)
        buffer = ctypes.create_string_buffer(size)
        to_piece(self.vocab_handle, token, buffer, size, 0, False)
        return buffer.raw

    def is_end(self, token: int) -> bool:
        """Return whether generation ends with a token."""
        return bool(self.api.llama_vocab_is_eog(self.vocab_handle, token))

    def context(self, size: int, threads: int = 1) -> LlamaContext:
        """Return working memory for `size` tokens.

        Raises:
            RunnerError: there is no memory for it.
        """
        return LlamaContext(self, size, threads)

    def adapter(self, path: Path) -> LlamaAdapter:
        """Load a LoRA adapter (GGUF) for this model; see `LlamaContext.use_adapters`.

        Raises:
            RunnerError: not an adapter, or one for another model.
        """
        return LlamaAdapter(self, path)

    def close(self) -> None:
        """Free the weights; its contexts must be closed before."""
        self.api.llama_model_free(self.handle)


class LlamaEncoder:
    """A model that reads a whole sentence in one pass and keeps nothing of it.

    Args:
        model: of the architecture `bert`.
        size: most tokens of a sentence; not more than the model has positions.
        threads: of a forward pass.

    Attributes:
        size: most tokens of a sentence.
        width: of a hidden state.

    Raises:
        RunnerError: there is no memory for it.
    """

    def __init__(self, model: LlamaModel, size: int, threads: int) -> None:
        self.api = model.api
        self.size = min(size, self.api.llama_model_n_ctx_train(model.handle))
        self.width: int = self.api.llama_model_n_embd(model.handle)
        last_errors.clear()
        params = sized_params(self.api, self.size, threads)
        params.embeddings = True
        params.pooling_type = NO_POOLING
        self._handle = self.api.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise RunnerError(_first_error(f"no memory for a sentence of {size} tokens"))
        self._tokens = np.zeros(self.size, np.int32)

    def states(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the hidden state of each token, (T, width).

        Raises:
            RunnerError: llama.cpp failed.
        """
        count = len(tokens)
        self._tokens[:count] = tokens
        batch = LlamaBatch(token=self._tokens.ctypes.data, n_tokens=count)
        code = self.api.llama_encode(self._handle, batch)
        address = self.api.llama_get_embeddings(self._handle)
        if code or not address:
            reason = f": {last_errors[-1]}" if last_errors else ""
            raise RunnerError(f"llama.cpp cannot encode (code {code}){reason}")
        pointer = ctypes.cast(address, POINTER(c_float))
        return np.ctypeslib.as_array(pointer, (count, self.width)).copy()


class LlamaAdapter:
    """A LoRA adapter, in memory beside its model and for as long."""

    def __init__(self, model: LlamaModel, path: Path) -> None:
        last_errors.clear()
        self.handle = model.api.llama_adapter_lora_init(model.handle, str(path).encode())
        if not self.handle:
            reason = f": {last_errors[0]}" if last_errors else ""
            raise RunnerError(f"{path}: not an adapter of this model{reason}")


class LlamaContext:
    """One sequence of tokens that a model has read (keys and values), to continue or to rewind.

    Args:
        model: the model.
        size: tokens it can hold; as many fit one forward pass.
        threads: of a forward pass.

    Attributes:
        length: tokens it holds.
    """

    def __init__(self, model: LlamaModel, size: int, threads: int) -> None:
        self.api = model.api
        self.size = size
        self.length = 0
        self._vocab = model.vocab
        last_errors.clear()
        params = sized_params(self.api, size, threads)
        self._handle = self.api.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise RunnerError(_first_error(f"no memory for a context of {size} tokens"))
        self._memory = self.api.llama_get_memory(self._handle)
        # The batch points into these two arrays, so that a pass allocates nothing.
        self._tokens = np.zeros(size, np.int32)
        self._wants_logits = np.zeros(size, np.int8)
        self._batch = LlamaBatch(
            token=self._tokens.ctypes.data, logits=self._wants_logits.ctypes.data
        )
        self._views: dict[tuple[int, int], Logits] = {}

    def decode(self, tokens: Sequence[int], rows: int = 1) -> Logits:
        """Read tokens in one forward pass.

        Args:
            tokens: ids.
            rows: after how many of the last tokens to return logits.

        Returns:
            logits, (rows, vocabulary); a view that the next pass overwrites.

        Raises:
            RunnerError: the tokens do not fit, or llama.cpp failed.
        """
        count = len(tokens)
        if count + self.length > self.size:
            raise RunnerError(f"{self.length} + {count} tokens do not fit a context of {self.size}")
        first_row = count - rows
        # Only the last rows are wanted: logits of the others would cost a product each.
        self._tokens[:count] = tokens
        self._wants_logits[:first_row] = 0
        self._wants_logits[first_row:count] = 1
        self._batch.n_tokens = count
        code = self.api.llama_decode(self._handle, self._batch)
        if code:
            reason = f": {last_errors[-1]}" if last_errors else ""
            raise RunnerError(f"llama.cpp cannot decode (code {code}){reason}")
        self.length += count
        return self._view(self.api.llama_get_logits(self._handle), rows)

    def _view(self, address: int, rows: int) -> Logits:
        """Return memory of llama.cpp as an array; arrays are kept, as addresses rarely change."""
        key = (address, rows)
        if key not in self._views:
            pointer = ctypes.cast(address, POINTER(c_float))
            self._views[key] = np.ctypeslib.as_array(pointer, (rows, self._vocab))
        return self._views[key]

    def forget(self, length: int) -> None:
        """Rewind to the first `length` tokens.

        Raises:
            RunnerError: the model's memory cannot be rewound token by token (a recurrent state).
        """
        end = -1  # of the sequence
        if not self.api.llama_memory_seq_rm(self._memory, SEQUENCE, length, end):
            raise RunnerError("this model's memory cannot be rewound token by token")
        self.length = length

    def save(self) -> bytes:
        """Return the state after the tokens read so far, for `restore`."""
        # The size depends on how many tokens the context holds.
        size = self.api.llama_state_seq_get_size(self._handle, SEQUENCE)
        buffer = ctypes.create_string_buffer(size)
        written = self.api.llama_state_seq_get_data(self._handle, buffer, size, SEQUENCE)
        return buffer.raw[:written]

    def restore(self, state: bytes, length: int) -> None:
        """Load a saved state of `length` tokens, made by the same model and adapters.

        Raises:
            RunnerError: the bytes are not such a state.
        """
        read = self.api.llama_state_seq_set_data(self._handle, state, len(state), SEQUENCE)
        if read != len(state):
            raise RunnerError(f"{len(state)} bytes are not a state of this model")
        self.length = length

    def use_adapters(self, adapters: Iterable[tuple[LlamaAdapter, float]]) -> None:
        """Decode with these (adapter, scale) from now on; what was read before is forgotten.

        Raises:
            RunnerError: an adapter does not fit this model.
        """
        given = list(adapters)
        count = len(given)
        handles = (c_void_p * count)(*(adapter.handle for adapter, _ in given))
        scales = (c_float * count)(*(scale for _, scale in given))
        failed = self.api.llama_set_adapters_lora(self._handle, handles, count, scales)
        if failed:
            raise RunnerError("the adapters do not fit this model")
        self.forget(0)

    def close(self) -> None:
        """Free the memory."""
        self.api.llama_free(self._handle)


def _first_error(otherwise: str) -> str:
    """Return the first error of llama.cpp since the last `clear`: later ones follow from it."""
    return last_errors[0] if last_errors else otherwise
