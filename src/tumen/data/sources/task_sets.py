"""Sets of tasks in several languages: xSID, MTOP and the self-corrections of Disfl-QA.

xsid       JSON lines of xSID (van der Goot et al. 2021, NAACL): utt, intent, tokens and their BIO
           tags
mtop       JSON lines of MTOP (Li et al. 2021, EACL): utt, and a tree such as
           `[IN:CREATE_CALL [SL:CONTACT mom ] ]`. The intent is the outermost; the slots are those
           without a frame inside, wherever they stand
disfl-qa   JSON lines of Disfl-QA (Gupta et al. 2021, ACL Findings): said, a question with a
           self-correction, which is not for a home

`data.path` is a file or a folder; all files of a folder are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.data.sources.labelled import LabelledSentence, LabelledSource
from tumen.data.sources.massive_rows import FILE_PARTITION, SUFFIXES, is_wanted
from tumen.data.sources.read import missing_file, read_rows
from tumen.data.sources.source import SPLIT_NAMES
from tumen.language import LANGUAGES, NONE
from tumen.recipe import Data

TREE = re.compile(r"\[(?:IN|SL):\S+|\]|[^\s\[\]]+")
OPENING = "["
CLOSING = "]"
FRAME = "[IN:"
SLOT = "[SL:"

Reader = Callable[[Mapping[str, Any]], LabelledSentence]


def _read(reader: Reader, title: str, path: str) -> Iterator[LabelledSentence]:
    """Yield the rows of a file, or of a folder's files in the order of their names.

    Args:
        reader: of one row.
        title: of the set, for errors.
        path: of the file or folder.

    Raises:
        InputError: it is missing, or a row has another form; names the row.
    """
    place = Path(path)
    files = [place]
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.name.endswith(SUFFIXES))
    elif not place.exists():
        raise missing_file(place, "data.path")
    for file in files:
        side = FILE_PARTITION.search(file.name)
        split = SPLIT_NAMES[side[1]] if side else ""
        for number, row in enumerate(read_rows(file), start=1):
            try:
                found = reader(row)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                why = f"{type(error).__name__} {error}"
                raise InputError(f"{file}, row {number}: no row of {title} ({why})") from None
            id_ = str(row.get("id") or "")
            lang = str(row.get("lang") or LANGUAGES[0])
            yield LabelledSentence(found.sentence, found.intent, found.slots, lang, split, id_)


def _xsid_row(row: Mapping[str, Any]) -> LabelledSentence:
    slots: list[tuple[str, str]] = []
    for word, tag in zip(row["tokens"], row["bio"], strict=True):
        mark, _, name = tag.partition("-")
        name = _word(name)
        if mark == "I" and slots and slots[-1][0] == name:
            slots[-1] = (name, f"{slots[-1][1]} {word}")
        elif name:
            slots.append((name, str(word)))
        else:
            # the next word is of another run, even if it has the same name
            slots.append(("", ""))
    return LabelledSentence(
        str(row["utt"]), _word(row["intent"]), [pair for pair in slots if pair[0]]
    )


def _word(name: str) -> str:
    """Return a name as a grammar can hold it: `weather/find` as `weather_find`."""
    return str(name).replace("/", "_")


def _mtop_row(row: Mapping[str, Any]) -> LabelledSentence:
    pieces = TREE.findall(row["tree"])
    if not pieces or not pieces[0].startswith(FRAME):
        raise ValueError(f"no tree: {row['tree']!r:.40}")
    slots = list(_leaf_slots(pieces))
    return LabelledSentence(str(row["utt"]), pieces[0].removeprefix(FRAME), slots)


def _leaf_slots(pieces: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the slots of a tree that hold words and no frame."""
    open_slots: list[tuple[str, list[str]] | None] = []
    for piece in pieces:
        if piece.startswith(SLOT):
            open_slots.append((piece.removeprefix(SLOT), []))
        elif piece.startswith(OPENING):
            # what holds a frame has no words of its own
            open_slots = [None for _ in open_slots]
            open_slots.append(None)
        elif piece == CLOSING:
            slot = open_slots.pop()
            if slot is not None and slot[1]:
                yield slot[0], " ".join(slot[1])
        elif open_slots and open_slots[-1] is not None:
            open_slots[-1][1].append(piece)


def _disfl_qa_row(row: Mapping[str, Any]) -> LabelledSentence:
    return LabelledSentence(str(row["said"]), NONE)


class _TaskSource(LabelledSource):
    """A set whose rows say their language; those of other languages than the recipe's are left."""

    def rows(self, section: Data) -> list[LabelledSentence]:
        """Return the rows of the recipe's languages."""
        wanted = section.locales or section.languages
        found = [row for row in super().rows(section) if is_wanted(row.lang, wanted)]
        if not found:
            raise InputError(f"{section.path}: holds no row in {', '.join(wanted)}")
        return found


class XsidSource(_TaskSource):
    """xSID."""

    read = staticmethod(partial(_read, _xsid_row, "xSID"))
    origin = "https://github.com/mainlp/xsid"


class MtopSource(_TaskSource):
    """MTOP, its frames made flat."""

    read = staticmethod(partial(_read, _mtop_row, "MTOP"))
    origin = "https://fb.me/mtop_dataset"


class DisflQaSource(_TaskSource):
    """Disfl-QA."""

    read = staticmethod(partial(_read, _disfl_qa_row, "Disfl-QA"))
    origin = "https://github.com/google-research-datasets/Disfl-QA"
