"""`tumen talk`: say something to a home. Works with the network off."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tumen.cli.options import TRUST
from tumen.core.errors import InputError
from tumen.pipeline.folder import admitted, cloud_bundle, newest_run

if TYPE_CHECKING:
    from tumen.assistant import Turn
    from tumen.home import Home


def talk(
    sentence: list[str] = typer.Argument(None, help="What to say; without it, a conversation."),
    run: Path = typer.Option(
        None,
        "--run",
        help="A run, a bundle or a place of `tumen promote`; default: the newest under runs/.",
    ),
    home: Path = typer.Option(None, help="The home's TOML; default: the example with 60 devices."),
    save: bool = typer.Option(False, help="Write the changed home back to --home."),
    private: bool = typer.Option(False, help="Nothing leaves the device, however unsure it is."),
    ungated: bool = typer.Option(False, help="Also with a bundle below its floors."),
    trust: Path = TRUST,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a turn."),
) -> None:
    """Say something to a home: prints what was understood, what changed, which tier answered and the time of each stage."""
    from tumen.assistant import Reader, Session
    from tumen.assistant.values import Values
    from tumen.eval import require_gate
    from tumen.home import Home
    from tumen.serve import build_router

    if save and home is None:
        raise InputError("--save needs --home: the example home is not written to")
    bundle = admitted(run or newest_run(), trust)
    require_gate(bundle, ungated)
    place = Home.load(home)
    with Reader(build_router(bundle, cloud_bundle(bundle), store=trust), private) as reader:
        session = Session(place, reader, Values.load(bundle / "values.json"))
        for said in [" ".join(sentence)] if sentence else _lines(place):
            turn = session.say(said)
            print(
                json.dumps(_plain(turn), ensure_ascii=False)
                if as_json
                else "\n".join(tell(turn, place))
            )
            if save and home is not None and turn.changes:
                place.save(home)
            for due in session.due():
                print("\n".join(tell(due, place)))


def _lines(home: Home) -> Iterator[str]:
    """Sentences of a conversation, until the end of input or `bye`."""
    if sys.stdin.isatty():
        print(
            f"{len(home.entities)} devices. Speak English, 中文 or Deutsch; an empty line ends it."
        )
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError:
            print("not UTF-8: that line was not understood")
            continue
        if not line or line.lower() in ("bye", "quit", "exit"):
            return
        yield line


def tell(turn: Turn, home: Home) -> Iterator[str]:
    """A turn for people."""
    yield turn.reply
    if turn.action is not None:
        yield f"  understood  {turn.action.json()}"
    for change in turn.changes:
        name = home.title(change.id, turn.action.lang if turn.action else "en")
        yield f"  changed     {name}: {_state(change.before)} -> {_state(change.after)}"
    if turn.tier:
        sure = f", confidence {turn.confidence:.2f}" if turn.confidence is not None else ""
        yield f"  answered by {turn.tier} ({turn.why}{sure})"
    if turn.action is not None:
        yield "  time        " + ", ".join(
            f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in turn.seconds.items()
        )


def _state(fields: Any) -> str:
    """State and attributes of a device, those that are set."""
    if not fields:
        return "-"
    return " ".join(
        str(value) if name == "state" else f"{name} {value}"
        for name, value in sorted(fields.items(), key=lambda item: item[0] != "state")
        if value not in ("", None)
    )


def _plain(turn: Turn) -> dict[str, Any]:
    return {
        "sentence": turn.sentence,
        "reply": turn.reply,
        "action": json.loads(turn.action.json()) if turn.action else None,
        "changes": [asdict(change) for change in turn.changes],
        "tier": turn.tier,
        "why": turn.why,
        "confidence": turn.confidence,
        "seconds": dict(turn.seconds),
        "error": turn.error,
    }
