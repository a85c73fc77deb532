"""The device runner over its child: answers, deaths, and what it refuses."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.bundles import vocabulary

from tumen.core import artifact
from tumen.core.errors import ArtifactError, InputError, RunnerError
from tumen.core.events import Events
from tumen.language.action import CLOSED, DO, normalise, parse, tidy
from tumen.language.ontology import Ontology
from tumen.serve.runners import Completion, DeviceRunner, load_runner, process, read_bundle_info
from tumen.serve.runners.device_runner import _written
from tumen.serve.runners.runner import Tidier, confidence

SENTENCES = [
    "Turn on the kitchen light!",
    "打开厨房的灯",
    "mach das Licht in der Küche an",
    "set the lamp to 80%",
    "🦄 xyz",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_any_sentence_gives_an_action_of_its_own_words(
    shared_runner: DeviceRunner, sentence: str
) -> None:
    done = shared_runner.ask(sentence)
    action = parse(done.text)
    assert done.text == action.json()
    for slot, value in action.slots.items():
        assert value in normalise(sentence) or slot in CLOSED
    assert len(done.tokens) == done.completion_tokens
    assert done.tokens[-1] == 2  # the end token
    assert 0 <= done.confidence <= 1
    assert done.seconds.total >= done.seconds.prompt + done.seconds.generation > 0


def test_the_same_sentence_gives_the_same_answer_by_every_door(shared_runner: DeviceRunner) -> None:
    async def both() -> tuple[Completion, list[str | Completion]]:
        return await shared_runner.act(SENTENCES[0]), [
            piece async for piece in shared_runner.stream(SENTENCES[0])
        ]

    done = shared_runner.ask(SENTENCES[0])
    acted, pieces = asyncio.run(both())
    streamed = pieces.pop()
    assert isinstance(streamed, Completion)
    assert acted.text == streamed.text == "".join(map(str, pieces)) == done.text
    assert acted.tokens == done.tokens
    assert streamed.logprobs == acted.logprobs == done.logprobs
    assert len(pieces) > 1


def test_plain_completion_takes_text_and_token_ids(shared_runner: DeviceRunner) -> None:
    by_text = shared_runner.complete("打" + DO, max_tokens=20)
    spaced = shared_runner.complete([*shared_runner.tokens("打"), 3], max_tokens=20)
    assert by_text.tokens == spaced.tokens
    assert by_text.prompt_tokens == spaced.prompt_tokens
    assert len(by_text.tokens) == by_text.completion_tokens <= 20
    assert shared_runner.complete([1, 5, 3], among=["a"], max_tokens=4).text == "a"
    assert shared_runner.complete([1, 5, 3], max_tokens=4, logprobs=False).logprobs == ()


def test_plain_completion_tells_every_token_of_a_split_character(
    shared_runner: DeviceRunner,
) -> None:
    done = shared_runner.complete(
        [1, 3], among=["鑫鑫"], max_tokens=9
    )  # six bytes, six tokens, and the end
    assert done.text == "鑫鑫"
    assert len(done.tokens) == 7 == done.completion_tokens


def test_a_prefix_is_read_once(shared_runner: DeviceRunner) -> None:
    few_shot = "turn on the light" * 4
    first = shared_runner.complete("kitchen" + DO, prefix=few_shot, max_tokens=5)
    again = shared_runner.complete("kitchen" + DO, prefix=few_shot, max_tokens=5)
    ids = shared_runner.complete(
        shared_runner.tokens("lamp")[1:], prefix=shared_runner.tokens(few_shot), max_tokens=5
    )
    assert first.reused_tokens == 0
    assert again.reused_tokens == ids.reused_tokens == len(shared_runner.tokens(few_shot))
    assert again.prompt_tokens == first.prompt_tokens > again.reused_tokens
    assert again.tokens == first.tokens
    assert shared_runner.complete("kitchen" + DO, max_tokens=5).reused_tokens == 0


def test_an_action_takes_fewer_passes_than_tokens(shared_runner: DeviceRunner) -> None:
    answers = [shared_runner.ask(sentence) for sentence in SENTENCES]
    assert all(0 < done.passes < done.completion_tokens for done in answers)


def test_a_request_that_makes_no_sense_costs_itself_alone(shared_runner: DeviceRunner) -> None:
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


def test_a_draft_changes_the_passes_and_nothing_else(
    bundle: Path, shared_runner: DeviceRunner, tmp_path: Path, make_gguf: Callable[..., Path]
) -> None:
    with load_runner(
        bundle, draft=make_gguf(tmp_path / "draft.gguf")
    ) as runner:  # as wise as the model itself
        for sentence in SENTENCES:
            done, plain = runner.ask(sentence), shared_runner.ask(sentence)
            assert (done.text, done.tokens) == (plain.text, plain.tokens)
            assert done.passes <= plain.passes
    words = make_gguf(tmp_path / "other.gguf", changes={"tokenizer.ggml.tokens": other_pieces()})
    with pytest.raises(RunnerError, match="the draft has another vocabulary"):
        load_runner(bundle, draft=words)


def other_pieces() -> list[str]:
    pieces = [piece for piece, _ in vocabulary()]
    return [*pieces[:-2], pieces[-1], pieces[-2]]


@pytest.mark.parametrize("sentence", ["", " \n", "?!", "turn " * 2000])
def test_sentences_that_are_none_are_refused(shared_runner: DeviceRunner, sentence: str) -> None:
    with pytest.raises(InputError, match=r"empty|characters"):
        shared_runner.ask(sentence)
    with pytest.raises(InputError, match=r"empty|characters"):
        asyncio.run(anext(shared_runner.stream(sentence)))  # type: ignore[arg-type]


def test_a_sentence_of_too_many_tokens_is_the_speakers_fault(shared_runner: DeviceRunner) -> None:
    with pytest.raises(InputError, match=r"takes \d+ tokens, the runner's context is 512"):
        shared_runner.ask("鑫" * 300)
    with pytest.raises(InputError, match=r"takes \d+ tokens"):
        asyncio.run(anext(shared_runner.stream("鑫" * 300)))  # type: ignore[arg-type]


def test_a_stream_left_early_stops_the_model(shared_runner: DeviceRunner) -> None:
    async def leave() -> None:
        async with aclosing(shared_runner.stream(SENTENCES[0])) as pieces:  # type: ignore[type-var]
            await anext(pieces)
        async with asyncio.timeout(5):
            assert (await shared_runner.act(SENTENCES[0])).text

    asyncio.run(leave())


def test_many_at_once_are_all_answered(shared_runner: DeviceRunner) -> None:
    async def crowd() -> list[Completion]:
        return await asyncio.gather(*(shared_runner.act(SENTENCES[n % 5]) for n in range(20)))

    texts = [done.text for done in asyncio.run(crowd())]
    assert texts == [shared_runner.ask(SENTENCES[n % 5]).text for n in range(20)]


def dead(pid: int) -> bool:
    """Whether a process is gone, or waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(check: Callable[[], bool]) -> bool:
    """Wait up to ten seconds."""
    return any(check() or time.sleep(0.02) for _ in range(500))  # type: ignore[func-returns-value]


def test_a_dead_child_is_started_again_and_says_so(bundle: Path) -> None:
    events = Events(None)
    with load_runner(bundle, events=events) as runner:
        before, pid = runner.ask("turn on"), runner.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: dead(pid))
        assert runner.ask("turn on").text == before.text
        assert runner.pid not in (None, pid)
    assert [event["event"] for event in events.seen] == ["bundle_unsigned", "runner restarted"]


async def answer_of(runner: DeviceRunner, stream: bool) -> Completion:
    if not stream:
        return await runner.act("turn on")
    *_, last = [piece async for piece in runner.stream("turn on")]
    assert isinstance(last, Completion)
    return last


@pytest.mark.parametrize("stream", [False, True])
def test_a_child_killed_midway_is_started_again_and_asked_once_more(
    bundle: Path, stream: bool
) -> None:
    events = Events(None)
    with load_runner(bundle, events=events) as runner:
        before, pid = runner.ask("turn on"), runner.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # the request will be under way for certain
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        assert asyncio.run(answer_of(runner, stream)).text == before.text
    assert [event["event"] for event in events.seen] == ["bundle_unsigned", "runner restarted"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_sentence_that_kills_twice_is_given_up(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    start = process.Process.start

    def start_and_die(self: process.Process) -> None:
        start(self)
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)

    with load_runner(bundle) as runner:
        assert runner.pid is not None
        os.kill(runner.pid, signal.SIGKILL)
        with monkeypatch.context() as patch:
            patch.setattr(process.Process, "start", start_and_die)
            with pytest.raises(RunnerError, match=r"died while answering \(SIGKILL\)"):
                asyncio.run(answer_of(runner, stream))
        assert parse(runner.ask("turn on").text)


def test_a_child_that_hangs_is_ended(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load_runner(bundle) as runner:
        assert runner.pid is not None
        os.kill(runner.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(process, "ANSWER_SECONDS", 0.3)
            with pytest.raises(RunnerError, match="no answer in"):
                runner.ask("turn on")
        assert eventually(lambda: runner.pid is None)
        assert parse(runner.ask("turn on").text)


def test_the_child_dies_with_a_parent_that_is_killed(bundle: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from tumen.serve.runners import load_runner
        runner = load_runner(Path({str(bundle)!r}))
        print(runner.pid, runner._process._folder, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid, folder = parent.stdout.readline().split()
    assert not dead(int(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: dead(int(pid)))
    assert eventually(lambda: not Path(folder).exists())


def test_stop_ends_the_child_and_removes_its_socket(bundle: Path) -> None:
    runner = load_runner(bundle)
    pid, folder = runner.pid, runner._process._folder
    assert pid
    assert folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list_ports(pid)
    runner.stop()
    runner.stop()
    assert dead(pid)
    assert not folder.exists()


def test_a_stopped_runner_stays_stopped(bundle: Path) -> None:
    runner = load_runner(bundle)
    runner.stop()
    with pytest.raises(RunnerError, match="is closed"):
        runner.ask("turn on")
    assert runner.pid is None


def test_the_child_gets_no_keys(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMEN_CLOUD_KEY", "s3cret")
    with load_runner(bundle) as runner:
        environment = Path(f"/proc/{runner.pid}/environ").read_bytes()
    assert b"s3cret" not in environment
    assert b"OMP_NUM_THREADS=1" in environment


def test_no_room_for_a_socket_is_one_line(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process.tempfile, "mkdtemp", full)
    with pytest.raises(RunnerError, match="cannot be started: No space left on device"):
        load_runner(bundle)


def list_ports(pid: int) -> list[str]:
    """TCP listeners among a process's open files."""
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [
        row.split()
        for name in ("tcp", "tcp6")
        for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_a_model_llama_cpp_refuses_is_one_line(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    """A header that is plausible, with an epsilon missing that only llama.cpp knows it needs."""
    folder = make_bundle(tmp_path / "b", changes={"llama.attention.layer_norm_rms_epsilon": None})
    with pytest.raises(
        RunnerError, match=r"model.gguf: the runner did not start \(exit code 1\): .*epsilon"
    ) as caught:
        load_runner(folder)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_is_not_what_was_written_is_refused(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle(tmp_path / "b")
    model, whole = folder / "model.gguf", (folder / "model.gguf").read_bytes()
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


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"recipe": 1, "tier": "x"}', '{"recipe": "x"}', "\xff"]
)
def test_a_damaged_bundle_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="damaged|is no JSON") as caught:
        read_bundle_info(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_kind_of_artifact_is_no_bundle(tmp_path: Path) -> None:
    with artifact.writing(tmp_path / "c", "corpus", "x", []) as stage:
        (stage / "a").write_text("a")
    with pytest.raises(ArtifactError, match="is a corpus, a bundle is needed"):
        load_runner(tmp_path / "c")


def test_confidence_is_the_probability_of_the_action() -> None:
    head = ('{"lang":"en"', -5.0)
    rows = [
        head,
        (',"intent":"HassTurnOn"', -0.1),
        (',"name":"', -0.2),
        (" lamp", -0.3),
        ('"', 0.0),
        ("}", 0.0),
        ("", 0.0),
    ]
    assert confidence(rows) == pytest.approx(
        0.5488, abs=1e-4
    )  # exp(-0.6): the language does not count
    assert confidence([head, (',"intent":"none"', float("-inf"))]) == 0.0
    assert confidence([head, (',"intent":"none"', float("nan"))]) == 0.0
    assert confidence([head]) == confidence([]) == 0.0


@pytest.mark.parametrize("cut", range(1, 12))
def test_pieces_are_tidied_as_the_whole_is(cut: int) -> None:
    wire = '{"lang":"en","intent":"HassListAddItem","name":" to do","item":" milk  x"}'
    tidier = Tidier()
    assert "".join(tidier(wire[at : at + cut]) for at in range(0, len(wire), cut)) == tidy(wire)
    assert json.loads(tidy(wire))


def test_all_that_decides_how_an_action_is_written_reaches_the_child() -> None:
    said = Ontology(
        languages=("en",),
        intents={"play": ("song", "artist")},
        spoken=("play",),
        groups={"music": ("play",)},
    )
    told = _written(said)
    assert told.keys() == Ontology.model_fields.keys() - {"groups", "acts"}
    assert told["spoken"] == ("play",)
