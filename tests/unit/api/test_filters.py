from typing import Any

import pytest
from trackd.api.filters import to_sort, to_where
from trackd_daemon.store import filters as grammar


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ""),
        ("config.lr < 0.1", "config.lr < 0.1"),
        ({}, ""),
        ({"state": "finished"}, 'state = "finished"'),
        ({"config.lr.value": {"$gt": 0.1, "$lte": 1}}, "(config.lr > 0.1 and config.lr <= 1)"),
        ({"summary_metrics.loss": {"$lt": 1e-9}}, "summary.loss < 1e-09"),
        ({"displayName": {"$regex": "^a"}}, 'name ~ "^a"'),
        ({"tags": {"$in": ["a", "b"]}}, 'tags in ("a", "b")'),
        ({"tags": {"$nin": ["a"]}}, 'not (tags in ("a"))'),
        ({"$or": [{"state": "failed"}, {"config.n": {"$ne": 3}}]}, '((state = "failed") or (config.n != 3))'),
        ({"$and": [{"a": 1}], "config.x": True}, "(a = 1) and config.x = true"),
        ({"$nor": [{"a": 1}, {"b": 2}]}, "not (((a = 1) or (b = 2)))"),
        ({"config.a": {"$not": {"$gt": 1}}}, "not (config.a > 1)"),
        ({"group": None}, "group = null"),
        ({"config.learning rate": 1}, '"config.learning rate" = 1'),
        ({"user": 'a"b\\c\nd'}, 'user = "a\\"b\\\\c\nd"'),
    ],
)
def test_filters_become_the_hubs_grammar(given: Any, expected: str) -> None:
    assert to_where(given) == expected
    if expected:
        assert grammar.parse(expected) is not None


def test_a_text_reaches_the_hub_unchanged_whatever_it_holds() -> None:
    for text in ('say "hi"', "back\\slash", "new\nline", "it's", "", "and", "null", "1.5"):
        tree = grammar.parse(to_where({"name": text}))
        assert isinstance(tree, grammar.Compare)
        assert tree.values[0].text == text and tree.values[0].number is None and not tree.values[0].is_null


def test_nesting_means_the_same_to_the_hub() -> None:
    tree = grammar.parse(to_where({"state": "a", "$or": [{"x": 1}, {"y": 2, "z": 3}]}))
    assert isinstance(tree, grammar.Many) and tree.is_all and len(tree.items) == 2
    either = tree.items[1]
    assert isinstance(either, grammar.Many) and not either.is_all and isinstance(either.items[1], grammar.Many)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"a": {"$near": 1}}, r"\$near"),
        ({"$where": 1}, r"\$where"),
        ({"$or": {}}, r"\$or takes a list"),
        ({"$or": []}, r"\$or takes a list"),
        ({"a": {"$in": "x"}}, r"\$in takes a list"),
        ({"a": float("nan")}, "nan"),
        ({"a": [1]}, "cannot compare"),
    ],
)
def test_a_mistake_names_what_is_wrong(bad: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        to_where(bad)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="text or a dict"):
        to_where([1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("+created_at", "created"),
        ("-created_at", "-created"),
        ("-summary_metrics.loss", "-summary.loss"),
        ("config.lr.value", "config.lr"),
        ("name", "name"),
    ],
)
def test_orders(given: str, expected: str) -> None:
    assert to_sort(given) == expected
