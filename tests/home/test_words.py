"""Words: one spelling, pieces, endings, kinds and compounds in every language."""

from __future__ import annotations

import pytest

from tumen.home import Kind, fold, forms, split, spoken
from tumen.home.naming.compounds import split_compound
from tumen.home.naming.kinds import kind_word
from tumen.home.naming.typos import nearest_words, without_umlaut_letters
from tumen.home.naming.word_forms import counted


@pytest.mark.parametrize(
    ("said", "folded"),
    [
        ("Kitchen", "kitchen"),
        ("  The   KITCHEN\tlight ", "the kitchen light"),
        ("Küche", "kuche"),
        ("GRÜßE", "grusse"),
        ("Straße", "strasse"),
        ("kid's room", "kids room"),
        ("kid’s room", "kids room"),
        ("café", "cafe"),
        ("Ａ１", "a1"),
        ("厨房灯", "厨房灯"),
        ("", ""),
    ],
)
def test_one_spelling(said: str, folded: str) -> None:
    assert fold(said) == folded
    assert fold(fold(said)) == folded


@pytest.mark.parametrize(
    ("said", "pieces"),
    [
        ("kitchen light", "kitchen light"),
        ("TV-light (left)", "tv light left"),
        ("desk_lamp", "desk lamp"),
        ("lamp 2", "lamp 2"),
        ("lamp2", "lamp2"),
        ("厨房 灯", "厨房 灯"),
        ("厨房light", "厨房 light"),
        ("2 号灯", "二号灯"),
        ("2号灯", "二号灯"),
        ("9号灯", "九号灯"),
        # ten is not one followed by naught
        ("12 号灯", "12 号灯"),
        ("0 号灯", "0 号灯"),
        ("1st floor", "first floor"),
        ("2 nd lamp", "second lamp"),
        ("3rd 4th 5th", "third fourth fifth"),
        ("21st floor", "21st floor"),
        ("6th lamp", "6th lamp"),
        ("?!", ""),
    ],
)
def test_pieces(said: str, pieces: str) -> None:
    assert split(said) == tuple(pieces.split())
    assert spoken(said) == pieces


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("lamp two", "lamp 2"),
        ("lamp nine", "lamp 9"),
        ("lampe zwei", "lampe 2"),
        ("lampe fünf", "lampe 5"),
        ("lampe acht", "lampe 8"),
        # a first word names the thing
        ("two lamps", "two lamps"),
        ("one two three", "one 2 3"),
        ("lamp ten", "lamp ten"),
        ("", ""),
    ],
)
def test_number_words_in_names_are_digits(said: str, expected: str) -> None:
    assert counted(split(said)) == tuple(expected.split())


@pytest.mark.parametrize(
    ("word", "stems"),
    [
        ("lamps", ["lamp"]),
        ("lampen", ["lamp", "lampe"]),
        ("lichter", ["licht"]),
        ("lichtern", ["licht", "lichter"]),
        ("switches", ["switch", "switche"]),
        ("kitchen", ["kitch", "kitche"]),
        ("rotes", ["rot", "rote"]),
        ("rotem", ["rot"]),
        ("lampe", ["lamp"]),
        # a stem has at least three letters; `tvs` is `tv`
        ("tvs", ["tv"]),
        ("gas", ["ga"]),
        ("bed", []),
        ("den", []),
        ("is", []),
        ("s", []),
        ("", []),
        ("灯", []),
        ("灯s灯", []),
    ],
)
def test_endings(word: str, stems: list[str]) -> None:
    assert list(forms(word)) == stems


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        # English, plural or not; pieces are written together
        ("light", "light"),
        ("lamps", "light"),
        ("bulbs", "light"),
        ("socket", "switch:outlet"),
        ("powerstrip", "switch:outlet"),
        ("fans", "fan"),
        ("blinds", "cover:blind"),
        ("curtains", "cover:curtain"),
        ("garagedoor", "cover:garage"),
        ("door", "cover,lock,binary_sensor:door"),
        ("windows", "cover,binary_sensor:window"),
        ("locks", "lock"),
        ("heating", "climate,switch:heat"),
        ("ac", "climate:cool"),
        ("acs", "climate:cool"),
        ("tv", "media_player:tv"),
        ("tvs", "media_player:tv"),
        ("stereo", "media_player:speaker"),
        ("robotvacuum", "vacuum"),
        ("mower", "lawn_mower"),
        ("todolist", "todo"),
        ("temperature", "sensor:temperature"),
        # Chinese
        ("灯", "light"),
        ("插座", "switch:outlet"),
        ("窗帘", "cover:curtain"),
        ("门锁", "lock"),
        ("空调", "climate:cool"),
        ("电视机", "media_player:tv"),
        ("扫地机器人", "vacuum"),
        # German, with umlauts folded and endings
        ("licht", "light"),
        ("lampen", "light"),
        ("steckdosen", "switch:outlet"),
        ("luftern", "fan"),
        ("rollladen", "cover:shutter"),
        ("turen", "cover,lock,binary_sensor:door"),
        ("schloss", "lock"),
        ("heizungen", "climate,switch:heat"),
        ("fernseher", "media_player:tv"),
        ("saugroboter", "vacuum"),
    ],
)
def test_words_that_name_a_kind(word: str, kind: str) -> None:
    found = kind_word(word)
    assert found is not None
    assert found[0] == Kind.of(kind)


@pytest.mark.parametrize(
    "word", ["kitchen", "left", "unicorn", "", "lightning", "厨房", "doorbell"]
)
def test_words_that_name_no_kind(word: str) -> None:
    assert kind_word(word) is None


def test_a_kind_word_is_told_as_the_table_has_it() -> None:
    assert kind_word("lampen") == (Kind.of("light"), "lamp")
    assert kind_word("lamps") == (Kind.of("light"), "lamp")
    assert kind_word("lampe") == (Kind.of("light"), "lampe")


def test_a_kind_is_domains_and_a_sense() -> None:
    kind = Kind.of("cover,lock:door")
    assert kind.domains == {"cover", "lock"}
    assert kind.sense == "door"
    assert Kind.of("light").sense == ""


PLACES = {"kuche", "bad", "wohnzimmer", "garten"}


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("kuchenlampe", "kuchen lampe"),
        ("kuchenlampen", "kuchen lampen"),
        ("kuchendeckenlampe", "kuchen decken lampe"),
        ("wohnzimmerlicht", "wohnzimmer licht"),
        ("badlufter", "bad lufter"),
        ("gartentor", "garten tor"),
        ("deckenlampe", "decken lampe"),
        ("schreibtischleuchte", "schreibtisch leuchte"),
        # no compound of a kind word
        ("kuche", "kuche"),
        ("lampe", "lampe"),
        ("einhorn", "einhorn"),
        ("lampenschirm", "lampenschirm"),
        # a short kind word ends too many words, unless a place stands before it
        ("monitor", "monitor"),
        ("direktor", "direktor"),
        # the first part has at least three letters
        ("eslampe", "eslampe"),
    ],
)
def test_german_compounds_come_apart(word: str, parts: str) -> None:
    assert split_compound(word, PLACES) == parts.split()


def test_a_compound_needs_the_place_for_a_short_kind_word() -> None:
    assert split_compound("kellertor", PLACES) == ["kellertor"]
    assert split_compound("kellertor", PLACES | {"keller"}) == ["keller", "tor"]


VOCABULARY = ["bathroom", "bedroom", "coffee", "kitchen", "lamps", "refrigerator"]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("kitchen", ["kitchen"]),
        ("kichen", ["kitchen"]),  # a letter is missing
        ("kittchen", ["kitchen"]),  # one too many
        ("kitchem", ["kitchen"]),  # a wrong one
        ("kithcen", ["kitchen"]),  # two swapped
        ("kichem", []),  # two slips in a word of less than ten letters
        ("refrigeratr", ["refrigerator"]),
        ("refrgeratr", ["refrigerator"]),
        ("refrgeratar", ["refrigerator"]),
        ("refrgertar", []),  # three slips
        ("litchen", []),  # the first letter is right
        ("bedrooms", ["bedroom"]),
        ("unicorn", []),
    ],
)
def test_the_words_that_a_slip_may_have_meant(word: str, nearest: list[str]) -> None:
    assert nearest_words(word, VOCABULARY) == nearest


def test_of_several_words_the_nearest_are_returned() -> None:
    words = ["refrigerator", "refrigerated", "refrigerate"]
    assert nearest_words("refrigerate", words) == ["refrigerate"]
    assert nearest_words("refrigeratx", words) == ["refrigerate"]
    assert nearest_words("couch", ["coach", "conch"]) == ["coach", "conch"]
    # in whatever order they come
    assert nearest_words("refrigerate", reversed(words)) == ["refrigerate"]


def test_umlauts_may_be_typed_as_two_letters() -> None:
    assert without_umlaut_letters("kueche") == "kuche"
    assert without_umlaut_letters("buero") == "buro"
    assert without_umlaut_letters("waesche") == "wasche"
    assert without_umlaut_letters("kitchen") == "kitchen"
