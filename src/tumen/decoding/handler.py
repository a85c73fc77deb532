"""From a request to the parts of its answer, in the child process.

Requests and parts are JSON objects. A request for text:

    prompt      text, which gets the model's begin token before it, or token ids as they are;
                null for a pretrained model's vocabulary: the prompt is then made from `units`
    units       words of the sentence: the answer is an action of the ontology
    names       (first unit, unit after the last, slots that may hold them) of runs of units that
                name a thing or a place of the home, optional
    choices     texts: the answer is one of them; without `units` and `choices` it is free text
    prefix      text or ids before the prompt, whose state is kept for the next request
    limit       most tokens to write
    stream      whether the parts are sent as they are made
    adapter     name of an adapter; null for the bare model

A request `{"text": ...}` asks for the tokens of a text. The last part has `stop`: `end` (an end
token), `limit` or `full` (the context).
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError, RunnerError
from tumen.decoding.automaton import ActionGrammar, FreeText, GrammarState, OneOfTexts
from tumen.decoding.decoder import Decoder
from tumen.decoding.greedy import ScoredToken
from tumen.decoding.llama import LlamaModel
from tumen.decoding.proposers import DraftProposer, FrequencyProposer, PromptLookup, Proposer

Part = dict[str, Any]
Prompt = str | list[int] | None  # text or token ids
CACHED_WORDS = 4096  # whose tokens are remembered: people use the same words again and again


class RequestHandler:
    """A loaded model and what it may write.

    Args:
        settings:
            model: path of the GGUF.
            threads, context: of llama.cpp; context in tokens.
            draft: path of a smaller GGUF with the same vocabulary, optional.
            speculate: whether to guess what was frequent before, optional.
            ontology: as in ontology.json, optional.
            control: ids that begin, separate and end, for a pretrained model's vocabulary,
                optional.
            adapters: name -> {path, ontology}, optional.

    Raises:
        RunnerError: llama.cpp rejects a file, or the draft has another vocabulary.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.model = LlamaModel(Path(settings["model"]))
        self._control: Sequence[int] | None = settings.get("control")
        # An action ends with a token of its own in a pretrained model's vocabulary.
        self.end = self._control[2] if self._control else self.model.end
        context = self.model.context(settings["context"], settings["threads"])
        self.decoder = Decoder(context, self.end, self._proposers(settings))
        adapters = settings.get("adapters") or {}
        self._adapters = {}
        for name, entry in adapters.items():
            self._adapters[name] = self.model.adapter(Path(entry["path"]))
        self._adapter: str | None = None  # in use
        self._grammars = self._load_grammars(settings.get("ontology"), adapters)

    def _proposers(self, settings: Mapping[str, Any]) -> list[Proposer]:
        proposers: list[Proposer] = []
        if settings.get("speculate"):
            proposers += [FrequencyProposer(), PromptLookup()]
        if settings.get("draft"):
            draft = LlamaModel(Path(settings["draft"]))
            check_same_vocabulary(self.model, draft)
            context = draft.context(settings["context"], settings["threads"])
            proposers.append(DraftProposer(context))
        return proposers

    def _load_grammars(
        self, ontology: Mapping[str, Any] | None, adapters: Mapping[str, Any]
    ) -> dict[str | None, ActionGrammar]:
        """Return the grammar of each adapter; `None` is the bare model."""
        ontologies: dict[str | None, Mapping[str, Any] | None] = {None: ontology}
        for name, entry in adapters.items():
            ontologies[name] = entry["ontology"]
        # One cache for all grammars: adapters share the model's vocabulary.
        tokenize = lru_cache(CACHED_WORDS)(self.model.tokenize_inner)
        grammars: dict[str | None, ActionGrammar] = {}
        for adapter, found in ontologies.items():
            if found:
                grammars[adapter] = ActionGrammar(found, tokenize, self.end)
        return grammars

    def handle(self, request: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the parts of an answer, one a forward pass.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the request asks for something this model lacks, or llama.cpp failed.
        """
        # Not an answer: the parent asks how long a text is.
        if "text" in request:
            tokens = self.model.tokenize(request["text"], begin=True)
            yield {"tokens": tokens, "stop": "end"}
            return
        start = time.perf_counter()
        self._use_adapter(request.get("adapter"))
        given = request["prompt"]
        prompt = self._prompt_of_units(request["units"]) if given is None else given
        before, tokens = self._assemble(request.get("prefix"), prompt)
        yield from self._write(request, tokens, len(before), start)

    def _write(
        self, request: Mapping[str, Any], prompt: list[int], prefix: int, start: float
    ) -> Iterator[Part]:
        """Yield the parts of an answer to a prompt of token ids.

        Args:
            request: see the module.
            prompt: the prefix included.
            prefix: how many tokens of the prompt it is.
            start: when the request came, by `time.perf_counter`.
        """
        limit = request.get("limit")
        # A character of several bytes may be split over tokens, and so over parts.
        text_of = codecs.getincrementaldecoder("utf-8")("replace").decode
        count = 0
        first_at = start  # where there is no token at all
        last_token = None
        state = self._start_state(request)
        for fresh in self.decoder.write(prompt, state, limit, prefix):
            if count == 0:
                first_at = time.perf_counter()
            count += len(fresh)
            last_token = fresh[-1].token
            yield self._part(fresh, text_of)
        rest_of_text = text_of(b"", True)
        yield {
            "text": rest_of_text,
            "stop": self._stop_reason(last_token, count, limit),
            "prompt_tokens": len(prompt),
            "reused_tokens": self.decoder.reused,
            "passes": self.decoder.passes,
            "prompt_seconds": first_at - start,
            "generation_seconds": time.perf_counter() - first_at,
        }

    def _part(self, fresh: Sequence[ScoredToken], text_of: Callable[[bytes], str]) -> Part:
        """Return the part of an answer that one forward pass gave."""
        pieces = []
        logprobs = []
        for scored in fresh:
            piece = self.model.piece(scored.token)
            pieces.append(piece)
            # A token alone may be half a character; the text of the part is not.
            logprobs.append((piece.decode("utf-8", "replace"), scored.logprob))
        return {
            "text": text_of(b"".join(pieces)),
            "tokens": [scored.token for scored in fresh],
            "logprobs": logprobs,
        }

    def _stop_reason(self, last_token: int | None, count: int, limit: int | None) -> str:
        if last_token is not None and self._is_end(last_token):
            return "end"
        return "limit" if count == limit else "full"

    def _is_end(self, token: int) -> bool:
        return token == self.end or self.model.is_end(token)

    def _use_adapter(self, name: str | None) -> None:
        """Write with an adapter from now on; `None` is the bare model."""
        # Switching drops all kept prefixes, so it is not done without need.
        if name == self._adapter:
            return
        adapters = [] if name is None else [(self._adapters[name], 1.0)]
        self.decoder.use_adapters(adapters)
        self._adapter = name

    def _prompt_of_units(self, units: Sequence[str]) -> list[int]:
        """Return a prompt in a pretrained model's vocabulary.

        It is put together from the units, so that a copied one is the same run of tokens as in the
        sentence.
        """
        if self._control is None:
            raise RunnerError("a prompt is missing")
        # The third one ends an action.
        begin, separator, _ = self._control
        tokens = [token for unit in units for token in self.model.tokenize_inner(unit)]
        return [begin, *tokens, separator]

    def _assemble(self, prefix: Prompt, prompt: str | list[int]) -> tuple[list[int], list[int]]:
        """Return the tokens of the prefix, and of prefix and prompt together."""
        before = self._prefix_tokens(prefix)
        if not isinstance(prompt, str):
            after = prompt
        elif prefix:
            # The begin token is in the prefix.
            after = self.model.tokenize_inner(prompt)
        else:
            after = self.model.tokenize(prompt, begin=True)
        whole = [*before, *after]
        size = self.decoder.context.size
        # At least one token of the answer must fit.
        if len(whole) >= size:
            raise InputError(
                f"the sentence takes {len(whole)} tokens, but the runner's context has {size}; "
                "shorten the sentence"
            )
        if not after:
            raise InputError("the prompt is empty")
        return before, whole

    def _prefix_tokens(self, prefix: Prompt) -> list[int]:
        if not prefix:
            return []
        if isinstance(prefix, str):
            return self.model.tokenize(prefix, begin=True)
        return list(prefix)

    def _start_state(self, request: Mapping[str, Any]) -> GrammarState:
        if "units" in request:
            grammar = self._grammars.get(self._adapter)
            if grammar is None:
                raise RunnerError(
                    "the runner has no ontology, so it cannot write actions; "
                    "add an ontology.json to its bundle"
                )
            return grammar.start(request["units"], request.get("names") or ())
        if "choices" in request:
            return OneOfTexts.start(request["choices"], self.model.tokenize_inner, self.end)
        return FreeText(self.model.is_end)


def check_same_vocabulary(model: LlamaModel, draft: LlamaModel) -> None:
    """Check that every token means the same to a model and its draft.

    Raises:
        RunnerError: it does not.
    """
    same = draft.vocab == model.vocab
    if same:
        # All tokens: vocabularies of one size often differ in a few.
        tokens = range(model.vocab)
        same = all(model.piece(token) == draft.piece(token) for token in tokens)
    if not same:
        raise RunnerError(
            "the draft has another vocabulary than the model; use a draft with the same tokenizer"
        )


def merge_parts(parts: Sequence[Part]) -> Part:
    """Return all parts of an answer as one."""
    whole = dict(parts[-1])  # the reason to stop, counts and times are in the last part
    whole["text"] = "".join(part.get("text", "") for part in parts)
    for name in ("tokens", "logprobs"):
        whole[name] = [row for part in parts for row in part.get(name, ())]
    return whole
