"""What a model may write next, token by token: the actions of an ontology, with words of the sentence alone in copied slots.

A place in an action is a `GrammarState`: the tokens that may follow, and the state after each. Where only one may follow, nobody needs to
ask the model. What is allowed is what `core` states as a grammar, in the vocabulary's own cut of every piece: with a tokeniser
of ours a structure piece is one token, with any other it is several, and the alternatives of a place are a trie of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Cut = Callable[[str], Sequence[int]]  # text to tokens, as it stands inside a longer text
# An intent and the first of its slots that may still come; for one whose slots come as in the sentence, a bit for each that has
# come. START and HEAD are before that.
Place = tuple[str, int]
START, HEAD, OVER = ("", 0), ("", 1), ("", 2)
JOINT = ";"


class GrammarState(Protocol):
    """A place in what is being written."""

    @property
    def ids(self) -> NDArray[np.int32] | None:
        """Tokens that may come next, in ascending order: none when all is written, `None` where any may come."""
        ...

    def after(self, token: int) -> GrammarState:
        """The place after one of them."""
        ...


class FreeText:
    """Any text, until an end token."""

    ids = None

    def __init__(self, is_end: Callable[[int], bool]) -> None:
        self._is_end = is_end

    def after(self, token: int) -> GrammarState:
        """Over after an end token, as before after any other."""
        return FINISHED if self._is_end(token) else self


class TokenTrie:
    """Texts as tokens; `goals` says where a text leads that ends here."""

    def __init__(self) -> None:
        self.ways: dict[int, TokenTrie] = {}
        self.goal: Place | CopiedSlot | None = None

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """Tokens that go on from here."""
        return _sorted(self.ways)

    def add(self, tokens: Sequence[int], goal: Place | CopiedSlot | None) -> None:
        """One more text."""
        branch = self
        for token in tokens:
            branch = branch.ways.setdefault(token, TokenTrie())
        branch.goal = goal


class CopiedSlot(NamedTuple):
    """Where a text leads that opens a copied slot: to words of the sentence, and then to a place."""

    slot: str
    place: Place


class ActionGrammar:
    """The actions of an ontology in one vocabulary.

    Args:
        ontology: `languages`, `intents`, `spoken`, `closed` and `several`, as in ontology.json.
        cut: the vocabulary's tokeniser.
        end: the token after a whole action.
    """

    def __init__(self, ontology: Mapping[str, Any], cut: Cut, end: int) -> None:
        self._languages: Sequence[str] = ontology["languages"]
        self._intents: Mapping[str, Sequence[str]] = ontology["intents"]
        self._closed: Mapping[str, Sequence[str]] = ontology["closed"]
        self._spoken = frozenset(ontology.get("spoken", ()))
        self._several = frozenset(ontology.get("several", ()))
        self.cut = cut
        # A tokeniser of ours has every piece as one token. In any other, a quote and what follows it are mostly one token (`","`),
        # and a model that learned from whole texts expects it: there the closing quote of a piece is the beginning of the next.
        self._ours = all(
            len(cut(text)) == 1
            for text in ('"', *(f',"intent":"{intent}"' for intent in self._intents))
        )
        self._tries: dict[Place | CopiedSlot, TokenTrie] = {OVER: TokenTrie()}
        self._tries[OVER].add([end], None)

    def start(self, units: Sequence[str]) -> GrammarState:
        """Before the action of a sentence with these `core.action.units`."""
        return InStructure(self, SentenceTokens(self.cut, units), self.trie(START))

    def trie(self, place: Place) -> TokenTrie:
        """All texts that may come at a place."""
        if place not in self._tries:
            trie = self._tries[place] = TokenTrie()
            for text, goal in self._texts(place):
                trie.add(self.cut(text if self._ours else _shifted(text)), goal)
        return self._tries[place]

    def closing(self, copy: CopiedSlot) -> TokenTrie:
        """What may come at the end of a copied run: the closing quote, or what begins with it; where it may, another run."""
        if copy not in self._tries:
            trie = self._tries[copy] = TokenTrie()
            if self._ours:
                trie.add(self.cut('"'), copy.place)
            else:
                trie.ways.update(self.trie(copy.place).ways)
            if copy.slot in self._several:
                trie.add(self.cut(JOINT), copy)
        return self._tries[copy]

    def _texts(self, place: Place) -> list[tuple[str, Place | CopiedSlot]]:
        """(text, where it leads)."""
        if place == START:
            return [(f'{{"lang":"{lang}"', HEAD) for lang in self._languages]
        if place == HEAD:
            return [(f',"intent":"{intent}"', (intent, 0)) for intent in self._intents]
        found: list[tuple[str, Place | CopiedSlot]] = [("}", OVER)]
        for slot, after in self._onward(*place):
            if slot in self._closed:
                found += [(f',"{slot}":"{value}"', after) for value in self._closed[slot]]
            else:
                found.append((f',"{slot}":"', CopiedSlot(slot, after)))
        return found

    def _onward(self, intent: str, come: int) -> Iterator[tuple[str, Place]]:
        """(slot that may come now, place after it)."""
        for number, slot in enumerate(self._intents[intent]):
            if intent not in self._spoken and number >= come:
                yield slot, (intent, number + 1)
            elif intent in self._spoken and not come >> number & 1:
                yield slot, (intent, come | 1 << number)


class SentenceTokens:
    """The words that may be copied, as tokens. `starts` and `ends` are positions between them, where a run may begin and end."""

    def __init__(self, cut: Cut, units: Sequence[str]) -> None:
        cuts = [cut(unit) for unit in units]
        self.tokens = [token for tokens in cuts for token in tokens]
        ends = np.cumsum([len(tokens) for tokens in cuts]).tolist()
        self.starts, self.ends = (0, *ends[:-1]), frozenset(ends)


class InStructure:
    """Somewhere in the structure of an action; `place` is the same for all sentences."""

    def __init__(self, form: ActionGrammar, words: SentenceTokens, trie: TokenTrie) -> None:
        self._form, self._words, self.place, self.ids = form, words, trie, trie.ids

    def after(self, token: int) -> GrammarState:
        """On in the trie; at the end of a text, where it leads."""
        trie = self.place.ways[token]
        here = InStructure(self._form, self._words, trie)
        if trie.goal is None:
            return here if trie.ways else FINISHED
        if isinstance(trie.goal, CopiedSlot):
            return InCopiedSlot(self._form, self._words, trie.goal, self._words.starts)
        there = InStructure(self._form, self._words, self._form.trie(trie.goal))
        return ContinueOrClose(here, there) if trie.ways else there


class InCopiedSlot:
    """Inside a run of the sentence's words. The same words may stand at several positions: all of them are followed."""

    def __init__(
        self,
        form: ActionGrammar,
        words: SentenceTokens,
        copy: CopiedSlot,
        positions: tuple[int, ...],
    ) -> None:
        self._form, self._words, self._copy, self._positions = form, words, copy, positions
        self.ids = _sorted({words.tokens[at] for at in positions if at < len(words.tokens)})

    @property
    def onward(self) -> Sequence[int]:
        """The rest of the sentence, from the first of the positions."""
        return self._words.tokens[self._positions[0] :]

    def after(self, token: int) -> GrammarState:
        """One token further in the sentence; after a whole word the run may end."""
        tokens, words = self._words.tokens, self._words
        further = tuple(
            at + 1 for at in self._positions if at < len(tokens) and tokens[at] == token
        )
        here = InCopiedSlot(self._form, words, self._copy, further)
        if words.ends.isdisjoint(further):
            return here
        closed = InStructure(self._form, words, self._form.closing(self._copy))
        return ContinueOrClose(here, closed) if len(here.ids) else closed


class ContinueOrClose:
    """A place from which what was begun may go on, or end. The two never share a token: names and words hold no quote."""

    def __init__(self, onward: InStructure | InCopiedSlot, ended: InStructure) -> None:
        self.onward, self.ended, self.place = onward, ended, ended.place
        self.ids = _sorted([*onward.ids.tolist(), *ended.ids.tolist()])

    def goes_on(self, token: int) -> bool:
        """Whether a token goes on with what was begun."""
        return token not in self.ended.place.ways

    def after(self, token: int) -> GrammarState:
        """After one of either's tokens."""
        return (self.onward if self.goes_on(token) else self.ended).after(token)


class OneOfTexts:
    """One of a few texts, then the end token."""

    def __init__(self, trie: TokenTrie) -> None:
        self._trie, self.ids = trie, trie.ids

    @classmethod
    def of(cls, texts: Sequence[str], cut: Cut, end: int) -> OneOfTexts:
        """Before any of them."""
        trie = TokenTrie()
        for text in texts:
            trie.add([*cut(text), end], None)
        return cls(trie)

    def after(self, token: int) -> GrammarState:
        """On in the texts that begin so."""
        return OneOfTexts(self._trie.ways[token])


def _shifted(text: str) -> str:
    """A piece with the quote that closes it left to the next one, and that of the piece before it taken over."""
    return ("" if text.startswith("{") else '"') + (
        text if text.endswith((':"', "}")) else text[:-1]
    )


def _sorted(tokens: Iterable[int]) -> NDArray[np.int32]:
    return np.array(sorted(tokens), np.int32)


FINISHED = OneOfTexts(TokenTrie())
