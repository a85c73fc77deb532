"""Byte-fallback BPE with a small vocabulary, made so that llama.cpp's own tokeniser cuts a sentence the same way.

Pieces in order: control tokens, 256 bytes, the structure tokens of an action (one token each), then learned pieces. Words carry the
space before them (`▁kitchen`); a CJK character and a digit are always pieces of their own, so that copying them never meets a
merge that the sentence did not have. What the vocabulary lacks falls back to bytes: nothing is unknown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tumen.core.errors import ArtifactError, InputError
from tumen.core.extras import optional
from tumen.data.vocabulary import FILE, Vocabulary
from tumen.formats import tokenizer_json
from tumen.language import BEGIN, DO, END, HOME, JOINT, Action, Ontology, pieces, units

if TYPE_CHECKING:
    from tokenizers import Tokenizer

tokenizers = optional("tokenizers", "reading or learning a tokenizer")
UNKNOWN = "<unk>"
CONTROL = (UNKNOWN, BEGIN, END, DO)
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
CJK = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
SPACE = "▁"
TYPED = re.compile(
    rf"(?<=<)(?={'|'.join(re.escape(token[1:]) for token in CONTROL)})"
)  # inside a control token of a text


def train_tokenizer(texts: Iterable[str], vocab: int, ontology: Ontology = HOME) -> Tokenizer:
    """Learn the pieces of normalised sentences.

    Args:
        texts: normalised sentences and copied words.
        vocab: number of tokens, all kinds together.
        ontology: its structure tokens are in it.

    Returns:
        a `tokenizers.Tokenizer` whose ids are stable for the same texts.
    """
    fixed = [*CONTROL, *BYTES, *ontology.structure_tokens()]
    learner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN, byte_fallback=True))
    learner.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend(SPACE), tokenizers.normalizers.Replace(" ", SPACE)]
    )
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(CJK), "isolated"),
            tokenizers.pre_tokenizers.Split("\n", "isolated"),
            tokenizers.pre_tokenizers.Split(SPACE, "merged_with_next"),
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    texts = list(texts)
    alphabet = _alphabet(texts, max(64, (vocab - len(fixed)) // 3))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=fixed, show_progress=False, min_frequency=3,
        initial_alphabet=alphabet, limit_alphabet=len(alphabet),
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    return _without_specials(learner)


def _alphabet(texts: Sequence[str], count: int) -> list[str]:
    """The most frequent characters, of equals the first by code point: the library, left alone, picks among them by chance.

    Rarer characters are left to bytes: with all of a Chinese corpus's, nothing would remain for whole words of other languages.
    """
    seen = Counter(char for text in texts for char in text if char != " ")
    best = sorted(seen, key=lambda char: (-seen[char], char))[: count - 1]
    return [SPACE, *best]


def _without_specials(learner: Tokenizer) -> Tokenizer:
    """The same pieces with only control and structure tokens matched in text (a typed `<0x41>` is text, not a byte)."""
    tree = json.loads(learner.to_str())
    tree["added_tokens"] = [
        token for token in tree["added_tokens"] if token["content"] not in BYTES
    ]
    for token in tree["added_tokens"]:
        token["special"] = token["content"] in CONTROL
        token["normalized"] = False
    tree["pre_tokenizer"] = None
    tree["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    fresh: Tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tree))
    fresh.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace(SPACE, " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    return fresh


class Codec:
    """Sentences and actions to token ids and back.

    Args:
        tokenizer: from `train_tokenizer`.
        ontology: what actions may hold.
    """

    def __init__(self, tokenizer: Tokenizer, ontology: Ontology = HOME) -> None:
        self.tokenizer, self.ontology = tokenizer, ontology
        self.vocab: int = tokenizer.get_vocab_size()
        known: dict[str, int] = tokenizer.get_vocab()
        missing = [
            token for token in (BEGIN, DO, END, *ontology.structure_tokens()) if token not in known
        ]
        if missing:
            raise ArtifactError(f"another kind of tokeniser, without {missing[0]!r}")
        self.begin, self.do, self.end = (known[token] for token in (BEGIN, DO, END))
        self.structure = {token: [known[token]] for token in ontology.structure_tokens()}
        self.vocabulary: Vocabulary | None = None

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """Read `tokenizer.json` (of an outside model: `vocabulary.json`) and `ontology.json` of a folder.

        Raises:
            ArtifactError: missing or damaged.
        """
        if (folder / FILE).is_file():
            return Outside(Vocabulary.load(folder), Ontology.load(folder))
        path = folder / "tokenizer.json"
        tree = tokenizer_json.check(path)
        parse = tokenizers.Tokenizer.from_str  # outside of try: the package may be missing
        try:
            read = parse(json.dumps(tree))
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(
                f"{path}: no tokeniser in it ({error}); run the recipe again"
            ) from None
        return cls(read, Ontology.load(folder))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `ontology.json`."""
        self.ontology.save(folder)
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), "utf-8")

    def prompt(self, sentence: str) -> list[int]:
        """`<s> sentence <do>` of a normalised sentence."""
        return [self.begin, *self.text(f" {sentence}"), self.do]

    def text(self, text: str) -> list[int]:
        """Ids of plain text; spaces count."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def document(self, text: str) -> list[int]:
        """Ids of any text and the end token; a `</s>` that somebody wrote is text, not a control token."""
        return [*(token for part in TYPED.split(text) for token in self.text(part)), self.end]

    def words(self, text: str) -> list[int]:
        """Ids of copied words: those that they have in a sentence."""
        return self.text(text)

    def answer(self, action: Action) -> list[int]:
        """The action on the wire and the end token."""
        ids = (
            self.structure.get(piece) or self.words(piece)
            for piece in pieces(action.wire(self.ontology), self.ontology)
        )
        return [*chain.from_iterable(ids), self.end]

    def intent(self, name: str) -> int:
        """The one token that says an intent.

        Raises:
            InputError: this vocabulary says it in several.
        """
        ids = self.structure.get(f',"intent":"{name}"', [])
        if len(ids) != 1:
            raise InputError(
                f"the tokeniser has no token of its own for the intent {name}; set tokenizer.pieces = true"
            )
        return ids[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, structure tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def closes(piece: str) -> bool:
    """Whether a piece of an action ends with the quote that closes a value."""
    return piece.endswith('"') and not piece.endswith(':"')


def shifted(piece: str) -> str:
    """A piece of an action with the quote before it and without its own closing one."""
    return ("" if piece.startswith("{") else '"') + (piece[:-1] if closes(piece) else piece)


class Outside(Codec):
    """The same with the vocabulary of an outside model.

    A sentence is cut unit by unit and an action piece by piece, so that a copied unit is the same run of tokens in both. Where a
    piece is no token of its own, the quote that closes it is cut with the piece after it (`","`), as texts the model knows are;
    runners cut the same way (decoding/automaton.py). Its control tokens are never found in a text.
    """

    vocabulary: Vocabulary

    def __init__(self, vocabulary: Vocabulary, ontology: Ontology = HOME) -> None:
        self.vocabulary, self.ontology = vocabulary, ontology
        self.tokenizer, self.vocab = vocabulary.tokenizer(), len(vocabulary.tokens)
        ids = {token: number for number, token in enumerate(vocabulary.tokens)}
        self.begin, self.do, self.end = (
            ids[token] for token in (vocabulary.begin, vocabulary.do, vocabulary.end)
        )
        structure = ontology.structure_tokens()
        self.structure = (
            {piece: [ids[piece]] for piece in structure} if set(structure) <= ids.keys() else {}
        )

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` and `ontology.json`."""
        self.ontology.save(folder)
        self.vocabulary.save(folder)

    def prompt(self, sentence: str) -> list[int]:
        """Begin token, units of a normalised sentence, the token that parts it from the action."""
        return [self.begin, *self.words(sentence), self.do]

    def words(self, text: str) -> list[int]:
        """Ids unit by unit."""
        return [token for unit in units(text) for token in self.text(unit)]

    def answer(self, action: Action) -> list[int]:
        """The action on the wire and the end token."""
        if self.structure:
            return super().answer(action)
        ids, quote = list[int](), ""
        known = set(self.ontology.structure_tokens())
        for piece in pieces(action.wire(self.ontology), self.ontology):
            if piece not in known:
                ids += self.words(piece)
            elif piece == JOINT:
                ids += self.text(piece)
            else:
                text = quote + piece
                quote = '"' if closes(text) else ""
                ids += self.text(text.removesuffix(quote))
        return [*ids, self.end]

    def document(self, text: str) -> list[int]:
        """Ids of any text and the end token."""
        return [*self.text(text), self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens and our own as they are written."""
        vocabulary, parts, run = self.vocabulary, [], list[int]()
        first = self.vocab - vocabulary.added
        for token in ids:
            if token < first and token not in vocabulary.control:
                run.append(token)
                continue
            parts += [self.tokenizer.decode(run), vocabulary.tokens[token]]
            run = []
        return "".join([*parts, self.tokenizer.decode(run)])
