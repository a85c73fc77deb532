"""The device runner: a bundle's GGUF in llama.cpp, in a child process of its own.

The child is there because a malformed model can abort the process that loads it, and an app must outlive that.
Decoding is greedy, one thread by default, under the grammar of the one sentence. Why a socket and not a pipe:
docs/decisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tumen.core import Events, artifact
from tumen.core.action import DO, grammar, normalise, tidy
from tumen.core.errors import ArtifactError, InputError, RunnerError
from tumen.core.ontology import Ontology
from tumen.core.recipe import Gate, Serve
from tumen.serve import gguf_check
from tumen.serve.process import Call, Process, RunnerDiedError, parse_json, read_json, refusal
from tumen.serve.runner import Completion, Seconds, Tidier, confidence

ROUTE = "/completion"
WORKERS = 4


class Bundle(BaseModel):
    """`bundle.json`: what a bundle says about itself. Fields of a newer tumen are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    recipe: str
    tier: str
    quantise: str = "int8"
    serve: Serve = Serve()
    gate: Gate = Gate()


def bundle_of(folder: Path) -> Bundle:
    """Read `bundle.json` of a bundle folder.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = folder / "bundle.json"
    try:
        return Bundle.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing, so {folder} is no bundle; run the recipe again") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtifactError(f"{path}: damaged{' at ' + where if where else ''}; run the recipe again") from None


def load(folder: Path, threads: int = 1, context: int = 512, events: Events | None = None) -> DeviceRunner:
    """Check a bundle and start its runner.

    Args:
        folder: a bundle artifact.
        threads: of llama.cpp; more than the cores that are really free makes it slower.
        context: tokens of sentence and action together.
        events: told when a dead child is started again.

    Raises:
        ArtifactError: the bundle is not what its manifest says, or its GGUF cannot be meant.
        RunnerError: the child does not start.
    """
    artifact.verify(folder, "bundle")
    bundle, ontology, model = bundle_of(folder), Ontology.load(folder), folder / "model.gguf"
    gguf_check.check(model)
    process = Process(f"{bundle.recipe}/{bundle.tier}", model, threads, context)
    process.start()
    return DeviceRunner(process, ontology, events or Events(None))


class DeviceRunner:
    """A `Runner` over a child process, for async code; `ask`, `complete` and `stop` are for code that waits.

    A child that died is started again (event `runner restarted`) and asked once more, as answers depend on nothing but
    the sentence. One that dies again, or in the middle of a stream, costs that answer a `RunnerError`.
    """

    def __init__(self, process: Process, ontology: Ontology, events: Events) -> None:
        self._process, self.ontology, self._events = process, ontology, events
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="tumen-device")

    @property
    def name(self) -> str:
        """Recipe and tier."""
        return self._process.name

    @property
    def pid(self) -> int | None:
        """The child's process id; `None` when it is dead."""
        return self._process.pid

    def ask(self, sentence: str) -> Completion:
        """The action for a sentence; blocks until it is there.

        Raises:
            InputError: empty, too long in characters, or in tokens.
            RunnerError: the child died, stalled or refused.
        """
        start = time.perf_counter()
        tree = self._whole(self._action_request(normalise(sentence)))
        if tree.get("stop_type") != "eos":
            raise InputError("the action does not fit the runner's context beside the sentence; say it shorter")
        done = _completion([tree], start)
        return Completion(**{**vars(done), "text": tidy(done.text), "confidence": confidence(done.logprobs)})

    def complete(
        self, prompt: str | Sequence[int], grammar: str | None = None, max_tokens: int = 64, n_probs: int = 1
    ) -> Completion:
        """Greedy completion of a prompt as it stands; blocks. With no grammar, the model writes what it likes.

        Args:
            prompt: text (the begin token is put before it, `<do>` is read as a token) or token ids (nothing is added).
            n_probs: how many probabilities llama.cpp computes a token; 0 leaves `logprobs` empty.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the child died, stalled or refused.
        """
        start = time.perf_counter()
        body = _request(prompt if isinstance(prompt, str) else list(prompt), grammar, max_tokens, n_probs)
        return _completion([self._whole(body)], start)

    async def act(self, sentence: str) -> Completion:
        """See `Runner.act`."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, self.ask, sentence)

    async def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        """See `Runner.stream`."""
        body = {**self._action_request(normalise(sentence)), "stream": True}
        loop, calls = asyncio.get_running_loop(), list[Call]()
        pieces = self._pieces(body, calls)
        try:
            while (piece := await loop.run_in_executor(self._workers, next, pieces, None)) is not None:
                yield piece
        finally:
            for call in calls:
                call.hang_up()  # left early: the child stops at its next token

    async def close(self) -> None:
        """End the child."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """End the child; blocks. Safe to call twice."""
        self._process.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> DeviceRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _action_request(self, words: str) -> dict[str, Any]:
        """The request for the action of a normalised sentence; it may write until the context is full."""
        return _request(words + DO, grammar(words, self.ontology), -1, 1)

    def _living(self) -> Process:
        if self._process.revive():
            self._events.emit("runner restarted", runner=self.name, starts=self._process.starts)
        return self._process

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._living().call() as call:
                return read_json(call.send_json(ROUTE, body))
        except RunnerDiedError:
            with self._living().call() as call:
                return read_json(call.send_json(ROUTE, body))

    def _pieces(self, body: dict[str, Any], calls: list[Call]) -> Iterator[str | Completion]:
        """The child's events, as text and at last a `Completion`. `calls` gets the connections, to hang up."""
        start, trees, tidier = time.perf_counter(), list[dict[str, Any]](), Tidier()
        try:
            for tree in self._trees(body, calls):
                trees.append(tree)
                if piece := tidier(tree.get("content", "")):
                    yield piece
        except RunnerDiedError:
            if trees or len(calls) > 1:
                raise
            yield from self._pieces(body, calls)
            return
        if not trees or trees[-1].get("stop_type") != "eos":
            raise RunnerError(f"{self.name}: the runner stopped before the action was whole; send the sentence again")
        done = _completion(trees, start)
        yield Completion(**{**vars(done), "text": tidy(done.text), "confidence": confidence(done.logprobs)})

    def _trees(self, body: dict[str, Any], calls: list[Call]) -> Iterator[dict[str, Any]]:
        """The JSON of each event of one streamed answer."""
        with self._living().call() as call:
            calls.append(call)
            answer = call.send_json(ROUTE, body)
            if answer.status != 200:
                read_json(answer)
            for line in answer:
                if line.startswith(b"error:"):
                    raise refusal({"error": parse_json(line[6:])})
                if line.startswith(b"data: {"):
                    yield parse_json(line[6:])


def _request(prompt: str | list[int], grammar: str | None, max_tokens: int, n_probs: int) -> dict[str, Any]:
    """A request to llama.cpp's `/completion` (tools/server/README.md): greedy, nothing kept for the next one."""
    body: dict[str, Any] = {"prompt": prompt, "n_predict": max_tokens, "n_probs": n_probs, "temperature": 0}
    body |= {"cache_prompt": False, "return_tokens": True}
    return body | ({"grammar": grammar} if grammar else {})


def _completion(trees: Sequence[dict[str, Any]], start: float) -> Completion:
    """A `Completion` from the answer's parts, in order; the last has the counts and times."""
    last, timings = trees[-1], trees[-1].get("timings", {})
    logprobs = [
        (str(row["token"]), -float("inf") if row["logprob"] is None else float(row["logprob"]))
        for tree in trees
        for row in tree.get("completion_probabilities", ())
    ]
    return Completion(
        text="".join(tree.get("content", "") for tree in trees),
        tokens=tuple(token for tree in trees for token in tree.get("tokens", ())),
        logprobs=tuple(logprobs),
        confidence=confidence(logprobs),
        seconds=Seconds(
            prompt=timings.get("prompt_ms", 0.0) / 1e3,
            generation=timings.get("predicted_ms", 0.0) / 1e3,
            total=time.perf_counter() - start,
        ),
        prompt_tokens=last.get("tokens_evaluated", 0),
        completion_tokens=last.get("tokens_predicted", 0),
    )
