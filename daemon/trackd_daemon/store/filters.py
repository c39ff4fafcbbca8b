"""The language of `where` and `sort` (docs/http-api.md). Pure: text to a tree, mistakes with their position.

Written by hand: nine kinds of token and three levels of precedence are less than a parser library's grammar file,
and every mistake can say where it stands::

    any    = all ("or" all)*
    all    = item ("and" item)*
    item   = "not" item | "(" any ")" | path op value | path ["not"] "in" "(" value ("," value)* ")" | word
"""

import re
from dataclasses import dataclass
from typing import Final

from trackd_daemon.errors import QueryError

MAX_LENGTH: Final = 4000
MAX_DEPTH: Final = 50
MAX_PATTERN: Final = 200
OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", "~")

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<op>!=|<=|>=|==|=|<|>|~)
      | (?P<mark>[(),])
      | (?P<word>[^\s"'()=<>!~,]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Value:
    """What a path is compared with."""

    text: str
    number: float | None
    """Set where an unquoted text reads as a number."""
    is_null: bool = False
    position: int = 0


@dataclass(frozen=True, slots=True)
class Compare:
    """path op values; one value but for "in"."""

    path: str
    op: str
    """One of OPERATORS, or "in"."""
    values: tuple[Value, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word: in the name or the id."""

    text: str


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    item: "Node"


@dataclass(frozen=True, slots=True)
class Many:
    """All of the items, or any of them."""

    is_all: bool
    items: tuple["Node", ...]


Node = Compare | Word | Not | Many


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


def parse(text: str) -> Node | None:
    """The tree of a filter; None for an empty one. Raises QueryError."""
    if len(text) > MAX_LENGTH:
        raise QueryError(f"the filter is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    parser = _Parser(text)
    if parser.peek().kind == "end":
        return None
    node = parser.any(0)
    if parser.peek().kind != "end":
        raise QueryError(f"expected 'and', 'or' or the end, found {parser.peek().text!r}", parser.peek().position)
    return node


def parse_sort(text: str) -> tuple[str, bool]:
    """(path, is descending). Raises QueryError."""
    is_descending = text.startswith("-")
    path = text[1:] if is_descending else text.removeprefix("+")
    if not path.strip():
        raise QueryError("sort needs a path, for example -created or summary.loss", 0)
    return path.strip(), is_descending


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            what = "a quote that is not closed" if text[at] in "\"'" else f"unexpected character {text[at]!r}"
            raise QueryError(what, at)
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match.group(kind), match.start(kind)))
        at = match.end()
    tokens.append(_Token("end", "the end", len(text)))
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def peek(self) -> _Token:
        return self._tokens[self._at]

    def take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def any(self, depth: int) -> Node:
        items = [self.all(depth)]
        while self.peek().is_word("or"):
            self.take()
            items.append(self.all(depth))
        return items[0] if len(items) == 1 else Many(False, tuple(items))

    def all(self, depth: int) -> Node:
        items = [self.item(depth)]
        while self.peek().is_word("and"):
            self.take()
            items.append(self.item(depth))
        return items[0] if len(items) == 1 else Many(True, tuple(items))

    def item(self, depth: int) -> Node:
        token = self.take()
        if depth > MAX_DEPTH:
            raise QueryError("nested too deeply", token.position)
        if token.is_word("not"):
            return Not(self.item(depth + 1))
        if token.kind == "mark" and token.text == "(":
            node = self.any(depth + 1)
            self._expect(")")
            return node
        if token.kind not in ("word", "quoted") or token.is_word("and") or token.is_word("or"):
            raise QueryError(f"expected a path or a word, found {token.text!r}", token.position)
        return self._term(token)

    def _term(self, token: _Token) -> Node:
        path = _unquote(token)
        following = self.peek()
        if following.kind == "op":
            op = self.take().text
            value = self._value()
            if op == "~":
                _check_pattern(value)
            return Compare(path, "=" if op == "==" else op, (value,), token.position)
        if following.is_word("in"):
            self.take()
            return Compare(path, "in", self._list(), token.position)
        if following.is_word("not"):
            self.take()
            if not self.take().is_word("in"):
                raise QueryError("expected 'in' after 'not'", self.peek().position)
            return Not(Compare(path, "in", self._list(), token.position))
        return Word(path)

    def _list(self) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._value()]
        while self.peek().text == "," and self.peek().kind == "mark":
            self.take()
            values.append(self._value())
        self._expect(")")
        return tuple(values)

    def _expect(self, mark: str) -> None:
        token = self.take()
        if token.kind != "mark" or token.text != mark:
            raise QueryError(f"expected {mark!r}, found {token.text!r}", token.position)

    def _value(self) -> Value:
        token = self.take()
        if token.kind not in ("word", "quoted"):
            raise QueryError(f"expected a value, found {token.text!r}", token.position)
        text = _unquote(token)
        if token.kind == "quoted":
            return Value(text, None, position=token.position)
        if text.lower() in ("null", "none"):
            return Value(text, None, is_null=True, position=token.position)
        if text.lower() in ("true", "false"):
            return Value(text.lower(), None, position=token.position)
        return Value(text, _number(text), position=token.position)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unquote(token: _Token) -> str:
    return _ESCAPE.sub(r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text


def _check_pattern(value: Value) -> None:
    if len(value.text) > MAX_PATTERN:
        raise QueryError(f"a regular expression of more than {MAX_PATTERN} characters", value.position)
    try:
        re.compile(value.text)
    except re.error as error:
        raise QueryError(f"not a regular expression: {error}", value.position) from error
