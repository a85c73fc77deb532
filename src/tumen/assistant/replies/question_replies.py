"""Question replies: what is asked back, and why something was refused."""

from __future__ import annotations

from typing import Any

from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.resolution import Question, Refusal


def reply_with_question(phrasing: Phrasing, question: Question) -> str:
    """Return a question with its first options.

    Args:
        phrasing: the words of the reply.
        question: what is missing.
    """
    if question.reason == "which":
        options = phrasing.listed(question.shown, "or")
        return phrasing.reply("which", options=options)
    return phrasing.reply(question.reason, **question.about)


def reply_to_refusal(phrasing: Phrasing, refusal: Refusal) -> str:
    """Return why nothing was done.

    Args:
        phrasing: the words of the reply.
        refusal: the reason, and what it is about.
    """
    parts = _parts(phrasing, refusal)
    return phrasing.reply(_key(refusal), **parts)


def _key(refusal: Refusal) -> str:
    """Return the key of the reply; some reasons have two, by what is known."""
    if refusal.reason == "absent" and "place" in refusal.about:
        return "absent_place"
    if refusal.reason == "mode" and not refusal.about.get("modes"):
        return "mode_none"
    return refusal.reason


def _parts(phrasing: Phrasing, refusal: Refusal) -> dict[str, Any]:
    """Return what a refusal is about, in words."""
    parts: dict[str, Any] = dict(refusal.about)
    if refusal.reason == "absent" and not parts.get("words"):
        # without a name: `there is no fan here`
        kind = str(parts.get("kind", ""))
        parts["words"] = phrasing.noun(kind, 1)
    if "wish" in parts:
        parts["wish"] = phrasing.word(parts["wish"])
    if "slot" in parts:
        parts["slot"] = phrasing.word(parts["slot"])
    if "entity" in parts:
        parts["entity"] = phrasing.title(str(parts["entity"]))
    if "place" in parts:
        parts["place"] = phrasing.place(str(parts["place"]))
    if "seconds" in parts:
        parts["time"] = phrasing.time(float(parts["seconds"]))
    return parts
