"""Sentences and actions to token ids and back, with our own vocabulary or a pretrained model's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tumen.core.errors import ArtifactError, InputError
from tumen.core.extras import optional
from tumen.data.tokenizer.bpe import CONTROL, SPACE
from tumen.data.tokenizer.unigram import UNIGRAM_FILE, UnigramVocabulary, spelled
from tumen.data.tokenizer.vocabulary import FILE, Vocabulary
from tumen.formats import tokenizer_json
from tumen.language import BEGIN, DO, END, HOME, JOINT, Action, Ontology, pieces, units

if TYPE_CHECKING:
    from tokenizers import Tokenizer

tokenizers = optional("tokenizers", "reading a tokenizer")
_AFTER_BRACKET = "|".join(re.escape(token[1:]) for token in CONTROL)
# The place inside a control token that somebody typed: cut there, it is no longer one token.
TYPED_CONTROL = re.compile(rf"(?<=<)(?={_AFTER_BRACKET})")


class Codec:
    """Sentences and actions to token ids and back.

    Args:
        tokenizer: from `train_tokenizer`.
        ontology: the intents and slots that actions may hold.

    Attributes:
        vocab: number of tokens.
        begin, do, end: ids that open a prompt, separate sentence and action, and end the action.
        structure: ids of each structure token of an action.
        vocabulary: that of a pretrained model; None for our own.

    Raises:
        ArtifactError: the tokenizer lacks control or structure tokens.
    """

    def __init__(self, tokenizer: Tokenizer, ontology: Ontology = HOME) -> None:
        self.tokenizer = tokenizer
        self.ontology = ontology
        self.vocab: int = tokenizer.get_vocab_size()
        known: dict[str, int] = tokenizer.get_vocab()
        needed = (BEGIN, DO, END, *ontology.structure_tokens())
        missing = [token for token in needed if token not in known]
        if missing:
            raise ArtifactError(f"another kind of tokenizer, without {missing[0]!r}")
        self.begin = known[BEGIN]
        self.do = known[DO]
        self.end = known[END]
        self.structure = {token: [known[token]] for token in ontology.structure_tokens()}
        self.vocabulary: Vocabulary | UnigramVocabulary | None = None

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """Read the codec of a tokenizer artifact.

        Args:
            folder: holds `ontology.json` and the vocabulary.

        Returns:
            A `PretrainedCodec` for a folder with `vocabulary.json`, a `UnigramCodec` for one with
            `unigram.json`, else a `Codec`.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        if (folder / FILE).is_file():
            return PretrainedCodec(Vocabulary.load(folder), Ontology.load(folder))
        if (folder / UNIGRAM_FILE).is_file():
            return UnigramCodec(UnigramVocabulary.load(folder), Ontology.load(folder))
        path = folder / "tokenizer.json"
        tree = tokenizer_json.check(path)
        parse = tokenizers.Tokenizer.from_str  # outside of try: the package may be missing
        try:
            tokenizer = parse(json.dumps(tree))
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(
                f"{path}: not a tokenizer ({error}); run the recipe again"
            ) from None
        return cls(tokenizer, Ontology.load(folder))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `ontology.json`."""
        self.ontology.save(folder)
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), "utf-8")

    def prompt(self, sentence: str) -> list[int]:
        """Return the ids of `<s> sentence <do>` for a normalized sentence."""
        return [self.begin, *self.text(f" {sentence}"), self.do]

    def text(self, text: str) -> list[int]:
        """Return the ids of plain text; spaces count."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def document(self, text: str) -> list[int]:
        """Return the ids of any text and the end token; a typed `</s>` stays text."""
        parts = TYPED_CONTROL.split(text)
        return [*chain.from_iterable(map(self.text, parts)), self.end]

    def words(self, text: str) -> list[int]:
        """Return the ids of copied words, the same as inside a sentence."""
        return self.text(text)

    def answer(self, action: Action) -> list[int]:
        """Return the ids of an action in wire form, and the end token."""
        ids: list[int] = []
        for piece in pieces(action.wire(self.ontology), self.ontology):
            ids += self.structure.get(piece) or self.words(piece)
        return [*ids, self.end]

    def intent(self, name: str) -> int:
        """Return the one token that stands for an intent.

        Raises:
            InputError: this vocabulary writes the intent in several tokens.
        """
        ids = self.structure.get(f',"intent":"{name}"', [])
        if len(ids) != 1:
            raise InputError(
                f"the tokenizer has no token of its own for the intent {name}; "
                "set tokenizer.pieces = true"
            )
        return ids[0]

    def encoded_units(self, sentence: str) -> tuple[list[int], list[int]]:
        """Return what an encoder reads of a normalized sentence, and where its units begin."""
        tokens = [self.begin]
        firsts = []
        for unit in units(sentence):
            firsts.append(len(tokens))
            tokens += self.text(unit)
        return [*tokens, self.do], firsts

    def token_texts(self) -> list[str]:
        """Return every token as its vocabulary spells it, by id."""
        numbers: dict[str, int] = self.tokenizer.get_vocab()
        return sorted(numbers, key=numbers.__getitem__)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, structure tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def closes_value(piece: str) -> bool:
    """Return whether a piece of an action ends with the quote that closes a value."""
    return piece.endswith('"') and not piece.endswith(':"')


def shifted_piece(piece: str) -> str:
    """Return a piece with the quote before it and without its own closing quote.

    `PretrainedCodec.answer` cuts actions at these places, so trimming must keep their tokens.
    """
    opening = "" if piece.startswith("{") else '"'
    body = piece[:-1] if closes_value(piece) else piece
    return opening + body


class PretrainedCodec(Codec):
    """A codec with the vocabulary of a pretrained model.

    A sentence is encoded unit by unit and an action piece by piece, so that a copied unit is the
    same run of tokens in both. Where a piece has no token of its own, the quote that closes it is
    encoded together with the next piece (`","`), as in the texts the model was trained on. The
    runners cut in the same way (decoding/automaton.py). Its control tokens are never found
    in a text.

    Args:
        vocabulary: of the pretrained model.
        ontology: the intents and slots that actions may hold.
    """

    vocabulary: Vocabulary

    def __init__(self, vocabulary: Vocabulary, ontology: Ontology = HOME) -> None:
        self.vocabulary = vocabulary
        self.ontology = ontology
        self.tokenizer = vocabulary.tokenizer()
        self.vocab = len(vocabulary.tokens)
        ids = {token: number for number, token in enumerate(vocabulary.tokens)}
        self.begin = ids[vocabulary.begin]
        self.do = ids[vocabulary.do]
        self.end = ids[vocabulary.end]
        structure = ontology.structure_tokens()
        self.structure = {}
        if set(structure) <= ids.keys():
            self.structure = {piece: [ids[piece]] for piece in structure}

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` and `ontology.json`."""
        self.ontology.save(folder)
        self.vocabulary.save(folder)

    def prompt(self, sentence: str) -> list[int]:
        """Return the begin token, the units of a normalized sentence, and the separator."""
        return [self.begin, *self.words(sentence), self.do]

    def words(self, text: str) -> list[int]:
        """Return ids unit by unit."""
        return [token for unit in units(text) for token in self.text(unit)]

    def answer(self, action: Action) -> list[int]:
        """Return the ids of an action in wire form, and the end token."""
        if self.structure:
            return super().answer(action)
        ids: list[int] = []
        open_quote = ""  # a closing quote that is encoded with the next piece
        structure = set(self.ontology.structure_tokens())
        for piece in pieces(action.wire(self.ontology), self.ontology):
            if piece not in structure:
                ids += self.words(piece)
            elif piece == JOINT:
                ids += self.text(piece)
            else:
                text = open_quote + piece
                open_quote = '"' if closes_value(text) else ""
                ids += self.text(text.removesuffix(open_quote))
        return [*ids, self.end]

    def document(self, text: str) -> list[int]:
        """Return the ids of any text and the end token."""
        return [*self.text(text), self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; control tokens and added tokens as they are written."""
        vocabulary = self.vocabulary
        first_added = self.vocab - vocabulary.added
        parts: list[str] = []
        run: list[int] = []
        for token in ids:
            if token < first_added and token not in vocabulary.control:
                run.append(token)
                continue
            parts.append(self.tokenizer.decode(run))
            parts.append(vocabulary.tokens[token])
            run = []
        parts.append(self.tokenizer.decode(run))
        return "".join(parts)


class UnigramCodec(Codec):
    """A codec with the vocabulary of a pretrained encoder; sentences are encoded unit by unit.

    Args:
        vocabulary: of the encoder, with a token for each piece of an action.
        ontology: the intents and slots that actions may hold.
    """

    vocabulary: UnigramVocabulary

    def __init__(self, vocabulary: UnigramVocabulary, ontology: Ontology = HOME) -> None:
        self.vocabulary = vocabulary
        self.ontology = ontology
        self.tokenizer = vocabulary.tokenizer()
        self.vocab = len(vocabulary.tokens)
        self.begin = vocabulary.begin
        self.do = vocabulary.do
        self.end = vocabulary.end
        ids = {token: number for number, token in enumerate(vocabulary.tokens)}
        missing = [token for token in ontology.structure_tokens() if token not in ids]
        if missing:
            raise ArtifactError(f"a vocabulary without {missing[0]!r}; run the recipe again")
        self.structure = {token: [ids[token]] for token in ontology.structure_tokens()}
        self._known: dict[str, list[int]] = {}  # units that were encoded before

    def save(self, folder: Path) -> None:
        """Write `unigram.json` and `ontology.json`."""
        self.ontology.save(folder)
        self.vocabulary.save(folder)

    def prompt(self, sentence: str) -> list[int]:
        """Return the begin token, the units of a normalized sentence, and the separator."""
        return [self.begin, *self.words(sentence), self.do]

    def words(self, text: str) -> list[int]:
        """Return ids unit by unit."""
        return [token for unit in units(text) for token in self._unit(unit)]

    def _unit(self, unit: str) -> list[int]:
        if unit not in self._known:
            self._known[unit] = self.text(unit)
        return self._known[unit]

    def text(self, text: str) -> list[int]:
        """Return the ids of plain text; spaces count."""
        return list(self.tokenizer.encode(spelled(text)).ids)

    def document(self, text: str) -> list[int]:
        """Return the ids of any text and the end token."""
        return [*self.text(text), self.end]

    def token_texts(self) -> list[str]:
        """Return every token as its vocabulary spells it, by id."""
        return list(self.vocabulary.tokens)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return "".join(self.vocabulary.tokens[token] for token in ids).replace(SPACE, " ")
