"""Add a skill of your own: intents with slots, sentences, and functions that do what is said.

    python examples/own_intents.py [RUN]

Needs `pip install tumen[train]`; takes half a minute. Sentences are rows with `sentence`, `intent`
and `slots` in a file (`source = "labelled"`); a source of your own is a class that a recipe names
(`source = "package.module:Class"`). Words of a slot are copied from the sentence, so a drink that
nobody trained on is understood, too.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

DRINKS = ("espresso", "latte", "tea", "cocoa", "water", "mocha", "black coffee", "green tea")
CUPS = ("1", "2", "3", "4", "two", "three")
SAID = {
    "drink_make": (
        "make me a {drink}",
        "i would like {cups} cups of {drink}",
        "please make {cups} {drink}",
        "{drink} please",
        "one {drink} for me",
    ),
    "drink_stop": ("stop the machine", "stop making {drink}", "no more {drink}", "that is enough"),
    "none": ("what a day", "how are you", "tell me about {drink}", "what is the news of {drink}"),
}
HEARD = ("make me a ristretto", "i would like two cups of oolong", "no more latte")
RECIPE = Path(__file__).with_name("coffee.toml")


def make(drink: str = "coffee", cups: str = "1") -> str:
    """Make a drink."""
    return f"making {cups} x {drink}"


def stop(drink: str = "anything") -> str:
    """Stop the machine."""
    return f"not making {drink} any more"


SKILL: dict[str, Callable[..., str]] = {"drink_make": make, "drink_stop": stop}


def rows(count: int, seed: int = 7) -> Iterator[dict[str, object]]:
    """Yield labelled sentences. Half of the drinks are invented: the model learns to copy."""
    rng = random.Random(seed)
    for _ in range(count):
        intent = rng.choice(list(SAID))
        invented = "".join(rng.choices("aabcdeefghiijklmnoopqrsttuvwxyz", k=rng.randint(4, 9)))
        drink = rng.choice((rng.choice(DRINKS), invented))
        words = {"drink": drink, "cups": rng.choice(CUPS)}
        text = rng.choice(SAID[intent])
        slots = {name: word for name, word in words.items() if "{" + name + "}" in text}
        if intent == "none":
            slots = {}
        yield {"sentence": text.format(**words), "intent": intent, "slots": slots}


def main() -> None:
    """Write the sentences, build the bundle, then let the functions do what is understood."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/coffee")
    run.mkdir(parents=True, exist_ok=True)
    file = run / "sentences.jsonl"
    distinct = {row["sentence"]: json.dumps(row) for row in rows(3000)}
    file.write_text("\n".join(distinct.values()) + "\n")
    tumen = [sys.executable, "-m", "tumen"]
    command = [*tumen, "run", str(RECIPE), "--run", str(run), "--set", f"data.path={file}"]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(done.returncode)  # one line is on stderr
    talk = [*tumen, "talk", "--run", str(run), "--json", "--ungated"]
    done = subprocess.run(talk, input="\n".join(HEARD), capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():  # one turn a line
        turn = json.loads(line)
        action = turn["action"] or {"intent": "none"}
        slots = {name: action[name] for name in action.keys() - {"intent", "lang"}}
        act = SKILL.get(action["intent"])
        print(f"{turn['sentence']} -> {action}: {act(**slots) if act else 'nothing'}")


if __name__ == "__main__":
    main()
