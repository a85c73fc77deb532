"""Promotion: a bundle becomes live in a place only if it may be shown and is not worse than the one that is live there.

Asked in this order: the trust store, the version (an older one is a replay), the gate (exam floors, export check), then the live
one on the same exam, in all, in each language and in each scenario class. Every answer stands in the place's history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError, GateError, TumenError
from tumen.core.lock import alone
from tumen.eval.paired import gap
from tumen.eval.scorecard import TOGETHER, gate
from tumen.eval.scorecard_reader import agreement_of, gate_of, read_card
from tumen.recipe import Gate
from tumen.release import signing, slot

ON = "this place"


def promote(
    bundle: Path, folder: Path, store: Path | None = None, keep: int = 3, new_exam: bool = False
) -> Path:
    """Make a bundle live in a place, or leave there what is live.

    Args:
        store: the trust store; default: TUMEN_TRUST, see release/signing.py.
        keep: how many of those before stay for a rollback.
        new_exam: the exam has changed since the live one was examined: the floors alone judge.

    Returns:
        the bundle as it stands in the place.

    Raises:
        ArtifactError: it is not let in, or damaged.
        GateError: below a floor, an older version, or worse than the live one by more than its recipe allows.
        RunnerBusy: another process changes the place.
        DiskError: no room; the live one stays.
    """
    with alone(folder, ON):
        events = slot.history(folder)
        try:
            signature = signing.check_trust(bundle, store, events) or signing.read_signature(bundle)
            facts: dict[str, Any] = {
                "bundle": str(bundle),
                "digest": verify(bundle, "bundle").digest,
            }
            facts |= {"version": signature.version, "key": signature.key} if signature else {}
            _insist(bundle, folder, signature, new_exam)
        except TumenError as error:
            events.emit("promotion", state="refused", bundle=str(bundle), why=str(error))
            raise
        events.emit("promotion", state="started", new_exam=new_exam, **facts)
        target = slot.activate(folder, bundle, keep)
        events.emit("promotion", state="done", live=target.name, **facts)
        return target


def rollback(folder: Path, store: Path | None = None) -> Path:
    """Make live in a place what was live before. Returns it.

    Raises:
        InputError: there is nothing to go back to.
        ArtifactError: it is damaged, or the trust store does not let it in any more; what is live stays.
        RunnerBusy: another process changes the place.
    """
    with alone(folder, ON):
        events, now, before = (
            slot.history(folder),
            slot.read_live(folder),
            slot.previous_bundle(folder),
        )
        signing.check_trust(before, store, events)
        verify(before, "bundle")
        events.emit("rollback", state="started", left=now.live, live=before.name)
        target = slot.roll_back(folder)
        events.emit("rollback", state="done", left=now.live, live=target.name)
        return target


def _insist(
    bundle: Path, folder: Path, signature: signing.Signature | None, new_exam: bool
) -> None:
    """Refuse what must not become live."""
    floors, made = gate_of(bundle), manifest_of(bundle, "bundle")
    why = gate(bundle)
    if not why and floors.agreement and agreement_of(made, bundle) is None:
        why = "its export was not checked against torch, and the recipe sets a floor"
    if why:
        raise GateError(f"{bundle} is not promoted: {why}")
    if not slot.is_slot(folder):
        return
    live = slot.live_bundle(folder)
    _refuse_replay(bundle, signature, live)
    if not new_exam:
        _refuse_worse(bundle, live, floors)


def _refuse_replay(bundle: Path, signature: signing.Signature | None, live: Path) -> None:
    """Who signs once signs always, and versions grow; the way back is a rollback."""
    before = signing.read_signature(live)
    if before is None:
        return
    if signature is None:
        raise GateError(
            f"{bundle} is not promoted: it is not signed, what is live is; `tumen sign` signs it"
        )
    if signature.version < before.version:
        raise GateError(
            f"{bundle} is not promoted: it is version {signature.version}, live is {before.version}; `tumen rollback` goes back"
        )


def _refuse_worse(bundle: Path, live: Path, floors: Gate) -> None:
    try:
        verify(live, "bundle")
        verify(live / signing.SCORECARD, "scorecard")
        before = read_card(live)
    except ArtifactError as error:
        raise GateError(
            f"{bundle} is not promoted: what is live cannot be compared with ({error})"
        ) from None
    card = read_card(bundle)
    if not card["exam"] or card["exam"] != before["exam"]:
        raise GateError(
            f"{bundle} is not promoted: it and what is live were examined by different exams, so nobody can say whether it is "
            "worse; examine both by one, or let the floors alone judge with --new-exam"
        )
    if why := "; ".join(worse(card, before, floors)):
        raise GateError(f"{bundle} is not promoted: worse than what is live: {why}")


def worse(card: Mapping[str, Any], live: Mapping[str, Any], floors: Gate) -> Iterator[str]:
    """In what a scorecard is worse than a live one of the same exam by more than the recipe allows, one line each."""
    new, old = card["columns"]["device"], live["columns"]["device"]
    for name in sorted(old, key=lambda name: (name not in TOGETHER, name)):
        allowed = floors.worse_than_live if name in TOGETHER else floors.worse_in_class
        if old[name]["n"] and (name not in new or new[name]["n"] != old[name]["n"]):
            yield f"{name}: examined by other cases"
        elif old[name]["n"] and old[name]["exact"] - new[name]["exact"] > allowed + 1e-9:
            shares = f"exact {new[name]['exact']:.1%} after {old[name]['exact']:.1%}{_sure(new[name], old[name])}"
            yield f"{name}: {shares}, {allowed:.1%} is allowed"
    now, then = new["all"], old["all"]
    if (now["false_acts"] or 0) - (then["false_acts"] or 0) > floors.worse_than_live + 1e-9:
        yield f"false acts: {now['false_acts']:.1%} after {then['false_acts'] or 0:.1%}, {floors.worse_than_live:.1%} is allowed"
    if now["invented"] > max(then["invented"], floors.invented):
        yield f"invented words: {now['invented']} after {then['invented']}"


def _sure(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """The interval of the difference, in pairs where the marks are there."""
    if not new["marks"] or len(new["marks"]) != len(old["marks"]):
        return ""
    _, low, high = gap(new["marks"], old["marks"])
    return (
        f" (difference {low:+.1%} to {high:+.1%})" if low is not None and high is not None else ""
    )
