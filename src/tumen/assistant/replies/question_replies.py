"""Question replies: what is asked back, and why something was refused."""

from __future__ import annotations

from typing import Any

from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.resolution import Question, Refusal


def reply_with_question(phrasing: Phrasing, question: Question) -> str:
    """Return a question with its first options."""
    if question.reason == "which":
        return phrasing.reply("which", options=phrasing.listed(question.shown, "or"))
    return phrasing.reply(question.reason)


def reply_to_refusal(phrasing: Phrasing, refusal: Refusal) -> str:
    """Return why nothing was done."""
    parts: dict[str, Any] = dict(refusal.about)
    key = refusal.reason
    if key == "absent":
        if not parts.get("words"):
            parts["words"] = phrasing.noun(str(parts.get("kind", "")), 1)
        if "place" in parts:
            key = "absent_place"
    if key == "mode" and not parts.get("modes"):
        key = "mode_none"
    if "slot" in parts:
        parts["slot"] = phrasing.word(parts["slot"])
    if "entity" in parts:
        parts["entity"] = phrasing.title(str(parts["entity"]))
    if "place" in parts:
        parts["place"] = phrasing.place(str(parts["place"]))
    if "seconds" in parts:
        parts["time"] = phrasing.time(float(parts["seconds"]))
    return phrasing.reply(key, **parts)
