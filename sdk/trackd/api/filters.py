"""What `Api.runs` takes as filter and order, as the hub's grammar. Pure.

A text goes to the hub as it is. A dict is wandb's dialect of MongoDB's:
``{"state": "finished", "config.lr": {"$lt": 0.1}}``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

_COMPARE: Final = {"$eq": "=", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<=", "$regex": "~"}
_PLAIN: Final = re.compile(r"[\w.\-/:$@+*%]+")
_JOIN: Final = {"$and": "and", "$or": "or"}
_FIELDS: Final = {
    "displayName": "name", "display_name": "name", "createdAt": "created", "created_at": "created", "username": "user",
    "heartbeat_at": "updated", "heartbeatAt": "updated", "jobType": "job_type",
}  # fmt: skip


def to_where(filters: str | Mapping[str, Any] | None) -> str:
    """The filter in the hub's grammar. Raises ValueError naming the operator that is not known."""
    if filters is None:
        return ""
    if isinstance(filters, str):
        return filters
    if not isinstance(filters, Mapping):
        raise TypeError(f"filters must be a text or a dict, not {type(filters).__name__}")
    return _conjunction(filters)


def to_sort(order: str) -> str:
    """The order in the hub's grammar: a path, `-` before it for descending."""
    sign = "-" if order.startswith("-") else ""
    return sign + to_path(order.lstrip("+-"))


def to_path(field: str) -> str:
    """A field of wandb's dialect as a path of ours."""
    if field in _FIELDS:
        return _FIELDS[field]
    head, dot, rest = field.partition(".")
    if head == "summary_metrics":
        return f"summary{dot}{rest}"
    # wandb keeps a config value under its key's "value".
    if head == "config" and rest.endswith(".value"):
        return field.removesuffix(".value")
    return field


def _conjunction(filters: Mapping[str, Any]) -> str:
    return " and ".join(_term(field, value) for field, value in filters.items())


def _term(field: str, value: Any) -> str:
    if field in _JOIN:
        return _joined(f" {_JOIN[field]} ", _clauses(field, value))
    if field == "$nor":
        return f"not ({_joined(' or ', _clauses(field, value))})"
    if field == "$not" and isinstance(value, Mapping):
        return f"not ({_conjunction(value)})"
    if field.startswith("$"):
        raise ValueError(f"filters: unknown operator {field}; known: {_known()}")
    path = to_path(field)
    if not _PLAIN.fullmatch(path):
        path = _quoted(path)
    if isinstance(value, Mapping):
        return _joined(" and ", [_operation(path, operator, operand) for operator, operand in value.items()])
    return f"{path} = {_literal(value)}"


def _operation(path: str, operator: str, operand: Any) -> str:
    if operator in _COMPARE:
        return f"{path} {_COMPARE[operator]} {_literal(operand)}"
    if operator in {"$in", "$nin"}:
        if isinstance(operand, str) or not isinstance(operand, Sequence):
            raise ValueError(f"filters: {operator} takes a list, not {operand!r}")
        inside = f"{path} in ({', '.join(map(_literal, operand))})"
        return inside if operator == "$in" else f"not ({inside})"
    if operator == "$not" and isinstance(operand, Mapping):
        return f"not ({_joined(' and ', [_operation(path, o, v) for o, v in operand.items()])})"
    raise ValueError(f"filters: unknown operator {operator}; known: {_known()}")


def _clauses(operator: str, value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, Mapping) for v in value):
        raise ValueError(f"filters: {operator} takes a list of dicts, not {value!r}")
    return [f"({_conjunction(clause)})" for clause in value if clause]


def _joined(word: str, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({word.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        value = value.isoformat()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    raise ValueError(f"filters: cannot compare with {value!r}: give a text, a finite number, a bool or None")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _known() -> str:
    return " ".join([*_JOIN, "$nor", "$not", *_COMPARE, "$in", "$nin"])
