"""Phrases: the place, the kind and the telling words of what is said."""

from __future__ import annotations

import pytest
from tests.homes import home_of, thing

from tumen.home import Kind
from tumen.home.home import Home
from tumen.home.naming.index import SAME, WITHIN, Index


@pytest.fixture(scope="module")
def index() -> Index:
    home = home_of(
        thing("light.one", "Kitchen ceiling light", "kitchen"),
        thing("light.two", "Left lamp", "living_room"),
        thing("light.three", "TV light", "living_room"),
        thing("cover.four", "Garage door", "garage", device_class="garage"),
        thing("switch.five", "Red-hot kettle", "kitchen", aliases=["烧水壶"]),
        thing("light.six", "Lamp of the kitchen"),
        thing("light.seven", "Lamp 2", "kitchen"),
    )
    return home.index


@pytest.mark.parametrize(
    ("said", "lang", "core", "kind", "places"),
    [
        ("kitchen light", "en", "", "light", "kitchen"),
        ("the lights in the kitchen", "en", "", "light", "kitchen"),
        ("kitchen ceiling lamp", "en", "ceiling", "light", "kitchen"),
        ("ceiling", "en", "ceiling", None, ""),
        ("living room", "en", "", None, "living_room"),
        ("left lamp in the living room", "en", "left", "light", "living_room"),
        ("kitchen and living room lights", "en", "and", "light", "kitchen living_room"),
        # the last kind word is the kind, others tell devices apart
        ("tv light", "en", "tv", "light", ""),
        ("light switch", "en", "light", "switch", ""),
        # a kind of two words
        ("garage door", "en", "", "cover:garage", ""),
        ("red hot kettle", "en", "red hot kettle", None, ""),
        ("lamp two", "en", "2", "light", ""),
        ("unicorn lamp", "en", "unicorn", "light", ""),
        ("the", "en", "", None, ""),
        # German: compounds and small words
        # the home has no `Küche`, so the first part of the compound tells lamps apart
        ("küchenlampe", "de", "kuchen", "light", ""),
        ("das licht in der kitchen", "de", "", "light", "kitchen"),
        # Chinese: characters without spaces
        ("烧水壶", "zh", "烧水壶", None, ""),
        ("左边的灯", "zh", "左边", "light", ""),
        ("里面的灯", "zh", "", "light", ""),
    ],
)
def test_a_phrase_is_taken_apart(
    index: Index, said: str, lang: str, core: str, kind: str | None, places: str
) -> None:
    phrase = index.parse(said, lang)
    assert phrase.core == set(core.split())
    assert phrase.kind == (Kind.of(kind) if kind else None)
    assert [place.id for place in phrase.places] == places.split()


@pytest.mark.parametrize(
    ("said", "lang", "flags"),
    [
        ("lights", "en", ""),
        ("the lights here", "en", "here"),
        ("lights in this room", "en", "here"),
        ("lights everywhere", "en", "everywhere"),
        ("all the lights in the house", "en", "all everywhere"),
        ("every light", "en", "all"),
        ("both lamps", "en", "all"),
        ("alle lampen hier", "de", "all here"),
        ("lampen im ganzen haus", "de", "everywhere"),
        ("所有的灯", "zh", "all"),
        ("这里的灯", "zh", "here"),
        ("家里所有的灯", "zh", "all everywhere"),
        # one character is part of too many words to be `home` or `all`
        ("家灯", "zh", ""),
        ("都灯", "zh", ""),
    ],
)
def test_here_everywhere_and_all(index: Index, said: str, lang: str, flags: str) -> None:
    phrase = index.parse(said, lang)
    found = {flag for flag in ("here", "everywhere", "all") if getattr(phrase, flag)}
    assert found == set(flags.split())


@pytest.mark.parametrize(
    ("said", "word", "plural"),
    [
        ("lamp", "lamp", False),
        ("lamps", "lamp", True),
        ("kitchen lamps", "lamp", True),
        ("lampen", "lamp", True),
        ("garage doors", "garagedoor", True),
        ("garage door", "garagedoor", False),
        ("lights lamp", "lamp", False),
        ("kitchen", "", False),
    ],
)
def test_the_plural_of_the_kind(index: Index, said: str, word: str, plural: bool) -> None:
    phrase = index.parse(said, "en")
    assert (phrase.kind_word, phrase.plural) == (word, plural)


def test_places_and_long_kinds_may_be_left_in_the_words(index: Index) -> None:
    assert index.parse("kitchen lamp", "en", take_places=False).core == {"kitchen"}
    assert index.parse("kitchen lamp", "en", take_places=False).places == ()
    assert not index.parse("lamp here", "en", take_places=False).here
    assert index.parse("all lamps", "en", take_places=False).all
    short = index.parse("garage door", "en", long_kinds=False)
    assert short.kind == Kind.of("cover,lock,binary_sensor:door")
    assert [place.id for place in short.places] == ["garage"]
    assert index.parse("车库门", "zh", long_kinds=False).kind == Kind.of("cover:garage")


def numbers(home: Home) -> dict[str, int]:
    return {entity.id: number for number, entity in enumerate(home.index.entities)}


def test_names_are_matched_by_their_telling_words(index: Index) -> None:
    one, left, tv, kettle = 0, 1, 2, 4
    # its own room is no telling word of a name
    assert index.match(one, frozenset(("ceiling",))) == SAME
    assert index.match(one, frozenset(("ceiling", "kitchen"))) == 0
    assert index.match(left, frozenset(("left",))) == SAME
    assert index.match(left, frozenset()) == 0
    assert index.match(tv, frozenset(("tv",))) == SAME
    assert index.match(kettle, frozenset(("kettle",))) == WITHIN
    assert index.match(kettle, frozenset(("red", "kettle"))) == WITHIN
    assert index.match(kettle, frozenset(("blue", "kettle"))) == 0
    # a part of a Chinese word
    assert index.match(kettle, frozenset(("水壶",))) == WITHIN
    assert index.match(kettle, frozenset(("水杯",))) == 0


def test_a_thing_without_a_room_keeps_the_place_in_its_name(index: Index) -> None:
    six = 5
    assert index.match(six, frozenset(("kitchen",))) == SAME


def test_names_are_found_whole(index: Index) -> None:
    assert index.exact("kitchen ceiling light", "en") == ([0], [])
    assert index.exact("the Kitchen Ceiling Light", "en") == ([0], [])
    assert index.exact("kitchen ceiling lights", "en") == ([], [0])
    assert index.exact("ceiling light", "en") == ([], [])
    assert index.exact("lamp two", "en") == ([6], [])
    assert index.exact("烧水壶", "zh") == ([4], [])
    assert index.exact("那个烧水壶", "zh") == ([], [])
    assert index.exact("", "en") == ([], [])
    # `die` is a small word of German alone
    assert index.exact("die left lamp", "de") == ([1], [])
    assert index.exact("die left lamp", "en") == ([], [])


def test_places_are_found_whole(index: Index) -> None:
    assert index.place("living room", "en").id == "living_room"  # type: ignore[union-attr]
    assert index.place("livingroom", "en").id == "living_room"  # type: ignore[union-attr]
    assert index.place("the living rooms", "en").id == "living_room"  # type: ignore[union-attr]
    assert index.place("living", "en") is None
    assert index.place("kitchen light", "en") is None


def test_places_are_found_by_a_word_of_their_names() -> None:
    areas = [
        {"id": "a", "name": "Big guest room"},
        {"id": "b", "name": "Small guest room"},
        {"id": "c", "name": "Hall"},
    ]
    index = Home.of({"area": areas}).index

    def ids(*words: str) -> list[str]:
        return [place.id for place in index.places_with(words)]

    assert ids("guest") == ["a", "b"]
    assert ids("guests") == ["a", "b"]
    assert ids("big", "guest") == ["a"]
    assert ids("guest", "small") == ["b"]
    assert ids("big", "small") == []
    assert ids("guest", "hall") == []
    # a name of one word has no parts; `room` is a word of every room
    assert ids("hall") == []
    assert ids("room") == []
    assert ids() == []


@pytest.mark.parametrize(
    ("id_", "name", "device_class", "kind", "fits"),
    [
        ("light.a", "A", "", "light", True),
        ("light.a", "A", "", "fan", False),
        ("light.a", "A", "", "light,fan", True),
        ("cover.a", "A", "blind", "cover:blind", True),
        ("cover.a", "A", "blind", "cover:curtain", False),
        # senses that people mix up
        ("cover.a", "A", "blind", "cover:shade", True),
        ("cover.a", "A", "shutter", "cover:blind", True),
        ("cover.a", "A", "garage", "cover:door", True),
        ("cover.a", "A", "garage_door", "cover:garage", True),
        # a device that does not say what it is may be anything of its domain ...
        ("cover.a", "A", "", "cover:awning", True),
        ("media_player.a", "A", "", "media_player:tv", True),
        # ... unless the domain has things of all sorts
        ("switch.a", "A", "", "switch:outlet", False),
        ("sensor.a", "A", "", "sensor:temperature", False),
        ("binary_sensor.a", "A", "", "binary_sensor:motion", False),
        ("input_boolean.a", "A", "", "input_boolean:heat", False),
        # a name says what a device is where its class does not
        ("cover.a", "West awning", "", "cover:awning", True),
        ("cover.a", "West awning", "", "cover:blind", False),
        ("switch.a", "Small heater", "", "switch:heat", True),
        ("cover.a", "West awning", "blind", "cover:awning", False),
        # every climate device is a thermostat
        ("climate.a", "Radiator", "", "climate:thermostat", True),
        ("climate.a", "Radiator", "", "climate:cool", False),
    ],
)
def test_which_devices_are_of_a_kind(
    id_: str, name: str, device_class: str, kind: str, fits: bool
) -> None:
    index = home_of(thing(id_, name, device_class=device_class)).index
    assert index.fits(0, Kind.of(kind)) is fits


def test_a_device_may_be_called_by_its_kind_alone() -> None:
    home = home_of(
        thing("light.a", "Kitchen light", "kitchen"),
        thing("light.b", "Light", "kitchen"),
        thing("light.c", "Red light", "kitchen"),
        thing("light.d", "Hall light", "kitchen"),
    )
    index = home.index
    assert index.called_by_kind(0, "light")
    assert not index.called_by_kind(0, "lamp")
    assert index.called_by_kind(1, "light")
    assert not index.called_by_kind(2, "light")
    assert not index.called_by_kind(3, "light")


@pytest.mark.parametrize(
    ("said", "corrected"),
    [
        ("kichen", "kitchen"),
        ("the kichen lamp", "the kitchen lamp"),
        ("livng room", "living room"),
        ("celing light", "ceiling light"),
        ("lamqs", None),
        # what the home knows stays, and so do short words and numbers
        ("kitchen", None),
        ("kettles", None),
        ("lomp", None),
        ("left", None),
        ("12345", None),
        ("lamp3", None),
        ("unicorn", None),
        ("", None),
        ("烧水壳", None),
    ],
)
def test_typos_are_corrected_to_the_homes_own_words(
    index: Index, said: str, corrected: str | None
) -> None:
    assert index.correct(said) == corrected


def test_a_typo_that_may_be_two_words_stays() -> None:
    home = home_of(thing("switch.a", "Couch"), thing("switch.b", "Coach"))
    assert home.index.correct("cooch") is None
    one = home_of(thing("switch.a", "Couch"), thing("switch.b", "Couches"))
    assert one.index.correct("coouch") == "couch"


def test_umlauts_typed_as_two_letters_are_no_typos() -> None:
    home = home_of(thing("switch.a", "Wärme", "küche"), thing("light.b", "Grün", "büro"))
    assert home.index.correct("waerme") == "warme"
    assert home.index.correct("kueche") == "kuche"
    assert home.index.correct("buero") == "buro"
    assert home.index.correct("kuechenlampe") == "kuchenlampe"
    assert home.index.correct("muesli") is None
