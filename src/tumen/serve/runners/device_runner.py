"""The device runner: a bundle's GGUF in llama.cpp, in a child process of its own.

The child is there because a malformed model can abort the process that loads it, and an app must
survive that. Decoding is greedy, one thread by default, and allows only actions in words of the
sentence. Why a process, a socket and our own decoding loop: docs/decisions/001.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tumen.core import artifact
from tumen.core.errors import ArtifactError, InputError, RunnerError
from tumen.core.events import Events
from tumen.formats import Header, gguf_header, safetensors_header
from tumen.language import DO, Action, Ontology, normalise, units
from tumen.release import signing
from tumen.serve.runners.bundle_info import BundleInfo, read_adapters, read_bundle_info
from tumen.serve.runners.child_process import Call, ChildProcess, RunnerDiedError
from tumen.serve.runners.runner import Completion, KnownName, Seconds, StreamTidier, confidence

WORKERS = 4  # threads that wait for the child on behalf of async code
NOT_FOR_THE_CHILD = {"groups", "acts"}  # the rest of an ontology decides how an action is written
ENCODER = "bert"  # llama.cpp's architecture of an encoder
HEADS_FILE = "heads.safetensors"  # its label heads
MAX_THREADS = 256
MAX_CONTEXT = 1 << 20  # tokens

Part = dict[str, Any]  # of an answer; see `tumen.decoding.handler`


def load_runner(
    folder: Path,
    threads: int = 1,
    context: int = 512,
    events: Events | None = None,
    *,
    draft: Path | None = None,
    speculate: bool = False,
    store: signing.TrustStore = None,
) -> DeviceRunner:
    """Check a bundle and start its runner.

    The cheap checks come first: names and sizes, signature, headers, then the digest of every byte.

    Args:
        folder: a bundle artifact.
        threads: of llama.cpp; more than there are free cores makes it slower.
        context: tokens of sentence and action together.
        events: records a bundle without a signature, and restarts of the child.
        draft: GGUF of a smaller model with the same vocabulary, which guesses what this one then
            checks.
        speculate: whether to guess tokens that were frequent before. Worth it only where a pass
            costs much more than one more token in it (docs/decoding.md).
        store: the trust store; default: TUMEN_TRUST, see release/signing.py; "own" for a bundle of
            this run.

    Raises:
        ArtifactError: the bundle is not trusted, not what its manifest says, too large, or has an
            invalid GGUF.
        RunnerError: the child does not start.
    """
    events = events or Events(None)
    # From here on in the order of what a check costs.
    signing.check_trust(folder, store, events)
    info = read_bundle_info(folder)
    model = folder / "model.gguf"
    # A bundle from elsewhere may ask for any number.
    if threads > MAX_THREADS or context > MAX_CONTEXT:
        raise ArtifactError(
            f"{folder}: asks for {threads} threads and {context} tokens; "
            f"the limits are {MAX_THREADS} and {MAX_CONTEXT}"
        )
    header = gguf_header.check(model)
    # A draft is loaded by llama.cpp as well.
    if draft:
        gguf_header.check(draft)
    ontology = Ontology.load(folder)
    ontologies: dict[str, Ontology] = {}
    adapters: dict[str, Any] = {}
    for name, (path, of_adapter) in read_adapters(folder).items():
        ontologies[name] = of_adapter
        adapters[name] = {"path": str(path), "ontology": ontology_for_child(of_adapter)}
    artifact.verify(folder, "bundle")
    child = ChildProcess(
        f"{info.recipe}/{info.tier}",
        model,
        threads,
        context,
        ontology=ontology_for_child(ontology),
        draft=str(draft) if draft else None,
        speculate=speculate,
        control=info.control,
        adapters=adapters,
        **encoder_settings(folder, header, ontology, info),
    )
    child.start()
    return DeviceRunner(child, ontology, events, info, ontologies)


def encoder_settings(
    folder: Path, header: Header, ontology: Ontology, info: BundleInfo
) -> dict[str, Any]:
    """Return what the child of an encoder needs besides its model; nothing for a decoder.

    Raises:
        ArtifactError: the label heads are missing or damaged.
    """
    if header.architecture != ENCODER:
        return {}
    heads = folder / HEADS_FILE
    safetensors_header.check(heads)
    if info.control is None:
        raise ArtifactError(f"{folder}: an encoder without control tokens; run the recipe again")
    return {"heads": str(heads), "labels": ontology.labels.tree()}


def ontology_for_child(ontology: Ontology) -> dict[str, Any]:
    """Return the fields of an ontology that decide how an action is written."""
    return ontology.model_dump(exclude=NOT_FOR_THE_CHILD)


class DeviceRunner:
    """A `Runner` over a child process, for async code; `ask`, `complete` and `stop` block.

    A child that died is restarted (event `runner restarted`) and the request is sent once more, as
    an answer depends on nothing but its request. If the child dies again, or in the middle of a
    stream, that answer is a `RunnerError`.

    Args:
        child: started.
        ontology: of the actions it writes.
        events: records restarts.
        info: of the bundle; default: one of our own vocabulary, without a prefix.
        adapters: name -> what the adapter may write.
    """

    def __init__(
        self,
        child: ChildProcess,
        ontology: Ontology,
        events: Events,
        info: BundleInfo | None = None,
        adapters: Mapping[str, Ontology] | None = None,
    ) -> None:
        self.ontology = ontology
        self.adapters = adapters or {}
        self._child = child
        self._events = events
        self._info = info or BundleInfo(recipe="", tier="")
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="tumen-device")

    @property
    def name(self) -> str:
        """Recipe and tier."""
        return self._child.name

    @property
    def pid(self) -> int | None:
        """The child's process id; `None` when it is dead."""
        return self._child.pid

    def ask(
        self, sentence: str, adapter: str | None = None, names: Sequence[KnownName] = ()
    ) -> Completion:
        """Return the action for a sentence; blocks.

        Args:
            sentence: what the user said.
            names: what in it names a thing or a place of the home.
            adapter: name of one of `adapters`, which is switched to without loading anything; the
                action is then one of its ontology. Default: the bundle's own.

        Raises:
            InputError: empty, too many characters or tokens, or there is no such adapter.
            RunnerError: the child died, timed out or rejected the request.
        """
        start = time.perf_counter()
        request = self._action_request(sentence, adapter) | {"names": list(names)}
        parts = list(self._parts(request, []))
        if parts[-1]["stop"] != "end":
            raise InputError(
                "the action does not fit the runner's context beside the sentence; "
                "shorten the sentence"
            )
        return _action(parts, start)

    def complete(
        self,
        prompt: str | Sequence[int],
        choices: Sequence[str] = (),
        max_tokens: int = 64,
        logprobs: bool = True,
        prefix: str | Sequence[int] = "",
        adapter: str | None = None,
    ) -> Completion:
        """Return the greedy completion of a prompt, which is used as it is; blocks.

        Args:
            prompt: text (the begin token is put before it, `<do>` is read as a token) or token ids
                (nothing is added).
            choices: texts, one of which is written; without any the text is free.
            max_tokens: most tokens to write.
            logprobs: false leaves them empty.
            prefix: what comes before the prompt, text or ids; its state is kept for the next prompt
                that begins with it.
            adapter: see `ask`.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the child died, timed out or rejected the request.
        """
        start = time.perf_counter()
        request: dict[str, Any] = {
            "prompt": _text_or_ids(prompt),
            "prefix": _text_or_ids(prefix),
            "limit": max_tokens,
            "adapter": self._adapter_name(adapter),
        }
        if choices:
            request["choices"] = list(choices)
        parts = list(self._parts(request, []))
        completion = _completion(parts, start)
        if not logprobs:
            return replace(completion, logprobs=())
        return completion

    def tokenize(self, text: str) -> list[int]:
        """Return the model's tokens of a text, its begin token included; blocks."""
        part = next(self._parts({"text": text}, []))
        return list(part["tokens"])

    async def act(
        self, sentence: str, adapter: str | None = None, names: Sequence[KnownName] = ()
    ) -> Completion:
        """Return the action for a sentence; see `Runner.act`, and `ask` for the arguments."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, self.ask, sentence, adapter, names)

    async def stream(
        self, sentence: str, adapter: str | None = None
    ) -> AsyncIterator[str | Completion]:
        """Yield the action piece by piece; see `Runner.stream`, and `ask` for `adapter`."""
        loop = asyncio.get_running_loop()
        calls: list[Call] = []
        request = self._action_request(sentence, adapter) | {"stream": True}
        pieces = self._pieces(request, calls)
        try:
            piece = await loop.run_in_executor(self._workers, next, pieces, None)
            while piece is not None:
                yield piece
                piece = await loop.run_in_executor(self._workers, next, pieces, None)
        finally:
            # The stream may be closed early: then the child stops at its next token.
            for call in calls:
                call.cancel()

    async def close(self) -> None:
        """End the child."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """End the child; blocks. Safe to call twice."""
        self._child.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> DeviceRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _living_child(self) -> ChildProcess:
        """Return the child; one that died is started again."""
        if self._child.restart_if_dead():
            self._events.emit("runner restarted", runner=self.name, starts=self._child.starts)
        return self._child

    def _action_request(self, sentence: str, adapter: str | None) -> dict[str, Any]:
        """Return the request for the action of a sentence."""
        words = normalise(sentence)
        # In a pretrained model's vocabulary the child puts the prompt together from the units.
        prompt = None if self._info.control else words + DO
        return {
            "prompt": prompt,
            "units": units(words),
            "prefix": self._info.prefix,
            "adapter": self._adapter_name(adapter),
        }

    def _adapter_name(self, requested: str | None) -> str | None:
        """Return the adapter to use, None for none.

        Raises:
            InputError: the bundle has no such adapter.
        """
        name = requested or self._info.adapter
        if name is not None and name not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise InputError(f"{self.name} has no adapter {name[:40]!r}; it has {known}")
        return name

    def _pieces(self, request: dict[str, Any], calls: list[Call]) -> Iterator[str | Completion]:
        """Yield an action as text, piece by piece, and at last its `Completion`.

        Args:
            request: of an action, streamed.
            calls: gets the calls that are made, so that they can be cancelled.
        """
        start = time.perf_counter()
        parts: list[Part] = []
        tidier = StreamTidier()
        for part in self._parts(request, calls):
            parts.append(part)
            piece = tidier(part["text"])
            if piece:
                yield piece
        if parts[-1]["stop"] != "end":
            raise RunnerError(
                f"{self.name}: the runner stopped before the action was complete; "
                "send the sentence again"
            )
        yield _action(parts, start)

    def _parts(self, request: dict[str, Any], calls: list[Call]) -> Iterator[Part]:
        """Yield the parts of an answer.

        If the child dies before the first part, it is restarted and the request is sent once more.
        """
        begun = False  # whether the caller has got a part, which cannot be taken back
        try:
            with self._living_child().call() as call:
                calls.append(call)
                for part in call.send(request):
                    begun = True
                    yield part
        except RunnerDiedError:
            is_second_attempt = len(calls) > 1
            if begun or is_second_attempt:
                raise
            yield from self._parts(request, calls)


def _text_or_ids(prompt: str | Sequence[int]) -> str | list[int]:
    """Return a prompt as JSON can hold it."""
    if isinstance(prompt, str):
        return prompt
    return list(prompt)


def _action(parts: Sequence[Part], start: float) -> Completion:
    """Return the completion of an action; its text is tidied."""
    completion = _completion(parts, start)
    return replace(completion, text=Action.tidy(completion.text))


def _completion(parts: Sequence[Part], start: float) -> Completion:
    """Return a completion from the parts of an answer, in order; the last has the counts and times.

    Args:
        parts: see `tumen.decoding.handler`.
        start: when the request was made, by `time.perf_counter`.
    """
    last = parts[-1]
    texts = []
    tokens: list[int] = []
    logprobs: list[tuple[str, float]] = []
    for part in parts:
        texts.append(part["text"])
        tokens += part.get("tokens", ())
        for piece, logprob in part.get("logprobs", ()):
            logprobs.append((str(piece), float(logprob)))
    total_seconds = time.perf_counter() - start
    return Completion(
        text="".join(texts),
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        confidence=confidence(logprobs),
        seconds=Seconds(last["prompt_seconds"], last["generation_seconds"], total_seconds),
        prompt_tokens=last["prompt_tokens"],
        completion_tokens=len(tokens),
        reused_tokens=last["reused_tokens"],
        passes=last["passes"],
    )
