"""The automaton of allowed tokens: which tokens may come next while an action is written.

It allows the actions of an ontology, and in copied slots only runs of the sentence's own words.
That is exactly what `tumen.language.action.grammar` states as a GBNF grammar, but token by token,
in the vocabulary of one model. Where a single token is allowed, the model need not be run to choose
it.

A `GrammarState` holds the allowed tokens and leads to the next state. The alternatives of a
position form a trie of tokens (a prefix tree): with our own tokenizer each piece of structure is
one token, with any other it is several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tumen.decoding.sentence_tokens import OPENING, PREFERENCE, Name, SentenceTokens, Tokenize

NOTHING: Mapping[int, float] = MappingProxyType({})  # no token is preferred
JOINT = ";"  # between the runs of a slot that may hold several


class Position(NamedTuple):
    """Where an action stands between two of its pieces.

    Attributes:
        intent: the intent written so far; empty before it.
        progress: index of the first slot that may still come. For an intent whose slots come in the
            order of the sentence: a bit for each slot that has come.
    """

    intent: str
    progress: int


START = Position("", 0)  # before everything
LANGUAGE_WRITTEN = Position("", 1)
ACTION_WRITTEN = Position("", 2)  # only the end token may follow


class CopiedSlot(NamedTuple):
    """A copied slot that has just been opened: sentence words follow, then `position`."""

    slot: str
    position: Position


class GrammarState(Protocol):
    """A point in the text that is being written."""

    @property
    def allowed(self) -> NDArray[np.int32] | None:
        """Tokens that may come next, ascending.

        Empty when the text is finished, `None` where any token may come.
        """
        ...

    @property
    def preferred(self) -> Mapping[int, float]:
        """What is added to the logits of some allowed tokens before one is chosen, in nats."""
        ...

    def advance(self, token: int) -> GrammarState:
        """Return the state after one of the allowed tokens."""
        ...


class FreeText:
    """Any text, until an end token.

    Args:
        is_end: whether generation ends with a token.
    """

    allowed = None
    preferred = NOTHING

    def __init__(self, is_end: Callable[[int], bool]) -> None:
        self._is_end = is_end

    def advance(self, token: int) -> GrammarState:
        """Return the finished state after an end token, this state after any other."""
        return FINISHED if self._is_end(token) else self


class TokenTrie:
    """A prefix tree of texts as tokens.

    Attributes:
        children: token -> the rest of the texts that go on with it.
        target: where the text that ends here leads; `None` where no text ends, or generation ends.
    """

    def __init__(self) -> None:
        self.children: dict[int, TokenTrie] = {}
        self.target: Position | CopiedSlot | None = None

    @cached_property
    def allowed(self) -> NDArray[np.int32]:
        """Tokens of the children, ascending."""
        return _sorted_array(self.children)

    @cached_property
    def copied_slots(self) -> Mapping[int, str]:
        """The tokens that open a slot of copied words -> the slot."""
        found = {}
        for token, rest in self.children.items():
            if isinstance(rest.target, CopiedSlot):
                found[token] = rest.target.slot
        return found

    def add(self, tokens: Sequence[int], target: Position | CopiedSlot | None) -> None:
        """Add one text."""
        # Texts that begin alike share a branch.
        branch = self
        for token in tokens:
            branch = branch.children.setdefault(token, TokenTrie())
        branch.target = target


class ActionGrammar:
    """The actions of an ontology in one vocabulary.

    Args:
        ontology: `languages`, `intents`, `spoken`, `closed` and `several`, as in ontology.json.
        tokenize: the vocabulary's tokenizer.
        end: the token after a whole action.
    """

    def __init__(self, ontology: Mapping[str, Any], tokenize: Tokenize, end: int) -> None:
        self._languages: Sequence[str] = ontology["languages"]
        self._intents: Mapping[str, Sequence[str]] = ontology["intents"]
        self._closed: Mapping[str, Sequence[str]] = ontology["closed"]
        self._sentence_order = frozenset(ontology.get("spoken", ()))
        self._several = frozenset(ontology.get("several", ()))
        self.tokenize = tokenize
        self._one_token_pieces = self._has_one_token_pieces()
        # Tries are made when a position is first reached, and kept for all sentences.
        finished = TokenTrie()
        finished.add([end], None)
        self._tries: dict[Position | CopiedSlot, TokenTrie] = {ACTION_WRITTEN: finished}

    def _has_one_token_pieces(self) -> bool:
        """Return whether each piece of structure is one token, as in our own tokenizer.

        In any other vocabulary a quote and what follows it are mostly one token (`","`), and a
        model that learned from whole texts expects that token. There the closing quote of a piece
        is written as the beginning of the next piece; see `_with_shifted_quotes`.
        """
        pieces = ['"', *(f',"intent":"{intent}"' for intent in self._intents)]
        return all(len(self.tokenize(piece)) == 1 for piece in pieces)

    def start(self, units: Sequence[str], names: Sequence[Name] = ()) -> GrammarState:
        """Return the state before the action of a sentence.

        Args:
            units: of the sentence, from `tumen.language.units`.
            names: runs of them that name a thing or a place of the home.
        """
        words = SentenceTokens.of(self.tokenize, units, names)
        return InStructure(self, words, self.trie(START))

    def trie(self, position: Position) -> TokenTrie:
        """Return all pieces that may come at a position."""
        if position not in self._tries:
            trie = TokenTrie()
            for piece, target in self._pieces(position):
                text = piece if self._one_token_pieces else _with_shifted_quotes(piece)
                trie.add(self.tokenize(text), target)
            self._tries[position] = trie
        return self._tries[position]

    def trie_after_copy(self, copied: CopiedSlot) -> TokenTrie:
        """Return what may end a copied run: the closing quote, or the joint to another run."""
        if copied not in self._tries:
            trie = TokenTrie()
            if self._one_token_pieces:
                trie.add(self.tokenize('"'), copied.position)
            else:  # the next piece begins with the quote
                trie.children.update(self.trie(copied.position).children)
            if copied.slot in self._several:
                trie.add(self.tokenize(JOINT), copied)
            self._tries[copied] = trie
        return self._tries[copied]

    def _pieces(self, position: Position) -> Iterator[tuple[str, Position | CopiedSlot]]:
        """Yield (piece, where it leads)."""
        if position == START:
            for language in self._languages:
                yield f'{{"lang":"{language}"', LANGUAGE_WRITTEN
        elif position == LANGUAGE_WRITTEN:
            for intent in self._intents:
                yield f',"intent":"{intent}"', Position(intent, 0)
        else:
            # All slots are optional, so the action may end before any of them.
            yield "}", ACTION_WRITTEN
            for slot, following in self._possible_slots(position):
                yield from self._slot_pieces(slot, following)

    def _slot_pieces(
        self, slot: str, following: Position
    ) -> Iterator[tuple[str, Position | CopiedSlot]]:
        """Yield a slot with each of its closed values, or its beginning where words are copied."""
        if slot not in self._closed:
            yield f',"{slot}":"', CopiedSlot(slot, following)
            return
        for value in self._closed[slot]:
            yield f',"{slot}":"{value}"', following

    def _possible_slots(self, position: Position) -> Iterator[tuple[str, Position]]:
        """Yield (slot that may come at a position, the position after it)."""
        intent, progress = position
        slots = self._intents[intent]
        if intent in self._sentence_order:
            for index, slot in enumerate(slots):
                bit = 1 << index
                if not progress & bit:
                    yield slot, Position(intent, progress | bit)
            return
        # In the ontology's order: each slot once, and none before one that has come.
        for index in range(progress, len(slots)):
            yield slots[index], Position(intent, index + 1)


class InStructure:
    """Inside the structure of an action: names, quotes, closed values.

    Attributes:
        trie: what may come; the same object for all sentences, so it identifies the place.
    """

    def __init__(self, grammar: ActionGrammar, words: SentenceTokens, trie: TokenTrie) -> None:
        self._grammar = grammar
        self._words = words
        self.trie = trie
        self.allowed = trie.allowed

    @property
    def preferred(self) -> Mapping[int, float]:
        """The slots that a name of the sentence waits for."""
        if not self._words.names:
            return NOTHING
        slots = self.trie.copied_slots.items()
        return {token: OPENING for token, slot in slots if self._words.waits_for(slot)}

    def advance(self, token: int) -> GrammarState:
        """Follow the trie; at the end of a piece, go where it leads."""
        # A token that is not allowed is a bug of the caller, and a KeyError.
        trie = self.trie.children[token]
        here = InStructure(self._grammar, self._words, trie)
        if trie.target is None:
            return here
        if isinstance(trie.target, CopiedSlot):
            starts = self._words.starts_of(trie.target.slot)
            return InCopiedSlot(self._grammar, self._words, trie.target, starts)
        after = InStructure(self._grammar, self._words, self._grammar.trie(trie.target))
        # One piece may be the beginning of another one: "up" and "upper".
        return ContinueOrClose(here, after) if trie.children else after


class InCopiedSlot:
    """Inside a run of the sentence's words.

    The same words may stand at several places of the sentence; all of them are followed.

    Args:
        grammar: of the action.
        words: of the sentence.
        copied: the slot.
        indices: into `words.tokens`, where the run may go on.
    """

    def __init__(
        self,
        grammar: ActionGrammar,
        words: SentenceTokens,
        copied: CopiedSlot,
        indices: tuple[int, ...],
    ) -> None:
        self._grammar = grammar
        self._words = words
        self._copied = copied
        self._indices = indices
        # At the end of the sentence nothing may follow but the end of the run.
        following = {words.tokens[index] for index in indices if index < len(words.tokens)}
        self.allowed = _sorted_array(following)

    @property
    def preferred(self) -> Mapping[int, float]:
        """Where the run begins: the first tokens of names."""
        words = self._words
        slot = self._copied.slot
        # Further on, the sentence decides.
        if not words.names or self._indices != words.starts_of(slot):
            return NOTHING
        return dict.fromkeys(words.first_tokens(slot), PREFERENCE)

    @property
    def rest_of_sentence(self) -> Sequence[int]:
        """The tokens from the first possible place to the end of the sentence."""
        return self._words.tokens[self._indices[0] :]

    def advance(self, token: int) -> GrammarState:
        """Go one token further in the sentence; after a whole word the run may end."""
        tokens = self._words.tokens
        inside = [index for index in self._indices if index < len(tokens)]
        following = tuple(index + 1 for index in inside if tokens[index] == token)
        here = InCopiedSlot(self._grammar, self._words, self._copied, following)
        words = self._words
        slot = self._copied.slot
        if not words.may_end(slot, following):
            return here  # in the middle of a word or of a name
        trie = self._grammar.trie_after_copy(self._copied)
        closed = InStructure(self._grammar, words.after_run(following), trie)
        if not len(here.allowed):
            return closed
        return ContinueOrClose(here, closed, words.ends_name(slot, following))


class ContinueOrClose:
    """A point where the current run or piece may go on or end.

    No token belongs to both: words and names hold no quote, and every piece after them begins with
    one.

    Args:
        inside: the state if it goes on.
        closed: the state if it ends.
        ends_name: whether the run ends with a name of the home, so that to end is preferred.
    """

    def __init__(
        self, inside: InStructure | InCopiedSlot, closed: InStructure, ends_name: bool = False
    ) -> None:
        self.inside = inside
        self.closed = closed
        self.preferred = NOTHING
        if ends_name:
            self.preferred = dict.fromkeys(closed.trie.children, PREFERENCE)
        self.trie = closed.trie
        # Both arrays together: no token is in both.
        self.allowed = _sorted_array([*inside.allowed.tolist(), *closed.allowed.tolist()])

    def continues(self, token: int) -> bool:
        """Return whether the run or piece goes on with a token."""
        return token not in self.closed.trie.children

    def advance(self, token: int) -> GrammarState:
        """Return the state after a token of either."""
        state = self.inside if self.continues(token) else self.closed
        return state.advance(token)


class OneOfTexts:
    """One of a few texts, then the end token.

    Args:
        trie: the texts that are still possible; see `start`.
    """

    preferred = NOTHING

    def __init__(self, trie: TokenTrie) -> None:
        self._trie = trie
        self.allowed = trie.allowed

    @classmethod
    def start(cls, texts: Sequence[str], tokenize: Tokenize, end: int) -> OneOfTexts:
        """Return the state before any of the texts."""
        trie = TokenTrie()
        for text in texts:
            trie.add([*tokenize(text), end], None)
        return cls(trie)

    def advance(self, token: int) -> GrammarState:
        """Return the state with the texts that go on with a token."""
        return OneOfTexts(self._trie.children[token])


def _with_shifted_quotes(piece: str) -> str:
    """Return a piece without its closing quote, and with that of the piece before it.

    The first piece, `{"lang":"en"`, follows no quote; `:"` opens a copied value and `}` ends the
    action.
    """
    before = "" if piece.startswith("{") else '"'
    keeps_its_end = piece.endswith((':"', "}"))
    return before + (piece if keeps_its_end else piece[:-1])


def _sorted_array(tokens: Iterable[int]) -> NDArray[np.int32]:
    return np.array(sorted(tokens), np.int32)


FINISHED = OneOfTexts(TokenTrie())
