"""A small acceptor of GBNF, llama.cpp's grammars: literals, rules, alternatives, groups and `?`. Nothing else is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

TOKEN = re.compile(r'\s+|("(?:[^"\\]|\\.)*")|([a-z][a-z0-9-]*)|([|()?])')
Node = tuple[str, object]


class Grammar:
    """Reads a grammar; `accepts` says whether a whole text follows its root."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Node] = {}
        for line in text.splitlines():
            name, _, body = line.partition(" ::= ")
            assert name not in self.rules, f"two rules called {name}"
            self.tokens = list(self._tokens(body))
            self.rules[name] = self._choice()
            assert not self.tokens, f"rule {name} goes on with {self.tokens}"

    def accepts(self, text: str) -> bool:
        return len(text) in set(self._ends(("rule", "root"), text, 0))

    def _tokens(self, body: str) -> Iterator[str]:
        at = 0
        while at < len(body):
            match = TOKEN.match(body, at)
            assert match, f"not GBNF: {body[at : at + 30]!r}"
            at = match.end()
            if match.group().strip():
                yield match.group()

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self.tokens and self.tokens[0] == "|":
            self.tokens.pop(0)
            options.append(self._sequence())
        return "choice", options

    def _sequence(self) -> Node:
        items: list[Node] = []
        while self.tokens and self.tokens[0] not in "|)":
            token = self.tokens.pop(0)
            if token == "(":
                item = self._choice()
                assert self.tokens.pop(0) == ")"
            else:
                item = ("text", json.loads(token)) if token[0] == '"' else ("rule", token)
            if self.tokens and self.tokens[0] == "?":
                self.tokens.pop(0)
                item = ("maybe", item)
            items.append(item)
        return "sequence", items

    def _ends(self, node: Node, text: str, start: int) -> Iterator[int]:
        kind, inner = node
        if kind == "text":
            if text.startswith(str(inner), start):
                yield start + len(str(inner))
        elif kind == "rule":
            yield from self._ends(self.rules[str(inner)], text, start)
        elif kind == "maybe":
            yield start
            yield from self._ends(inner, text, start)  # type: ignore[arg-type]
        elif kind == "choice":
            for option in inner:  # type: ignore[attr-defined]
                yield from self._ends(option, text, start)
        else:
            ends = {start}
            for item in inner:  # type: ignore[attr-defined]
                ends = {end for at in ends for end in self._ends(item, text, at)}
            yield from ends
