"""Suite `states`: what is said to a home, and what must be different afterwards and nothing else.

What: rows of a user's file, their homes, a player of turns, a pure comparison of before and after.
In: JSON lines (docs/eval.md has the format); anything that understands a sentence.
Out: the object that `tumen eval --suite states` prints, and its table.
Never: a look at what the assistant understood; only the home and the reply are judged.
Read next: state_rows.py, then expectation.py, turn_player.py and states_suite.py.
"""

from tumen.eval.states.expectation import Expected, Group, expectation_fault
from tumen.eval.states.happened import Happened, TimerFacts
from tumen.eval.states.state_rows import BrokenRow, StateRow, StateTurn, read_state_rows
from tumen.eval.states.states_suite import SUITE, evaluate_states, states_lines
from tumen.eval.states.turn_player import START, TurnResult, play_row
from tumen.eval.states.understandings import BOTH, MATCHER, MODEL, UNDERSTANDINGS, understanding_of

__all__ = [
    "BOTH",
    "MATCHER",
    "MODEL",
    "START",
    "SUITE",
    "UNDERSTANDINGS",
    "BrokenRow",
    "Expected",
    "Group",
    "Happened",
    "StateRow",
    "StateTurn",
    "TimerFacts",
    "TurnResult",
    "evaluate_states",
    "expectation_fault",
    "play_row",
    "read_state_rows",
    "states_lines",
    "understanding_of",
]
