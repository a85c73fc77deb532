"""The device runner: its answers, a child that dies, and bundles and requests that are rejected."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.bundles import vocabulary
from tests.serve.client import eventually
from tests.serve.runners.test_child_process import is_dead

from tumen.core import artifact
from tumen.core.errors import ArtifactError, InputError, RunnerError
from tumen.core.events import Events
from tumen.language.action import CLOSED, DO, normalise, parse
from tumen.language.ontology import Ontology
from tumen.serve.runners import ChildProcess, Completion, DeviceRunner, load_runner
from tumen.serve.runners.device_runner import ontology_for_child

SENTENCES = [
    "Turn on the kitchen light!",
    "打开厨房的灯",
    "mach das Licht in der Küche an",
    "set the lamp to 80%",
    "🦄 xyz",
]


class TestAnswers:
    @pytest.mark.parametrize("sentence", SENTENCES)
    def test_any_sentence_gives_an_action_in_its_own_words(
        self, shared_runner: DeviceRunner, sentence: str
    ) -> None:
        completion = shared_runner.ask(sentence)
        action = parse(completion.text)
        assert completion.text == action.json()
        for slot, value in action.slots.items():
            assert value in normalise(sentence) or slot in CLOSED
        assert len(completion.tokens) == completion.completion_tokens
        assert completion.tokens[-1] == 2  # the end token
        assert 0 <= completion.confidence <= 1
        seconds = completion.seconds
        assert seconds.total >= seconds.prompt + seconds.generation > 0

    def test_ask_act_and_stream_give_the_same_answer(self, shared_runner: DeviceRunner) -> None:
        async def both() -> tuple[Completion, list[str | Completion]]:
            acted = await shared_runner.act(SENTENCES[0])
            return acted, [piece async for piece in shared_runner.stream(SENTENCES[0])]

        asked = shared_runner.ask(SENTENCES[0])
        acted, pieces = asyncio.run(both())
        streamed = pieces.pop()
        assert isinstance(streamed, Completion)
        assert acted.text == streamed.text == "".join(map(str, pieces)) == asked.text
        assert acted.tokens == streamed.tokens == asked.tokens
        assert acted.logprobs == streamed.logprobs == asked.logprobs
        assert len(pieces) > 1

    def test_an_action_takes_fewer_passes_than_tokens(self, shared_runner: DeviceRunner) -> None:
        for sentence in SENTENCES:
            completion = shared_runner.ask(sentence)
            assert 0 < completion.passes < completion.completion_tokens

    def test_many_requests_at_once_are_all_answered(self, shared_runner: DeviceRunner) -> None:
        sentences = [SENTENCES[number % 5] for number in range(20)]

        async def all_at_once() -> list[Completion]:
            return await asyncio.gather(*map(shared_runner.act, sentences))

        texts = [completion.text for completion in asyncio.run(all_at_once())]
        assert texts == [shared_runner.ask(sentence).text for sentence in sentences]

    def test_a_stream_closed_early_frees_the_model(self, shared_runner: DeviceRunner) -> None:
        async def leave() -> None:
            async with aclosing(shared_runner.stream(SENTENCES[0])) as pieces:  # type: ignore[type-var]
                await anext(pieces)
            async with asyncio.timeout(5):
                assert (await shared_runner.act(SENTENCES[0])).text

        asyncio.run(leave())


class TestPlainCompletion:
    def test_a_prompt_may_be_text_or_token_ids(self, shared_runner: DeviceRunner) -> None:
        by_text = shared_runner.complete("打" + DO, max_tokens=20)
        by_ids = shared_runner.complete([*shared_runner.tokenize("打"), 3], max_tokens=20)
        assert by_text.tokens == by_ids.tokens
        assert by_text.prompt_tokens == by_ids.prompt_tokens
        assert len(by_text.tokens) == by_text.completion_tokens <= 20

    def test_choices_limit_what_is_written(self, shared_runner: DeviceRunner) -> None:
        assert shared_runner.complete([1, 5, 3], choices=["a"], max_tokens=4).text == "a"

    def test_log_probabilities_can_be_left_out(self, shared_runner: DeviceRunner) -> None:
        with_them = shared_runner.complete([1, 5, 3], max_tokens=4)
        assert len(with_them.logprobs) == len(with_them.tokens)
        assert shared_runner.complete([1, 5, 3], max_tokens=4, logprobs=False).logprobs == ()

    def test_every_token_of_a_split_character_is_reported(
        self, shared_runner: DeviceRunner
    ) -> None:
        completion = shared_runner.complete([1, 3], choices=["鑫鑫"], max_tokens=9)
        assert completion.text == "鑫鑫"
        # six bytes, six tokens, and the end
        assert len(completion.tokens) == 7 == completion.completion_tokens

    def test_a_prefix_is_read_once(self, shared_runner: DeviceRunner) -> None:
        examples = "turn on the light" * 4
        first = shared_runner.complete("kitchen" + DO, prefix=examples, max_tokens=5)
        again = shared_runner.complete("kitchen" + DO, prefix=examples, max_tokens=5)
        ids = shared_runner.tokenize(examples)
        by_ids = shared_runner.complete(
            shared_runner.tokenize("lamp")[1:], prefix=ids, max_tokens=5
        )
        assert first.reused_tokens == 0
        assert again.reused_tokens == by_ids.reused_tokens == len(ids)
        assert again.prompt_tokens == first.prompt_tokens > again.reused_tokens
        assert again.tokens == first.tokens
        assert shared_runner.complete("kitchen" + DO, max_tokens=5).reused_tokens == 0


class TestRejectedRequests:
    def test_a_malformed_request_does_not_end_the_child(self, shared_runner: DeviceRunner) -> None:
        pid = shared_runner.pid
        for request in (
            {},
            {"prompt": 7},
            {"prompt": [10**12]},
            {"prompt": "a", "units": 3},
            {"text": None},
            {"prompt": [-1]},
        ):
            with pytest.raises(RunnerError, match="malformed request|cannot decode"):
                list(shared_runner._parts(request, []))
        with pytest.raises(InputError, match="the prompt is empty"):
            shared_runner.complete([])
        assert shared_runner.ask("turn on").text
        assert shared_runner.pid == pid

    @pytest.mark.parametrize("sentence", ["", " \n", "?!", "turn " * 2000])
    def test_an_empty_or_long_sentence_is_an_input_error(
        self, shared_runner: DeviceRunner, sentence: str
    ) -> None:
        with pytest.raises(InputError, match=r"empty|characters"):
            shared_runner.ask(sentence)
        with pytest.raises(InputError, match=r"empty|characters"):
            asyncio.run(anext(shared_runner.stream(sentence)))  # type: ignore[arg-type]

    def test_a_sentence_of_too_many_tokens_is_an_input_error(
        self, shared_runner: DeviceRunner
    ) -> None:
        message = r"takes \d+ tokens, but the runner's context has 512"
        with pytest.raises(InputError, match=message):
            shared_runner.ask("鑫" * 300)
        with pytest.raises(InputError, match=message):
            asyncio.run(anext(shared_runner.stream("鑫" * 300)))  # type: ignore[arg-type]

    def test_an_adapter_that_is_missing_is_an_input_error(
        self, shared_runner: DeviceRunner
    ) -> None:
        with pytest.raises(InputError, match="has no adapter 'music'; it has none"):
            shared_runner.ask("turn on", adapter="music")


async def answer_of(runner: DeviceRunner, stream: bool) -> Completion:
    if not stream:
        return await runner.act("turn on")
    *_, last = [piece async for piece in runner.stream("turn on")]
    assert isinstance(last, Completion)
    return last


class TestDeadChild:
    def test_a_dead_child_is_restarted_and_an_event_records_it(self, bundle: Path) -> None:
        events = Events(None)
        with load_runner(bundle, events=events) as runner:
            before, pid = runner.ask("turn on"), runner.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda: is_dead(pid))
            assert runner.ask("turn on").text == before.text
            assert runner.pid not in (None, pid)
        assert [event["event"] for event in events.seen] == ["bundle_unsigned", "runner restarted"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_request_whose_child_is_killed_is_sent_once_more(
        self, bundle: Path, stream: bool
    ) -> None:
        events = Events(None)
        with load_runner(bundle, events=events) as runner:
            before, pid = runner.ask("turn on"), runner.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)  # so that the request is certainly under way
            threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
            assert asyncio.run(answer_of(runner, stream)).text == before.text
        assert [event["event"] for event in events.seen] == ["bundle_unsigned", "runner restarted"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_request_that_kills_the_child_twice_is_an_error(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
    ) -> None:
        start = ChildProcess.start

        def start_and_die(self: ChildProcess) -> None:
            start(self)
            assert self.pid is not None
            os.kill(self.pid, signal.SIGKILL)

        with load_runner(bundle) as runner:
            assert runner.pid is not None
            os.kill(runner.pid, signal.SIGKILL)
            with monkeypatch.context() as patch:
                patch.setattr(ChildProcess, "start", start_and_die)
                with pytest.raises(RunnerError, match=r"died while answering \(SIGKILL\)"):
                    asyncio.run(answer_of(runner, stream))
            assert parse(runner.ask("turn on").text)


class TestBundles:
    def test_a_damaged_bundle_is_rejected(
        self, tmp_path: Path, make_bundle: Callable[..., Path]
    ) -> None:
        folder = make_bundle(tmp_path / "b")
        model = folder / "model.gguf"
        whole = model.read_bytes()
        model.write_bytes(whole[:-100])
        with pytest.raises(ArtifactError, match=r"bytes, the manifest says"):
            load_runner(folder)
        model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ArtifactError, match="SHA-256 differs"):
            load_runner(folder)
        model.unlink()
        with pytest.raises(ArtifactError, match="missing"):
            load_runner(folder)
        with pytest.raises(ArtifactError, match="no such artifact"):
            load_runner(tmp_path / "nowhere")

    def test_another_kind_of_artifact_is_not_a_bundle(self, tmp_path: Path) -> None:
        with artifact.writing(tmp_path / "c", "corpus", "x", []) as stage:
            (stage / "a").write_text("a")
        with pytest.raises(ArtifactError, match="is a corpus, a bundle is needed"):
            load_runner(tmp_path / "c")

    def test_a_draft_changes_the_passes_and_nothing_else(
        self,
        bundle: Path,
        shared_runner: DeviceRunner,
        tmp_path: Path,
        make_gguf: Callable[..., Path],
    ) -> None:
        draft = make_gguf(tmp_path / "draft.gguf")  # the same weights as the model
        with load_runner(bundle, draft=draft) as runner:
            for sentence in SENTENCES:
                drafted, plain = runner.ask(sentence), shared_runner.ask(sentence)
                assert (drafted.text, drafted.tokens) == (plain.text, plain.tokens)
                assert drafted.passes <= plain.passes

    def test_a_draft_with_another_vocabulary_is_rejected(
        self, bundle: Path, tmp_path: Path, make_gguf: Callable[..., Path]
    ) -> None:
        *pieces, second_to_last, last = [piece for piece, _ in vocabulary()]
        changes = {"tokenizer.ggml.tokens": [*pieces, last, second_to_last]}
        draft = make_gguf(tmp_path / "other.gguf", changes=changes)
        with pytest.raises(RunnerError, match="the draft has another vocabulary"):
            load_runner(bundle, draft=draft)

    def test_speculation_changes_nothing_but_the_passes(
        self, bundle: Path, shared_runner: DeviceRunner
    ) -> None:
        with load_runner(bundle, speculate=True) as runner:
            for sentence in [*SENTENCES, *SENTENCES]:
                assert runner.ask(sentence).tokens == shared_runner.ask(sentence).tokens

    def test_the_child_gets_everything_that_decides_how_an_action_is_written(self) -> None:
        ontology = Ontology(
            languages=("en",),
            intents={"play": ("song", "artist")},
            spoken=("play",),
            groups={"music": ("play",)},
        )
        sent = ontology_for_child(ontology)
        assert sent.keys() == Ontology.model_fields.keys() - {"groups", "acts"}
        assert sent["spoken"] == ("play",)
