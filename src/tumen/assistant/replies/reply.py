"""Reply: one short answer in the speaker's language, from what really happened to the home."""

from __future__ import annotations

from tumen.assistant.acts import Outcome
from tumen.assistant.replies.act_replies import reply_to_act
from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.replies.query_replies import reply_to_query
from tumen.assistant.replies.question_replies import reply_to_refusal, reply_with_question
from tumen.assistant.resolution import Question, Refusal
from tumen.home import Home, Timer


def reply(result: Outcome | Question | Refusal, home: Home) -> str:
    """Return the reply to an outcome, a question or a refusal; it is never empty.

    Args:
        result: what was done, is missing, or stands against it.
        home: the home after it.
    """
    if isinstance(result, Question):
        return reply_with_question(Phrasing(home, result.lang), result)
    if isinstance(result, Refusal):
        return reply_to_refusal(Phrasing(home, result.lang), result)
    phrasing = Phrasing(home, result.resolved.lang)
    # it was resolved, but the device does not do it
    if result.refusal:
        return reply_to_refusal(phrasing, result.refusal)
    if result.answer:
        return reply_to_query(phrasing, result.resolved, result.answer)
    return reply_to_act(phrasing, result)


def reply_undone(outcome: Outcome, home: Home) -> str:
    """Return the reply to an undo: every thing that is as it was, and how that is.

    Args:
        outcome: the undo.
        home: the home after it.
    """
    if outcome.refusal:
        return reply(outcome.refusal, home)
    phrasing = Phrasing(home, outcome.resolved.lang)
    texts = []
    for change in outcome.changes:
        # timers are not entities; a cancelled one is called by what it was
        if change.id not in home.entities:
            texts.append(phrasing.timer(change.id, change.after or change.before or {}))
            continue
        title = phrasing.title(change.id)
        fields = phrasing.changed_fields(change)
        texts.append(f"{title} ({fields})" if fields else title)
    return phrasing.reply("undone", names=phrasing.shortened(texts))


def reply_finished(timer: Timer, home: Home, lang: str) -> str:
    """Return what is said when a timer has run out.

    Args:
        timer: it is not in the home any more.
        home: the home.
        lang: the language that was spoken last.
    """
    phrasing = Phrasing(home, lang)
    return phrasing.reply("timer_done", names=phrasing.timer(timer.id, timer.fields()))
