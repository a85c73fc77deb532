"""In the child: from a request to the parts of its answer.

Requests: `{"prompt", "units" | "among" | nothing, "prefix", "limit", "stream"}` for text, `{"text"}` for the tokens of a text.
A prompt is text, which gets the model's begin token, or token ids as they are. With `units` the answer is an action of the
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
from tumen.serve.automaton import Among, Form, Free, State
from tumen.serve.decode import Decoder, FromDraft, FromHabit, FromText, Proposer
from tumen.serve.llama import Model

Part = dict[str, Any]
CUTS = 4096  # words whose tokens are remembered: people say the same ones again


class Answerer:
    """A loaded model and what it may write.

    Args:
        settings: `model` and maybe `draft` (paths), `threads`, `context` (tokens), maybe `ontology` (as in ontology.json), `guess`
            (whether to propose what was usual before).

    Raises:
        RunnerError: llama.cpp refuses a file, or the draft has other tokens.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        size, threads = settings["context"], settings["threads"]
        self.model = model = Model(Path(settings["model"]))
        proposers: list[Proposer] = [FromHabit(), FromText()] if settings.get("guess") else []
        if path := settings.get("draft"):
            draft = Model(Path(path))
            refuse_other_tokens(model, draft)
            proposers.append(FromDraft(draft.context(size, threads)))
        self.decoder = Decoder(model.context(size, threads), model.end, proposers)
        ontology = settings.get("ontology")
        self._form = Form(ontology, lru_cache(CUTS)(model.inner), model.end) if ontology else None

    def parts(self, request: Mapping[str, Any]) -> Iterator[Part]:
        """The parts of an answer, one a forward pass.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the request makes no sense, or llama.cpp failed.
        """
        if "text" in request:
            yield {"tokens": self.model.tokens(request["text"], begin=True), "stop": "end"}
            return
        start = time.perf_counter()
        prefix, prompt = self._prompt(request.get("prefix"), request["prompt"])
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
                "logprobs": [(piece.decode("utf-8", "replace"), row.logprob) for piece, row in zip(pieces, fresh, strict=True)],
            }
        ended = token is not None and self.model.is_end(token)
        yield {
            "text": text.decode(b"", final=True),
            "stop": "end" if ended else "limit" if count == limit else "full",
            "prompt_tokens": len(prompt),
            "reused_tokens": self.decoder.reused,
            "passes": self.decoder.passes,
            "prompt_seconds": first,
            "generation_seconds": time.perf_counter() - start - first,
        }

    def _prompt(self, prefix: str | list[int] | None, prompt: str | list[int]) -> tuple[list[int], list[int]]:
        """The tokens of the kept beginning, and of all of it."""
        cut = self.model.inner if prefix else lambda text: self.model.tokens(text, begin=True)
        before = self.model.tokens(prefix, begin=True) if isinstance(prefix, str) and prefix else list(prefix or ())
        whole = [*before, *(cut(prompt) if isinstance(prompt, str) else prompt)]
        if len(whole) >= self.decoder.context.size:
            size = self.decoder.context.size
            raise InputError(f"the sentence takes {len(whole)} tokens, the runner's context is {size}; say it shorter")
        if len(whole) == len(before):
            raise InputError("the prompt is empty; say something")
        return before, whole

    def _state(self, request: Mapping[str, Any]) -> State:
        if "units" in request:
            if self._form is None:
                raise RunnerError("the runner has no ontology, so it cannot write actions; give its bundle an ontology.json")
            return self._form.start(request["units"])
        if "among" in request:
            return Among.of(request["among"], self.model.inner, self.model.end)
        return Free(self.model.is_end)


def refuse_other_tokens(model: Model, draft: Model) -> None:
    """A draft must mean the same by every token.

    Raises:
        RunnerError: it does not.
    """
    if draft.vocab != model.vocab or any(model.piece(token) != draft.piece(token) for token in range(model.vocab)):
        raise RunnerError("the draft has another vocabulary than the model; give it one from the same tokeniser")


def merged(parts: Sequence[Part]) -> Part:
    """All parts of an answer as one."""
    whole = dict(parts[-1])
    whole["text"] = "".join(part.get("text", "") for part in parts)
    for name in ("tokens", "logprobs"):
        whole[name] = [row for part in parts for row in part.get(name, ())]
    return whole
