"""Wording: what the words alone say, whatever a model heard: how much, how it is, which kind."""

from tumen.assistant.wording.amounts import amount_spans, with_amount
from tumen.assistant.wording.said_kinds import with_said_kind
from tumen.assistant.wording.tables import asks
from tumen.assistant.wording.wishes import wish_spans, with_wish

__all__ = ["amount_spans", "asks", "wish_spans", "with_amount", "with_said_kind", "with_wish"]
