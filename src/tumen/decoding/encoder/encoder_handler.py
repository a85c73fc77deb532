"""From a request to the parts of its answer, with an encoder: one forward pass for an action.

Requests and parts are those of `handler`; only requests for the action of a sentence, and for the
tokens of a text, can be answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError, RunnerError
from tumen.decoding.encoder.encoder_reading import EncoderReading, read_heads
from tumen.decoding.handler import CACHED_WORDS, Part
from tumen.decoding.llama import LlamaEncoder, LlamaModel


class EncoderHandler:
    """A loaded encoder with its label heads.

    Args:
        settings: model, threads, context, control: see `handler.RequestHandler`; and

            heads: path of the label heads.
            labels: of the ontology, see `tumen.language.labels.Labels.tree`.

    Raises:
        RunnerError: llama.cpp rejects the file, or the heads are another ontology's.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.model = LlamaModel(Path(settings["model"]))
        self.encoder = LlamaEncoder(self.model, settings["context"], settings["threads"])
        self.heads = read_heads(Path(settings["heads"]))
        self.reading = EncoderReading(settings["labels"])
        self.reading.check(self.heads, self.encoder.width)
        self.begin, self.separator, _ = settings["control"]
        self._tokenize = lru_cache(CACHED_WORDS)(self._unit)

    def _unit(self, unit: str) -> tuple[int, ...]:
        return tuple(self.model.tokenize_inner(unit))

    def handle(self, request: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the parts of an answer: the pieces of an action, then the end.

        Raises:
            InputError: the sentence does not fit the context.
            RunnerError: the request asks for something that an encoder cannot do.
        """
        if "text" in request:
            yield {"tokens": self.model.tokenize(request["text"], begin=True), "stop": "end"}
            return
        if "units" not in request or request.get("adapter") is not None:
            raise RunnerError(
                "this bundle is an encoder, which reads actions off a sentence and writes no text; "
                "use a bundle with a decoder"
            )
        start = time.perf_counter()
        units = request["units"]
        tokens, firsts = self._tokens(units)
        states = self.encoder.states(tokens)
        sentence, tags = self.reading.logits(states, firsts, self.heads)
        names = request.get("names") or ()
        pieces = self.reading.read(sentence, tags, self.heads["by_intent.weight"], units, names)
        read = time.perf_counter()
        yield {"text": "".join(piece for piece, _ in pieces), "tokens": [], "logprobs": pieces}
        yield {
            "text": "",
            "stop": "end",
            "prompt_tokens": len(tokens),
            "reused_tokens": 0,
            "passes": 1,
            "prompt_seconds": read - start,
            "generation_seconds": time.perf_counter() - read,
        }

    def _tokens(self, units: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the tokens of a sentence and the place of each unit's first.

        Raises:
            InputError: there are too many, or none.
        """
        if not units:
            raise InputError("the prompt is empty")
        tokens = [self.begin]
        firsts = []
        for unit in units:
            firsts.append(len(tokens))
            tokens += self._tokenize(unit)
        tokens.append(self.separator)
        if len(tokens) > self.encoder.size:
            raise InputError(
                f"the sentence takes {len(tokens)} tokens, but the runner's context has "
                f"{self.encoder.size}; shorten the sentence"
            )
        return tokens, firsts
