"""Promotion: a bundle becomes live in a slot only if it passes its gate and is not worse.

Checked in this order: the trust store; the version (an older one is a replay); the gate (suite
thresholds, export check); then the live bundle's scorecard on the same suite: overall, in each
language and in each scenario class. Every decision is written to the slot's history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError, GateError, TumenError
from tumen.core.lock import alone
from tumen.eval.gate import OVERALL_GROUPS, gate_fault
from tumen.eval.scorecard_reader import agreement_of, gate_of, read_scorecard
from tumen.eval.statistics import paired_difference
from tumen.recipe import Gate
from tumen.release import signing, slot

LOCKED = "this slot"
ROUNDING = 1e-9  # shares in a scorecard are rounded; equality counts as allowed


def promote(
    bundle: Path, folder: Path, store: Path | None = None, keep: int = 3, new_suite: bool = False
) -> Path:
    """Make a bundle live in a slot, or raise and keep what is live.

    Args:
        bundle: folder of the bundle.
        folder: of the slot.
        store: the trust store; default: TUMEN_TRUST, see release/signing.py.
        keep: how many earlier bundles stay for a rollback.
        new_suite: the suite changed since the live bundle was evaluated, so only the thresholds of
            the gate decide.

    Returns:
        The bundle's copy in the slot.

    Raises:
        ArtifactError: it is damaged, or the trust store refuses it.
        GateError: it misses a threshold, is an older version, or is worse than the live bundle by
            more than its recipe allows.
        RunnerBusy: another process changes the slot.
        DiskError: the disk is full; the live bundle stays.
    """
    with alone(folder, LOCKED):
        events = slot.history(folder)
        try:
            signature = signing.check_trust(bundle, store, events) or signing.read_signature(bundle)
            facts: dict[str, Any] = {
                "bundle": str(bundle),
                "digest": verify(bundle, "bundle").digest,
            }
            if signature:
                facts |= {"version": signature.version, "key": signature.key}
            _require_promotable(bundle, folder, signature, new_suite)
        except TumenError as error:
            events.emit("promotion", state="refused", bundle=str(bundle), why=str(error))
            raise
        events.emit("promotion", state="started", new_suite=new_suite, **facts)
        target = slot.activate(folder, bundle, keep)
        events.emit("promotion", state="done", live=target.name, **facts)
        return target


def rollback(folder: Path, store: Path | None = None) -> Path:
    """Make the bundle live that was live before.

    Args:
        folder: of the slot.
        store: the trust store; default: TUMEN_TRUST.

    Returns:
        The bundle that is live now.

    Raises:
        InputError: there is no earlier bundle.
        ArtifactError: it is damaged or no longer trusted; what is live stays.
        RunnerBusy: another process changes the slot.
    """
    with alone(folder, LOCKED):
        events = slot.history(folder)
        left = slot.read_live(folder).live
        before = slot.previous_bundle(folder)
        signing.check_trust(before, store, events)
        verify(before, "bundle")
        events.emit("rollback", state="started", left=left, live=before.name)
        target = slot.roll_back(folder)
        events.emit("rollback", state="done", left=left, live=target.name)
        return target


def _require_promotable(
    bundle: Path, folder: Path, signature: signing.Signature | None, new_suite: bool
) -> None:
    """Check a bundle against its gate and against what is live.

    Raises:
        GateError: it must not become live.
    """
    gate = gate_of(bundle)
    fault = gate_fault(bundle)
    if not fault and gate.agreement and not _is_export_checked(bundle):
        fault = "its export was not checked against torch, and the recipe sets a floor"
    if fault:
        raise GateError(f"{bundle} is not promoted: {fault}")
    if not slot.is_slot(folder):
        return
    live = slot.live_bundle(folder)
    _refuse_replay(bundle, signature, live)
    if not new_suite:
        _refuse_worse(bundle, live, gate)


def _is_export_checked(bundle: Path) -> bool:
    return agreement_of(manifest_of(bundle, "bundle"), bundle) is not None


def _refuse_replay(bundle: Path, signature: signing.Signature | None, live: Path) -> None:
    """Refuse an unsigned bundle after a signed one, and an older version; a rollback goes back."""
    before = signing.read_signature(live)
    if before is None:
        return
    if signature is None:
        raise GateError(
            f"{bundle} is not promoted: it is not signed, the live bundle is; "
            "sign it with `tumen sign`"
        )
    if signature.version < before.version:
        raise GateError(
            f"{bundle} is not promoted: it is version {signature.version}, live is "
            f"{before.version}; `tumen rollback` goes back"
        )


def _refuse_worse(bundle: Path, live: Path, gate: Gate) -> None:
    try:
        verify(live, "bundle")
        verify(live / signing.SCORECARD, "scorecard")
        before = read_scorecard(live)
    except ArtifactError as error:
        raise GateError(
            f"{bundle} is not promoted: it cannot be compared with the live bundle ({error})"
        ) from None
    card = read_scorecard(bundle)
    if not card["suite"] or card["suite"] != before["suite"]:
        raise GateError(
            f"{bundle} is not promoted: it and the live bundle were evaluated on different suites; "
            "evaluate both on one, or let the gate alone decide with --new-suite"
        )
    faults = "; ".join(regressions(card, before, gate))
    if faults:
        raise GateError(f"{bundle} is not promoted: worse than the live bundle: {faults}")


def regressions(card: Mapping[str, Any], live: Mapping[str, Any], gate: Gate) -> Iterator[str]:
    """Yield where a scorecard is worse than a live one by more than the gate allows.

    Args:
        card: of the new bundle.
        live: of the live bundle, on the same suite.
        gate: of the new bundle's recipe.

    Yields:
        One line for each group, for false acts and for invented words.
    """
    new = card["columns"]["device"]
    old = live["columns"]["device"]
    for name in sorted(old, key=_overall_first):
        overall = name in OVERALL_GROUPS
        allowed = gate.worse_than_live if overall else gate.worse_in_class
        if old[name]["n"]:
            yield from _group_regression(name, new.get(name), old[name], allowed)
    yield from _safety_regressions(new["all"], old["all"], gate)


def _overall_first(name: str) -> tuple[bool, str]:
    return name not in OVERALL_GROUPS, name


def _group_regression(
    name: str, new: Mapping[str, Any] | None, old: Mapping[str, Any], allowed: float
) -> Iterator[str]:
    if new is None or new["n"] != old["n"]:
        yield f"{name}: evaluated on other cases"
    elif old["exact"] - new["exact"] > allowed + ROUNDING:
        yield (
            f"{name}: exact {new['exact']:.1%} after {old['exact']:.1%}{_interval(new, old)}, "
            f"{allowed:.1%} is allowed"
        )


def _safety_regressions(
    new: Mapping[str, Any], old: Mapping[str, Any], gate: Gate
) -> Iterator[str]:
    now = new["false_acts"] or 0
    then = old["false_acts"] or 0
    if now - then > gate.worse_than_live + ROUNDING:
        yield (f"false acts: {now:.1%} after {then:.1%}, {gate.worse_than_live:.1%} is allowed")
    if new["invented"] > max(old["invented"], gate.invented):
        yield f"invented words: {new['invented']} after {old['invented']}"


def _interval(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Return the interval of the difference, where both rows have marks to pair."""
    if not new["marks"] or len(new["marks"]) != len(old["marks"]):
        return ""
    _, low, high = paired_difference(new["marks"], old["marks"])
    if low is None or high is None:
        return ""
    return f" (difference {low:+.1%} to {high:+.1%})"
