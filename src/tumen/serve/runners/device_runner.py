"""The device runner: a bundle's GGUF in llama.cpp, in a child process of its own.

The child is there because a malformed model can abort the process that loads it, and an app must outlive that.
Decoding is greedy, one thread by default, and allows actions in words of the one sentence. Why a process, a socket and a decoding
loop of our own: docs/decisions/001.
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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tumen.core import artifact, untrusted
from tumen.core.errors import ArtifactError, InputError, RunnerError
from tumen.core.events import Events
from tumen.formats import gguf_header
from tumen.language import DO, Ontology, normalise, tidy, units
from tumen.recipe import Gate, Serve
from tumen.release import signing
from tumen.serve.runners.process import Call, Process, RunnerDiedError
from tumen.serve.runners.runner import Completion, Seconds, Tidier, confidence

WORKERS = 4
UNWRITTEN = ("groups", "acts")  # all else of an ontology decides how an action is written
MOST_THREADS, MOST_CONTEXT, MOST_ABOUT_BYTES = 256, 1 << 20, 1 << 20


class BundleInfo(BaseModel):
    """`bundle.json`: what a bundle says about itself. Fields of a newer tumen are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    recipe: str
    tier: str
    quantise: str = "int8"
    serve: Serve = Serve()
    gate: Gate = Gate()
    prefix: str = Field(
        "",
        description="what stands before every sentence (an outside model's examples); its state is kept",
    )
    control: tuple[int, int, int] | None = Field(
        None,
        description="of an outside vocabulary: the tokens that begin, part sentence from action, and end",
    )
    adapter: str | None = Field(
        None, description="which of `adapters/` is used unless another is asked for"
    )


def read_bundle_info(folder: Path) -> BundleInfo:
    """Read `bundle.json` of a bundle folder.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = folder / "bundle.json"
    if not path.exists():
        raise ArtifactError(f"{path}: missing, so {folder} is no bundle; run the recipe again")
    try:
        return BundleInfo.model_validate(untrusted.read_json(path, most_bytes=MOST_ABOUT_BYTES))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtifactError(
            f"{path}: damaged{' at ' + where if where else ''}; run the recipe again"
        ) from None


def load_runner(
    folder: Path,
    threads: int = 1,
    context: int = 512,
    events: Events | None = None,
    *,
    draft: Path | None = None,
    guess: bool = False,
    store: signing.TrustStore = None,
) -> DeviceRunner:
    """Check a bundle and start its runner. What is cheap comes first: names and sizes, signature, headers, then every byte.

    Args:
        folder: a bundle artifact.
        threads: of llama.cpp; more than the cores that are really free makes it slower.
        context: tokens of sentence and action together.
        events: told of a bundle that nobody signed, and when a dead child is started again.
        draft: GGUF of a smaller model with the same tokens, which proposes what this one then checks.
        guess: whether what was usual before is proposed. It pays where a pass costs much more than a token in it (docs/serve.md).
        store: the trust store; default: TUMEN_TRUST, see release/signing.py; "own" for a bundle of this run.

    Raises:
        ArtifactError: the bundle is not let in, not what its manifest says, too large, or its GGUF cannot be meant.
        RunnerError: the child does not start.
    """
    events = events or Events(None)
    signing.check_trust(folder, store, events)
    bundle, model = read_bundle_info(folder), folder / "model.gguf"
    if (
        threads > MOST_THREADS or context > MOST_CONTEXT
    ):  # a stranger's bundle may ask for any number
        raise ArtifactError(
            f"{folder}: asks for {threads} threads and {context} tokens; {MOST_THREADS} and {MOST_CONTEXT} are the most"
        )
    for path in (model, draft) if draft else (model,):
        gguf_header.check(path)
    ontology, adapters = Ontology.load(folder), adapters_of(folder)
    artifact.verify(folder, "bundle")
    settings: dict[str, Any] = {
        "ontology": _written(ontology),
        "draft": draft and str(draft),
        "guess": guess,
    }
    settings["control"] = bundle.control
    settings["adapters"] = {
        name: {"path": str(path), "ontology": _written(what)}
        for name, (path, what) in adapters.items()
    }
    process = Process(f"{bundle.recipe}/{bundle.tier}", model, threads, context, **settings)
    process.start()
    return DeviceRunner(
        process, ontology, events, bundle, {name: what for name, (_, what) in adapters.items()}
    )


def _written(ontology: Ontology) -> dict[str, Any]:
    return ontology.model_dump(exclude=set(UNWRITTEN))


def adapters_of(folder: Path) -> dict[str, tuple[Path, Ontology]]:
    """The adapters of a bundle by name, and what each may write.

    Raises:
        ArtifactError: one is no adapter of the bundle's model.
    """
    paths = sorted(folder.glob("adapters/*.gguf"))
    if paths:
        base = gguf_header.check(folder / "model.gguf")
        for path in paths:
            gguf_header.check_adapter(path, base)
    return {path.stem: (path, Ontology.read(path.with_suffix(".json"))) for path in paths}


class DeviceRunner:
    """A `Runner` over a child process, for async code; `ask`, `complete` and `stop` are for code that waits.

    A child that died is started again (event `runner restarted`) and asked once more, as answers depend on nothing but
    the sentence. One that dies again, or in the middle of a stream, costs that answer a `RunnerError`.
    """

    def __init__(
        self, process: Process, ontology: Ontology, events: Events,
        bundle: BundleInfo | None = None, adapters: Mapping[str, Ontology] | None = None,
    ) -> None:  # fmt: skip
        self._process, self.ontology, self._events = process, ontology, events
        self._bundle, self.adapters = bundle or BundleInfo(recipe="", tier=""), adapters or {}
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="tumen-device")

    @property
    def name(self) -> str:
        """Recipe and tier."""
        return self._process.name

    @property
    def pid(self) -> int | None:
        """The child's process id; `None` when it is dead."""
        return self._process.pid

    def ask(self, sentence: str, adapter: str | None = None) -> Completion:
        """The action for a sentence; blocks until it is there.

        Args:
            adapter: name of one of `adapters`, on whose ontology the action then is; switched without loading anything.
                Default: the bundle's own.

        Raises:
            InputError: empty, too long in characters, or in tokens; or there is no such adapter.
            RunnerError: the child died, stalled or refused.
        """
        start = time.perf_counter()
        parts = [*self._parts(self._action_request(sentence, adapter), [])]
        if parts[-1]["stop"] != "end":
            raise InputError(
                "the action does not fit the runner's context beside the sentence; say it shorter"
            )
        return _action(parts, start)

    def complete(
        self,
        prompt: str | Sequence[int],
        among: Sequence[str] = (),
        max_tokens: int = 64,
        logprobs: bool = True,
        prefix: str | Sequence[int] = "",
        adapter: str | None = None,
    ) -> Completion:
        """Greedy completion of a prompt as it stands; blocks.

        Args:
            prompt: text (the begin token is put before it, `<do>` is read as a token) or token ids (nothing is added).
            among: what may be written: one of these texts. With none, the model writes what it likes.
            logprobs: false leaves them empty.
            prefix: what comes before the prompt, text or ids; its state is kept for the next prompt that begins so.
            adapter: see `ask`.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the child died, stalled or refused.
        """
        start = time.perf_counter()
        request: dict[str, Any] = {
            "prompt": _given(prompt),
            "prefix": _given(prefix),
            "limit": max_tokens,
        }
        request["adapter"] = self._chosen(adapter)
        done = _completion(
            [*self._parts(request | ({"among": list(among)} if among else {}), [])], start
        )
        return done if logprobs else replace(done, logprobs=())

    def tokens(self, text: str) -> list[int]:
        """How the model cuts a text, its begin token included; blocks."""
        return list(next(self._parts({"text": text}, []))["tokens"])

    async def act(self, sentence: str, adapter: str | None = None) -> Completion:
        """See `Runner.act`; `adapter` as in `ask`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._workers, self.ask, sentence, adapter
        )

    async def stream(
        self, sentence: str, adapter: str | None = None
    ) -> AsyncIterator[str | Completion]:
        """See `Runner.stream`; `adapter` as in `ask`."""
        loop, calls = asyncio.get_running_loop(), list[Call]()
        pieces = self._pieces(self._action_request(sentence, adapter) | {"stream": True}, calls)
        try:
            while (
                piece := await loop.run_in_executor(self._workers, next, pieces, None)
            ) is not None:
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _living(self) -> Process:
        if self._process.revive():
            self._events.emit("runner restarted", runner=self.name, starts=self._process.starts)
        return self._process

    def _action_request(self, sentence: str, adapter: str | None) -> dict[str, Any]:
        words = normalise(sentence)
        prompt = (
            None if self._bundle.control else words + DO
        )  # of an outside vocabulary the child puts it together from the units
        return {
            "prompt": prompt,
            "units": units(words),
            "prefix": self._bundle.prefix,
            "adapter": self._chosen(adapter),
        }

    def _chosen(self, adapter: str | None) -> str | None:
        name = adapter or self._bundle.adapter
        if name is not None and name not in self.adapters:
            raise InputError(
                f"{self.name} has no adapter {name[:40]!r}; it has {', '.join(self.adapters) or 'none'}"
            )
        return name

    def _pieces(self, request: dict[str, Any], calls: list[Call]) -> Iterator[str | Completion]:
        """An action as text, piece by piece, and at last a `Completion`. `calls` gets the connections, to hang up."""
        start, parts, tidier = time.perf_counter(), list[dict[str, Any]](), Tidier()
        for part in self._parts(request, calls):
            parts.append(part)
            if piece := tidier(part["text"]):
                yield piece
        if parts[-1]["stop"] != "end":
            raise RunnerError(
                f"{self.name}: the runner stopped before the action was whole; send the sentence again"
            )
        yield _action(parts, start)

    def _parts(self, request: dict[str, Any], calls: list[Call]) -> Iterator[dict[str, Any]]:
        """The parts of an answer. A child that dies before the first of them is started again and asked once more."""
        begun = False
        try:
            with self._living().call() as call:
                calls.append(call)
                for part in call.ask(request):
                    begun = True
                    yield part
        except RunnerDiedError:
            if begun or len(calls) > 1:
                raise
            yield from self._parts(request, calls)


def _given(prompt: str | Sequence[int]) -> str | list[int]:
    return prompt if isinstance(prompt, str) else list(prompt)


def _action(parts: Sequence[dict[str, Any]], start: float) -> Completion:
    """The `Completion` of an action."""
    done = _completion(parts, start)
    return replace(done, text=tidy(done.text))


def _completion(parts: Sequence[dict[str, Any]], start: float) -> Completion:
    """A `Completion` from the parts of an answer, in order; the last has the counts and times."""
    last = parts[-1]
    tokens = tuple(token for part in parts for token in part.get("tokens", ()))
    logprobs = tuple(
        (str(piece), float(row)) for part in parts for piece, row in part.get("logprobs", ())
    )
    return Completion(
        text="".join(part["text"] for part in parts),
        tokens=tokens,
        logprobs=logprobs,
        confidence=confidence(logprobs),
        seconds=Seconds(
            last["prompt_seconds"], last["generation_seconds"], time.perf_counter() - start
        ),
        prompt_tokens=last["prompt_tokens"],
        completion_tokens=len(tokens),
        reused_tokens=last["reused_tokens"],
        passes=last["passes"],
    )
