"""Facts about accelerators and software, with sources.

What: the card table, and the facts and measured factors of framework releases.
In: `cards.toml`, `software.toml`, `physics.toml`; a fleet such as `h800:10000`; a calibration
    profile.
Out: `Accelerator`, `FleetGroup`, `Software`.
Never: a figure without a source.
Read next: card_table.py, then software.py.
"""

from tumen.plan.facts.card_table import Accelerator, FleetGroup, card_of, cards, fleet_of, one_kind
from tumen.plan.facts.software import Software, software

__all__ = [
    "Accelerator",
    "FleetGroup",
    "Software",
    "card_of",
    "cards",
    "fleet_of",
    "one_kind",
    "software",
]
