"""The language of filters, and where its mistakes are said to stand."""

import pytest
from trackd_daemon.errors import QueryError
from trackd_daemon.store.filters import Compare, Many, Not, Word, parse, parse_sort


def test_and_binds_closer_than_or_and_not_closest() -> None:
    node = parse("a = 1 or not b < 2 and c")
    assert isinstance(node, Many) and not node.is_all
    assert isinstance(node.items[0], Compare)
    inner = node.items[1]
    assert isinstance(inner, Many) and inner.is_all
    assert isinstance(inner.items[0], Not) and inner.items[1] == Word("c")


def test_values() -> None:
    node = parse("""x in (1e-3, "two words", 'it\\'s', null, TRUE, 3x)""")
    assert isinstance(node, Compare)
    assert [(v.text, v.number, v.is_null) for v in node.values] == [
        ("1e-3", 1e-3, False),
        ("two words", None, False),
        ("it's", None, False),
        ("null", None, True),
        ("true", None, False),
        ("3x", None, False),
    ]


def test_a_quoted_number_is_text() -> None:
    node = parse('x = "1"')
    assert isinstance(node, Compare) and node.values[0].number is None


def test_empty_is_everything() -> None:
    assert parse("  ") is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a =", 3), ("a = 1 and", 9), ("(a = 1", 6), ("a = 1)", 5), ("a in 1", 5), ("a in (1 2)", 8), ("= 1", 0),
        ('a = "x', 4), ("a ~ '['", 4), ("a = 1 b = 2", 6), ("a ! 1", 2), ("(" * 60 + "a" + ")" * 60, 51),
        ("a" * 5000, 4000),
    ],
)  # fmt: skip
def test_mistakes_have_a_position(text: str, position: int) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert caught.value.position == position


def test_sort() -> None:
    assert parse_sort("-config.lr") == ("config.lr", True)
    assert parse_sort("name") == ("name", False)
    with pytest.raises(QueryError):
        parse_sort("-")
