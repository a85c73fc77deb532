"""In the child: from a request to the parts of its answer.

Requests: `{"prompt", "units" | "among" | nothing, "prefix", "limit", "stream", "adapter"}` for text, `{"text"}` for the tokens of
a text. A prompt is text, which gets the model's begin token, or token ids as they are; of an outside vocabulary it is put together
from the units, so that a copied one is the same run of tokens as in the sentence. With `units` the answer is an action of the
ontology, with `among` one of a few texts, with neither it is free. The last part says why it stopped: `end`, `limit` or `full`.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError, RunnerError
from tumen.decoding.automaton import ActionGrammar, FreeText, GrammarState, OneOfTexts
from tumen.decoding.decoder import Decoder, DraftProposer, FrequencyProposer, PromptLookup, Proposer
from tumen.decoding.llama import LlamaModel

Part = dict[str, Any]
CUTS = 4096  # words whose tokens are remembered: people say the same ones again


class RequestHandler:
    """A loaded model and what it may write.

    Args:
        settings: `model` and maybe `draft` (paths), `threads`, `context` (tokens), maybe `ontology` (as in ontology.json), `guess`
            (whether to propose what was usual before); of an outside vocabulary `control` (ids that begin, part and end);
            maybe `adapters`: name -> {path, ontology}.

    Raises:
        RunnerError: llama.cpp refuses a file, or the draft has other tokens.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        size, threads = settings["context"], settings["threads"]
        self.model = model = LlamaModel(Path(settings["model"]))
        proposers: list[Proposer] = (
            [FrequencyProposer(), PromptLookup()] if settings.get("guess") else []
        )
        if path := settings.get("draft"):
            draft = LlamaModel(Path(path))
            check_same_vocabulary(model, draft)
            proposers.append(DraftProposer(draft.context(size, threads)))
        self._control: Sequence[int] | None = settings.get("control")
        self.end = self._control[2] if self._control else model.end
        self.decoder = Decoder(model.context(size, threads), self.end, proposers)
        given = settings.get("adapters") or {}
        self._adapters = {name: model.adapter(Path(one["path"])) for name, one in given.items()}
        ontologies = {
            None: settings.get("ontology"),
            **{name: one["ontology"] for name, one in given.items()},
        }
        cut = lru_cache(CUTS)(model.inner)
        self._forms = {
            name: ActionGrammar(one, cut, self.end) for name, one in ontologies.items() if one
        }
        self._adapter: str | None = None

    def handle(self, request: Mapping[str, Any]) -> Iterator[Part]:
        """The parts of an answer, one a forward pass.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the request makes no sense, or llama.cpp failed.
        """
        if "text" in request:
            yield {"tokens": self.model.tokens(request["text"], begin=True), "stop": "end"}
            return
        start = time.perf_counter()
        self._adapt(request.get("adapter"))
        given = request["prompt"]
        prefix, prompt = self._prompt(
            request.get("prefix"), self._spoken(request["units"]) if given is None else given
        )
        limit = request.get("limit")
        text, count, first = codecs.getincrementaldecoder("utf-8")("replace"), 0, 0.0
        token = None
        for fresh in self.decoder.write(prompt, self._state(request), limit, len(prefix)):
            first = first or time.perf_counter() - start
            count, token = count + len(fresh), fresh[-1].token
            pieces = [self.model.piece(written.token) for written in fresh]
            yield {
                "text": text.decode(b"".join(pieces)),
                "tokens": [written.token for written in fresh],
                "logprobs": [
                    (piece.decode("utf-8", "replace"), row.logprob)
                    for piece, row in zip(pieces, fresh, strict=True)
                ],
            }
        ended = token is not None and (token == self.end or self.model.is_end(token))
        yield {
            "text": text.decode(b"", final=True),
            "stop": "end" if ended else "limit" if count == limit else "full",
            "prompt_tokens": len(prompt),
            "reused_tokens": self.decoder.reused,
            "passes": self.decoder.passes,
            "prompt_seconds": first,
            "generation_seconds": time.perf_counter() - start - first,
        }

    def _adapt(self, name: str | None) -> None:
        """Write with that adapter from now on; None: the bare model."""
        if name != self._adapter:
            self.decoder.adapt([(self._adapters[name], 1.0)] if name is not None else [])
            self._adapter = name

    def _spoken(self, units: Sequence[str]) -> list[int]:
        """A prompt in an outside vocabulary."""
        if self._control is None:
            raise RunnerError("a prompt is missing")
        begin, do, _ = self._control
        return [begin, *(token for unit in units for token in self.model.inner(unit)), do]

    def _prompt(
        self, prefix: str | list[int] | None, prompt: str | list[int]
    ) -> tuple[list[int], list[int]]:
        """The tokens of the kept beginning, and of all of it."""
        cut = self.model.inner if prefix else lambda text: self.model.tokens(text, begin=True)
        before = (
            self.model.tokens(prefix, begin=True)
            if isinstance(prefix, str) and prefix
            else list(prefix or ())
        )
        whole = [*before, *(cut(prompt) if isinstance(prompt, str) else prompt)]
        if len(whole) >= self.decoder.context.size:
            size = self.decoder.context.size
            raise InputError(
                f"the sentence takes {len(whole)} tokens, the runner's context is {size}; say it shorter"
            )
        if len(whole) == len(before):
            raise InputError("the prompt is empty; say something")
        return before, whole

    def _state(self, request: Mapping[str, Any]) -> GrammarState:
        if "units" in request:
            form = self._forms.get(self._adapter)
            if form is None:
                raise RunnerError(
                    "the runner has no ontology, so it cannot write actions; give its bundle an ontology.json"
                )
            return form.start(request["units"])
        if "among" in request:
            return OneOfTexts.of(request["among"], self.model.inner, self.end)
        return FreeText(self.model.is_end)


def check_same_vocabulary(model: LlamaModel, draft: LlamaModel) -> None:
    """A draft must mean the same by every token.

    Raises:
        RunnerError: it does not.
    """
    if draft.vocab != model.vocab or any(
        model.piece(token) != draft.piece(token) for token in range(model.vocab)
    ):
        raise RunnerError(
            "the draft has another vocabulary than the model; give it one from the same tokeniser"
        )


def merge_parts(parts: Sequence[Part]) -> Part:
    """All parts of an answer as one."""
    whole = dict(parts[-1])
    whole["text"] = "".join(part.get("text", "") for part in parts)
    for name in ("tokens", "logprobs"):
        whole[name] = [row for part in parts for row in part.get(name, ())]
    return whole
