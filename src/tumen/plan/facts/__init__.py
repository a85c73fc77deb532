"""Facts with sources: accelerators and software releases."""

from tumen.plan.facts.card import card_of, cards, fleet_of

__all__ = ["card_of", "cards", "fleet_of"]
