"""Use: talk to a home, and serve a bundle over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from tumen.assistant import Reader, Session, Turn, marks_in, templates_first
from tumen.assistant.values import Values
from tumen.cli.options import TRUST, UNGATED
from tumen.core.errors import InputError
from tumen.eval import require_gate
from tumen.home import Home
from tumen.language import HOME, LANGUAGES, Action, Ontology
from tumen.pipeline import cloud_bundle, default_bundle, store_of, trusted_bundle
from tumen.release import flagship
from tumen.serve import build_router
from tumen.serve import serve as run_server

GOODBYES = ("bye", "quit", "exit")


def talk(
    sentence: list[str] = typer.Argument(None, help="A sentence; without it, a conversation."),
    *,
    run: Path = typer.Option(
        None,
        "--run",
        help="A run, a bundle or a slot of `tumen promote`; default: the newest finished run under "
        "runs/, else the bundle that ships with tumen.",
    ),
    home: Path = typer.Option(None, help="The home's TOML; default: the example with 60 devices."),
    save: bool = typer.Option(False, "--save", help="Write the changed home back to --home."),
    private: bool = typer.Option(
        False, "--private", help="Nothing leaves the device, however uncertain its answer is."
    ),
    ungated: bool = UNGATED,
    trust: Path = TRUST,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object for each turn."),
) -> None:
    """Talk to a home; works with the network off.

    Prints what was understood, what changed, which tier answered, and the time of each step.
    """
    # A changed example would surprise the next one who talks to it.
    if save and home is None:
        raise InputError("--save needs --home: the example home is never changed")
    bundle = trusted_bundle(run or _default_bundle(), trust)
    require_gate(bundle, ungated)
    place = Home.load(home)
    ontology = Ontology.load(bundle)
    router = build_router(bundle, cloud_bundle(bundle), store=store_of(bundle, trust))
    sentences = [" ".join(sentence)] if sentence else _typed_lines(place)
    with Reader(router, private) as reader:
        values = Values.load(bundle / "values.json")
        session = Session(place, templates_first(place, reader.of(place)), values)
        for text in sentences:
            turn = session.say(text)
            if as_json:
                print(json.dumps(_turn_facts(turn, ontology), ensure_ascii=False))
            else:
                _print_turn(turn, place, ontology)
            if save and home is not None and turn.changes:
                place.save(home)
            # What was asked for later, such as "in ten minutes", and is due by now.
            for due in session.due():
                _print_turn(due, place, ontology)


def _print_turn(turn: Turn, home: Home, ontology: Ontology) -> None:
    """Print a turn for people; `ontology` is that of the bundle."""
    print("\n".join(turn_lines(turn, home, ontology)))


def _typed_lines(home: Home) -> Iterator[str]:
    """Yield the sentences of a conversation, until the end of input, an empty line or a goodbye."""
    prompt = ""
    if sys.stdin.isatty():
        prompt = "> "
        languages = ", ".join(LANGUAGES)
        print(f"{len(home.entities)} devices. Languages: {languages}. An empty line ends it.")
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except UnicodeDecodeError:  # of a pipe; the next line may be well
            print("this line is not UTF-8 and was skipped")
            continue
        if not line or line.lower() in GOODBYES:
            return
        yield line


def turn_lines(turn: Turn, home: Home, ontology: Ontology) -> Iterator[str]:
    """Yield a turn for people.

    Args:
        turn: what was said and done.
        home: names its devices.
    """
    # Names are shown in the language of the sentence.
    language = turn.action.lang if turn.action else "en"
    yield turn.reply
    # a sentence with several commands has a part for each
    for part in turn.parts or (turn,):
        if part.action is not None:
            yield f"  understood  {_action_text(part.action, ontology)}"
    for change in turn.changes:
        name = home.title(change.id, language)
        yield f"  changed     {name}: {_state(change.before)} -> {_state(change.after)}"
    if turn.tier:
        yield f"  answered by {turn.tier} ({_reason(turn)})"
    if turn.action is not None:
        times = [f"{step} {1000 * seconds:.1f} ms" for step, seconds in turn.seconds.items()]
        yield f"  time        {', '.join(times)}"


def _reason(turn: Turn) -> str:
    """Return why a tier answered, and how confident it is where it says so."""
    if turn.confidence is None:
        return str(turn.why)
    return f"{turn.why}, confidence {turn.confidence:.2f}"


def _state(fields: Mapping[str, Any] | None) -> str:
    """Return the state of a device and those of its attributes that are set."""
    if not fields:
        return "-"
    words = []
    if fields.get("state") not in ("", None):
        words.append(str(fields["state"]))
    for name, value in fields.items():
        if name != "state" and value not in ("", None):
            words.append(f"{name} {value}")
    return " ".join(words)


def _action_text(action: Action, ontology: Ontology) -> str:
    """Return an action as JSON, be it one of a home or one of the bundle's own intents."""
    return action.json(HOME if action.intent in HOME.intents else ontology)


def _turn_facts(turn: Turn, ontology: Ontology) -> dict[str, Any]:
    """Return a turn as JSON can hold it."""
    action = json.loads(_action_text(turn.action, ontology)) if turn.action else None
    return {
        "sentence": turn.sentence,
        "reply": turn.reply,
        "action": action,
        "parts": [_turn_facts(part, ontology) for part in turn.parts],
        "changes": [asdict(change) for change in turn.changes],
        "tier": turn.tier,
        "why": turn.why,
        "confidence": turn.confidence,
        "seconds": dict(turn.seconds),
        "error": turn.error,
    }


def serve(
    bundle: Path = typer.Argument(
        None,
        help="A bundle, a run or a slot of `tumen promote`; default: the newest finished run under "
        "runs/, else the bundle that ships with tumen.",
    ),
    host: str = typer.Option("127.0.0.1", help="Any other than loopback needs a key in TUMEN_KEY."),
    port: int = typer.Option(8765, help="0 takes any free port."),
    ungated: bool = UNGATED,
    trust: Path = TRUST,
) -> None:
    """Serve a bundle over OpenAI's HTTP API, with the cloud tier for uncertain answers.

    Endpoints: /v1/models and /v1/chat/completions.
    """
    folder = trusted_bundle(bundle or _default_bundle(), trust)
    require_gate(folder, ungated)
    cloud = cloud_bundle(folder)
    store = store_of(folder, trust)
    run_server(folder, cloud, host=host, port=port, store=store, ready=_print_url, marks=marks_in)


def _default_bundle() -> Path:
    """Return the bundle that is used where none is named, and say which it is."""
    bundle = default_bundle()
    # not to standard output, which may be read by a program
    print(f"bundle: {flagship.describe(bundle)}", file=sys.stderr)
    return bundle


def _print_url(url: str) -> None:
    """Print where clients reach the server, at once, as scripts wait for this line."""
    print(f"listening on {url}", flush=True)
