"""Words onto devices: what is meant in the example home, in three languages."""

from __future__ import annotations

import pytest
from tests.assistant.speech import action_of, in_order, meant, short

from tumen.assistant import Question, Refusal, Resolved, resolve
from tumen.home.home import Home
from tumen.language.action import Action

KITCHEN = "light.kitchen_ceiling light.kitchen_counter"
LIVING = "light.floor_lamp light.living_ceiling light.reading_lamp light.tv_strip"
BEDROOM = "light.bedroom_ceiling light.bedside_left light.bedside_right"
BATH = "light.bathroom light.mirror"
OFFICE = "light.desk_lamp light.office_ceiling"
KIDS = "light.kids_ceiling light.night_light"
UPSTAIRS = f"{BATH} {BEDROOM} {OFFICE} {KIDS}"
GROUND = f"light.garage light.hallway {KITCHEN} {LIVING}"
BEDSIDE = "light.bedside_left light.bedside_right"
CEILINGS = "light.bedroom_ceiling light.kids_ceiling light.kitchen_ceiling light.living_ceiling light.office_ceiling"
WINDOWS = "binary_sensor.bedroom_window binary_sensor.kitchen_window"
KITCHEN_ALL = f"{KITCHEN} media_player.kitchen_speaker switch.coffee_machine switch.kettle"
CLIMATES = "climate.bathroom climate.bedroom climate.living_room"
SPEAKERS = "media_player.bedroom_speaker media_player.kitchen_speaker"
BLINDS = "cover.kitchen_blind cover.office_blind"
LOCKS = "lock.back_door lock.front_door"

EVERY = f"{GROUND} {UPSTAIRS} light.garden_path light.laundry light.terrace"

# intent without "Hass" | slots | targets; `?` before a question's options; `!` before the reason of a refusal
ENGLISH = f"""
TurnOn | domain=light area=kitchen | {KITCHEN}
TurnOn | domain=light area=the kitchen | {KITCHEN}
TurnOn | domain=light area=in the kitchen | {KITCHEN}
TurnOn | name=kitchen light | {KITCHEN}
TurnOn | name=kitchen lights | {KITCHEN}
TurnOn | name=the kitchen lamp | {KITCHEN}
TurnOn | name=lights in the kitchen | {KITCHEN}
TurnOn | name=lights area=kitchen | {KITCHEN}
TurnOn | name=kitchen | {KITCHEN}
TurnOn | area=kitchen | {KITCHEN}
TurnOn | area=kitchen lights | {KITCHEN}
TurnOff | area=kitchen scope=all | {KITCHEN_ALL}
TurnOff | name=everything area=kitchen | {KITCHEN_ALL}
TurnOn | name=kitchen counter light | light.kitchen_counter
TurnOn | name=counter light | light.kitchen_counter
TurnOn | name=counter area=kitchen | light.kitchen_counter
TurnOn | domain=light area=counter | light.kitchen_counter
TurnOn | name=ceiling light area=kitchen | light.kitchen_ceiling
TurnOn | name=ceiling lamp area=living room | light.living_ceiling
TurnOn | name=ceiling light | ?{CEILINGS}
TurnOn | name=ceiling lights | {CEILINGS}
TurnOn | name=ceiling light scope=all | {CEILINGS}
TurnOn | name=floor lamp | light.floor_lamp
TurnOn | name=the floor lamps | light.floor_lamp
TurnOn | name=floor light | light.floor_lamp
TurnOn | name=floor lamp area=living room | light.floor_lamp
TurnOn | name=floor lamp area=kitchen | !absent
TurnOn | name=reeding lamp | light.reading_lamp
TurnOn | name=raeding lamp | light.reading_lamp
TurnOn | domain=light area=livingroom | {LIVING}
TurnOn | domain=light area=living rooms | {LIVING}
TurnOn | domain=light area=lounge | {LIVING}
TurnOn | domain=light area=livign room | {LIVING}
TurnOn | name=kichen light | {KITCHEN}
TurnOn | domain=light area=kithcen | {KITCHEN}
TurnOn | name=bedrom lights | {BEDROOM}
TurnOn | name=bedside lamp | ?{BEDSIDE}
TurnOn | name=bedside lamps | {BEDSIDE}
TurnOn | name=left bedside lamp | light.bedside_left
TurnOn | name=bedside lamp on the left | light.bedside_left
TurnOn | name=my left lamp | light.bedside_left
TurnOn | name=left lamp area=office | !absent
TurnOn | name=light area=upstairs | {UPSTAIRS}
TurnOff | domain=light area=upstairs | {UPSTAIRS}
TurnOff | domain=light area=downstairs | {GROUND}
TurnOff | domain=light area=ground floor | {GROUND}
TurnOff | domain=light area=kitchen and bathroom | {BATH} {KITCHEN}
TurnOff | name=floor lamp and reading lamp | light.floor_lamp light.reading_lamp
TurnOn | name=kids' room light | {KIDS}
TurnOn | name=nursery lights | {KIDS}
TurnOff | domain=light area=the whole house | {EVERY}
TurnOff | name=all the lights in the house | {EVERY}
TurnOff | name=all lights area=my home | {EVERY}
VacuumCleanArea | area=kichen | vacuum.rosie
TurnOn | name=night light | light.night_light
TurnOn | name=tv light | light.tv_strip
TurnOn | name=tv | media_player.tv
TurnOn | name=tvs | media_player.tv
TurnOn | name=television | media_player.tv
TurnOn | name=tv plug | switch.tv_plug
TurnOn | name=coffee maker | switch.coffee_machine
TurnOn | name=coffee | switch.coffee_machine
TurnOn | name=washer | switch.washing_machine
TurnOn | name=disco lights | !absent
TurnOn | name=unicorn | !absent
TurnOn | domain=light area=narnia | !place
TurnOn | name=floor lamp area=narnia | !place
TurnOn | domain=fan area=kitchen | !absent
TurnOn | name=outdoor temperature | !cannot
TurnOn | | ?
TurnOn | name=fan | ?fan.bathroom fan.bedroom fan.living_room
TurnOn | name=fan area=bedroom | fan.bedroom
TurnOn | domain=fan scope=all | fan.bathroom fan.bedroom fan.living_room
TurnOn | name=ceiling fan | fan.living_room
TurnOn | name=extractor fan | fan.bathroom
TurnOn | domain=lock name=front door | lock.front_door
TurnOff | name=back door | lock.back_door
TurnOff | name=door | ?{LOCKS}
TurnOff | domain=lock | ?{LOCKS}
TurnOn | domain=lock scope=all | {LOCKS}
TurnOn | name=garage door | cover.garage_door
TurnOn | domain=cover device_class=garage | cover.garage_door
TurnOff | domain=cover device_class=blind area=kitchen | cover.kitchen_blind
TurnOff | domain=cover device_class=blind | ?{BLINDS}
TurnOff | name=blinds area=office | cover.office_blind
TurnOff | name=office shades | cover.office_blind
TurnOff | name=bedroom shutters | cover.bedroom_shutter
TurnOff | domain=cover device_class=curtain area=kitchen | !absent
TurnOff | name=curtains | cover.living_curtains
TurnOn | name=movie night | scene.movie_night
TurnOn | name=movie night scene | scene.movie_night
TurnOff | name=movie night | !cannot
TurnOn | name=water the plants | script.water_plants
TurnOn | name=guest mode | input_boolean.guest_mode
TurnOn | name=sprinkler | valve.garden
TurnOn | name=living room heating | climate.living_room
TurnOn | name=vacuum | vacuum.rosie
LightSet | name=desk lamp brightness=50 % | light.desk_lamp
LightSet | area=bedroom color=red | {BEDROOM}
LightSet | name=bedroom light brightness=eighty | {BEDROOM}
LightSet | name=kettle brightness=50 | !cannot
LightSet | name=desk lamp brightness=loud | !value
LightSet | area=office step=down | {OFFICE}
SetPosition | device_class=shutter area=bedroom position=30 | cover.bedroom_shutter
SetPosition | name=awning position=half | cover.awning
ClimateSetTemperature | area=bedroom temperature=21 | climate.bedroom
ClimateSetTemperature | name=thermostat temperature=21 | climate.living_room
ClimateSetTemperature | name=termostat temperature=21 | climate.living_room
ClimateSetTemperature | name=heating area=bathroom temperature=20 | climate.bathroom
ClimateSetTemperature | name=ac temperature=20 | climate.bedroom
ClimateSetTemperature | name=ac area=bathroom temperature=20 | !absent
ClimateSetTemperature | temperature=20 | ?{CLIMATES}
ClimateSetTemperature | temperature=purple area=bedroom | !value
ClimateGetTemperature | area=living room | climate.living_room
ClimateGetTemperature | area=outside | sensor.garden_temperature
ClimateGetTemperature | name=outside temperature | sensor.garden_temperature
ClimateGetTemperature | area=office | !absent
ClimateGetTemperature | | ?{CLIMATES}
ClimateSetFanMode | fan_mode=low area=bedroom | climate.bedroom
FanSetSpeed | name=ceiling fan percentage=50 % | fan.living_room
FanSetSpeed | area=bedroom percentage=low | fan.bedroom
MediaPause | | media_player.kitchen_speaker
MediaPause | area=bedroom | media_player.bedroom_speaker
MediaNext | name=kitchen radio | media_player.kitchen_speaker
SetVolume | name=tv volume=40 | media_player.tv
SetVolume | volume=40 | media_player.kitchen_speaker
SetVolumeRelative | step=up area=living room | media_player.tv
MediaSearchAndPlay | query=blue in green area=kitchen | media_player.kitchen_speaker
MediaSearchAndPlay | query=jazz name=speakers | ?{SPEAKERS}
VacuumStart | | vacuum.rosie
VacuumStart | area=kitchen | vacuum.rosie
VacuumStart | name=roomba | vacuum.rosie
VacuumCleanArea | area=kitchen | vacuum.rosie
VacuumReturnToBase | name=rosie | vacuum.rosie
LawnMowerStartMowing | | lawn_mower.shaun
LawnMowerDock | name=lawn mower | lawn_mower.shaun
ListAddItem | name=chores list item=mow the lawn | todo.chores
ListAddItem | name=shopping item=milk | todo.shopping_list
ListAddItem | name=wish list item=milk | !absent
ShoppingListAddItem | item=oat milk | todo.shopping_list
Broadcast | message=dinner is ready | {SPEAKERS}
GetWeather | | weather.home
GetWeather | name=london | !absent
GetState | domain=light state=on ask=any area=kitchen | {KITCHEN}
GetState | device_class=window state=open ask=any | {WINDOWS}
GetState | domain=lock state=locked ask=all | {LOCKS}
GetState | name=front door state=locked | lock.front_door
GetState | name=front door state=open | lock.front_door
GetState | name=kitchen window state=open | binary_sensor.kitchen_window
GetState | name=garage door state=closed | cover.garage_door
GetState | name=desk lamp state=on | light.desk_lamp
GetState | name=bathroom humidity | sensor.bathroom_humidity
GetState | domain=person zone=home ask=any | person.anna person.wei
GetState | name=anna ask=where | person.anna
GetState | name=bob ask=where | !absent
GetState | state=on ask=which area=kitchen | {KITCHEN_ALL}
CancelTimer | name=pizza | !no_timer
StartTimer | name=pizza duration=five minutes |
StartTimer | name=pizza | ?
GetCurrentTime | |
Nevermind | |
none | | !not_home
"""
CHINESE = f"""
TurnOn | domain=light area=厨房 | {KITCHEN}
TurnOn | name=厨房的灯 | {KITCHEN}
TurnOn | name=厨房灯 | {KITCHEN}
TurnOn | name=厨房里的灯 | {KITCHEN}
TurnOn | area=厨房的灯 | {KITCHEN}
TurnOn | area=厨房里 domain=light | {KITCHEN}
TurnOff | area=二楼 domain=light | {UPSTAIRS}
TurnOff | area=2 楼 domain=light | {UPSTAIRS}
TurnOff | area=楼上 domain=light | {UPSTAIRS}
TurnOff | name=楼上的灯 | {UPSTAIRS}
TurnOff | name=所有的灯 area=卧室 | {BEDROOM}
TurnOff | name=家里所有的灯 | {EVERY}
TurnOn | name=床头灯 | ?{BEDSIDE}
TurnOn | name=左边的床头灯 | light.bedside_left
TurnOn | name=客厅的落地灯 | light.floor_lamp
TurnOn | name=落地灯 | light.floor_lamp
TurnOn | name=吸顶灯 area=客厅 | light.living_ceiling
TurnOn | name=客厅吸顶灯 | light.living_ceiling
TurnOn | name=吸顶灯 | ?{CEILINGS}
TurnOn | name=台灯 | light.desk_lamp
TurnOn | name=小夜灯 | light.night_light
TurnOn | name=电视 | media_player.tv
TurnOn | name=客厅的电视机 | media_player.tv
TurnOn | name=电视灯带 | light.tv_strip
TurnOn | name=咖啡机 | switch.coffee_machine
TurnOn | name=水晶灯 | !absent
TurnOn | area=阁楼 domain=light | !place
TurnOn | name=客厅风扇 | fan.living_room
TurnOn | domain=fan area=卧室 | fan.bedroom
TurnOn | name=大门 | lock.front_door
TurnOff | name=后门 | lock.back_door
TurnOn | name=车库门 | cover.garage_door
TurnOff | domain=cover device_class=curtain area=客厅 | cover.living_curtains
TurnOff | name=客厅的窗帘 | cover.living_curtains
TurnOn | name=观影模式 | scene.movie_night
TurnOn | name=空调 | climate.bedroom
LightSet | area=卧室 color=红色 | {BEDROOM}
LightSet | name=台灯 brightness=百分之八十 | light.desk_lamp
LightSet | name=台灯 brightness=好看 | !value
ClimateSetTemperature | name=空调 temperature=26 度 | climate.bedroom
ClimateSetTemperature | area=客厅 temperature=二十二 | climate.living_room
ClimateGetTemperature | area=客厅 | climate.living_room
MediaPause | name=厨房音箱 | media_player.kitchen_speaker
VacuumStart | name=扫地机器人 | vacuum.rosie
VacuumCleanArea | area=客厅和厨房 | vacuum.rosie
GetState | domain=light state=on ask=any area=书房 | {OFFICE}
GetState | name=前门 state=locked | lock.front_door
GetState | device_class=window state=open ask=how_many | {WINDOWS}
ListAddItem | name=待办清单 item=买花 | todo.chores
ShoppingListAddItem | item=鸡蛋 | todo.shopping_list
"""
GERMAN = f"""
TurnOn | domain=light area=küche | {KITCHEN}
TurnOn | domain=light area=in der küche | {KITCHEN}
TurnOn | name=küchenlicht | {KITCHEN}
TurnOn | name=küchenlampen | {KITCHEN}
TurnOn | name=licht in der küche | {KITCHEN}
TurnOn | name=das licht area=küche | {KITCHEN}
TurnOn | name=kuechenlicht | {KITCHEN}
TurnOn | domain=light area=kueche | {KITCHEN}
TurnOn | domain=light area=im wohnzimmer | {LIVING}
TurnOn | name=wohnzimmerlampen | {LIVING}
TurnOn | name=lichter area=wohnzimmer | {LIVING}
TurnOff | domain=light area=oben | {UPSTAIRS}
TurnOff | domain=light area=im ganzen haus | {EVERY}
TurnOff | name=alle lampen area=obergeschoss | {UPSTAIRS}
TurnOff | domain=light area=erdgeschoss | {GROUND}
TurnOff | domain=light area=küche und bad | {BATH} {KITCHEN}
TurnOn | name=stehlampe | light.floor_lamp
TurnOn | name=stehleuchte | light.floor_lamp
TurnOn | name=die stehlampen | light.floor_lamp
TurnOn | name=nachttischlampe | ?{BEDSIDE}
TurnOn | name=nachttischlampen | {BEDSIDE}
TurnOn | name=linke nachttischlampe | light.bedside_left
TurnOn | name=linken nachttischlampe | light.bedside_left
TurnOn | name=deckenlampe area=küche | light.kitchen_ceiling
TurnOn | name=küchendeckenlampe | light.kitchen_ceiling
TurnOn | name=deckenlicht area=schlafzimmer | light.bedroom_ceiling
TurnOn | name=deckenlampe | ?{CEILINGS}
TurnOn | name=schreibtischlampe | light.desk_lamp
TurnOn | name=schreibtischlamp | light.desk_lamp
TurnOn | name=kronleuchter | !absent
TurnOn | name=fernseher | media_player.tv
TurnOn | name=kaffeemaschine | switch.coffee_machine
TurnOn | name=kafeemaschine | switch.coffee_machine
TurnOn | name=ventilator area=schlafzimmer | fan.bedroom
TurnOn | name=haustür | lock.front_door
TurnOff | name=hintertür | lock.back_door
TurnOn | name=garagentor | cover.garage_door
TurnOff | name=rollläden area=schlafzimmer | cover.bedroom_shutter
TurnOff | name=rollladen | cover.bedroom_shutter
TurnOff | name=rollo area=büro | cover.office_blind
TurnOff | name=jalousien | ?{BLINDS}
TurnOff | domain=cover device_class=curtain area=wohnzimmer | cover.living_curtains
TurnOff | name=vorhänge | cover.living_curtains
TurnOn | name=filmabend | scene.movie_night
TurnOn | name=heizung area=bad | climate.bathroom
LightSet | name=leselampe brightness=fünfzig prozent | light.reading_lamp
LightSet | area=schlafzimmer color=blaues | {BEDROOM}
ClimateSetTemperature | name=thermostat area=wohnzimmer temperature=einundzwanzig | climate.living_room
ClimateSetTemperature | name=klimaanlage temperature=22,5 grad | climate.bedroom
ClimateGetTemperature | area=garten | sensor.garden_temperature
SetVolume | name=fernseher volume=zwanzig | media_player.tv
VacuumStart | name=saugroboter | vacuum.rosie
LawnMowerStartMowing | name=rasenmäher | lawn_mower.shaun
GetState | device_class=window state=open ask=any | {WINDOWS}
GetState | name=haustür state=locked | lock.front_door
GetState | domain=light state=on ask=all area=arbeitszimmer | {OFFICE}
ListAddItem | name=aufgaben item=müll rausbringen | todo.chores
ShoppingListAddItem | item=milch | todo.shopping_list
"""


def cases() -> list[tuple[str, str, str, str]]:
    tables = (("en", ENGLISH), ("zh", CHINESE), ("de", GERMAN))
    rows = [
        (lang, line.split("|")) for lang, table in tables for line in table.strip().splitlines()
    ]
    return [(lang, *(cell.strip() for cell in cells)) for lang, cells in rows]  # type: ignore[misc]


def test_the_table_is_large() -> None:
    assert len(cases()) >= 150
    assert {lang for lang, *_ in cases()} == {"en", "zh", "de"}


@pytest.mark.parametrize(("lang", "intent", "slots", "expected"), cases())
def test_words_find_what_is_meant(
    home: Home, lang: str, intent: str, slots: str, expected: str
) -> None:
    before = home.snapshot()
    assert meant(home, f"{intent} {slots}", lang) == in_order(expected)
    assert home.snapshot() == before


def test_lights_without_a_place_are_those_of_the_room_or_a_question(home: Home) -> None:
    action = action_of("TurnOff domain=light")
    asked = resolve(action, home)
    assert isinstance(asked, Question)
    assert asked.reason == "where"
    assert short(resolve(action, home, here="office")) == OFFICE
    assert (
        len(resolve(action_of("TurnOff domain=light scope=all"), home, here="office").targets) == 20
    )


def test_here_is_the_room_of_the_speaker(home: Home) -> None:
    for words, lang in (("here", "en"), ("this room", "en"), ("这里", "zh"), ("hier", "de")):
        action = Action("HassTurnOn", lang, {"domain": "light", "area": words})
        assert short(resolve(action, home, here="bathroom")) == BATH
        asked = resolve(action, home)
        assert isinstance(asked, Question)
        assert asked.reason == "where"


def test_the_room_of_the_speaker_decides_between_equals(home: Home) -> None:
    for slots, room, expected in (
        ("name=ceiling light", "office", "light.office_ceiling"),
        ("domain=cover device_class=blind", "kitchen", "cover.kitchen_blind"),
        ("domain=lock", "hallway", "lock.front_door"),
        ("name=ceiling light", "bathroom", f"?{CEILINGS}"),
    ):
        assert short(resolve(action_of(f"TurnOff {slots}"), home, here=room)) == in_order(expected)


def test_it_is_what_was_spoken_of(home: Home) -> None:
    action = action_of("LightSet name=it color=red")
    assert short(resolve(action, home, last=("light.desk_lamp",))) == "light.desk_lamp"
    assert isinstance(resolve(action, home), Refusal)
    assert isinstance(resolve(action, home, last=("lock.front_door",)), Refusal)


def test_equality_is_what_is_done(home: Home) -> None:
    one = resolve(action_of("LightSet name=desk lamp brightness=eighty"), home)
    two = resolve(action_of("LightSet name=台灯 brightness=百分之八十", "zh"), home)
    other = resolve(action_of("LightSet name=desk lamp brightness=81"), home)
    assert one == two
    assert one.key() == two.key()
    assert one != other
    assert one.key() != other.key()
    assert len({one.key(), two.key(), other.key()}) == 2


def test_timer_values_are_seconds(home: Home) -> None:
    verdict = resolve(action_of("StartTimer duration=one and a half hours"), home)
    assert isinstance(verdict, Resolved)
    assert verdict.values == {"seconds": 5400}


def test_a_question_names_five_and_keeps_all() -> None:
    things = [{"id": f"lock.l{n}", "name": f"Lock {n}"} for n in range(8)]
    asked = resolve(action_of("TurnOn domain=lock"), Home.of({"entity": things}))
    assert isinstance(asked, Question)
    assert len(asked.shown) == 5
    assert len(asked.options) == 8


def test_same_names_are_told_apart_by_area() -> None:
    areas = [{"id": "a", "name": "Attic"}, {"id": "b", "name": "Barn"}]
    things = [{"id": f"light.{area}", "name": "Spot", "area": area} for area in "ab"]
    asked = resolve(action_of("TurnOn name=spot"), Home.of({"area": areas, "entity": things}))
    assert isinstance(asked, Question)
    assert asked.shown == ("Spot (Attic)", "Spot (Barn)")


def test_part_of_a_places_name_asks_which_place() -> None:
    areas = [{"id": n, "name": f"{n} bedroom"} for n in ("master", "guest")]
    things = [{"id": f"light.{n}", "name": f"{n} lamp", "area": n} for n in ("master", "guest")]
    home = Home.of({"area": areas, "entity": things})
    for slots in ("domain=light area=bedroom", "name=bedroom light", "name=bedroom lights"):
        asked = resolve(action_of(f"TurnOn {slots}"), home)
        assert isinstance(asked, Question)
        assert asked.shown == ("master bedroom", "guest bedroom")
    assert (
        short(resolve(action_of("TurnOn domain=light area=guest bedroom"), home)) == "light.guest"
    )


def test_an_exact_name_wins_over_area_and_kind() -> None:
    things = [
        {"id": "light.one", "name": "Kitchen light", "area": "k"},
        {"id": "light.two", "name": "Kitchen spots", "area": "k"},
    ]
    home = Home.of({"area": [{"id": "k", "name": "Kitchen"}], "entity": things})
    assert short(resolve(action_of("TurnOn name=kitchen light"), home)) == "light.one"
    assert short(resolve(action_of("TurnOn name=light area=kitchen"), home)) == "light.one"
    assert short(resolve(action_of("TurnOn name=kitchen lights"), home)) == "light.one light.two"
    assert (
        short(resolve(action_of("TurnOn domain=light area=kitchen"), home)) == "light.one light.two"
    )


@pytest.mark.parametrize("words", ["lamp 2", "lamb 1", "desk lump", "light lamp 3"])
def test_numbers_and_short_words_are_never_mended(words: str) -> None:
    home = Home.of(
        {"entity": [{"id": "light.a", "name": "Lamp 1"}, {"id": "light.b", "name": "Desk lamp"}]}
    )
    assert isinstance(resolve(Action("HassTurnOn", "en", {"name": words}), home), Refusal)


def test_number_words_are_numbers_in_names() -> None:
    home = Home.of(
        {
            "entity": [
                {"id": f"light.l{n}", "name": f"Lamp {n}", "aliases": [f"{n}号灯"]} for n in (1, 2)
            ]
        }
    )
    for lang, words in (
        ("en", "lamp two"),
        ("de", "lampe zwei"),
        ("zh", "二号灯"),
        ("zh", "2 号灯"),
        ("en", "lamp 2"),
    ):
        assert short(resolve(Action("HassTurnOn", lang, {"name": words}), home)) == "light.l2"


def test_two_equally_near_words_are_no_typo() -> None:
    home = Home.of(
        {"entity": [{"id": "light.a", "name": "Couch"}, {"id": "light.b", "name": "Coach"}]}
    )
    assert isinstance(resolve(Action("HassTurnOn", "en", {"name": "cooch"}), home), Refusal)


def test_cooling_is_not_heating() -> None:
    home = Home.of(
        {
            "entity": [
                {"id": "climate.a", "name": "Radiator"},
                {"id": "switch.b", "name": "Fan heater"},
            ]
        }
    )
    assert isinstance(resolve(action_of("TurnOn name=air conditioner"), home), Refusal)
    assert short(resolve(action_of("TurnOn name=heating"), home)) == "?climate.a switch.b"
