"""From the tree of a filter to SQL over the catalog, values bound."""

from datetime import datetime, timezone
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from trackd_daemon.errors import QueryError
from trackd_daemon.store import tables
from trackd_daemon.store.filters import Compare, Many, Node, Not, Value, Word
from trackd_daemon.store.reads import is_heard

_R: Final = tables.runs.c
NAME: Final = sa.func.ifnull(_R.name, _R.run_id)
_DURATION: Final = sa.func.max(sa.func.ifnull(_R.ended_us, _R.updated_us) - _R.created_us, 0) / 1e6
_NUMBERS: Final[dict[str, Any]] = {
    "created": _R.created_us / 1e6,
    "updated": _R.updated_us / 1e6,
    "ended": _R.ended_us / 1e6,
    "duration": _DURATION,
    "last_step": _R.last_step,
    "rows": _R.rows,
    "attempts": _R.attempts,
    "exit_code": _R.exit_code,
    "lost_records": _R.lost_records,
}
_TEXTS: Final[dict[str, Any]] = {
    "name": NAME,
    "id": _R.run_id,
    "run_id": _R.run_id,
    "group": _R.group,
    "user": _R.user,
    "host": _R.host,
    "entity": _R.entity,
    "notes": _R.notes,
    "job_type": _R.job_type,
    "cause": _R.cause,
}
_DATES: Final = ("created", "updated", "ended")
RUN_PATHS: Final = (*_TEXTS, *_NUMBERS, "state", "tags")


class Operand:
    """A path as SQL: its number and its text, either of which may be null."""

    def __init__(self, number: Any, text: Any) -> None:
        self.number = number
        self.text = text


class Paths:
    """Resolves paths; every config or summary path becomes one join of `runs`."""

    def __init__(self, con: Connection, now_us: int) -> None:
        self._con = con
        self._now_us = now_us
        self._found: dict[str, Operand] = {}
        self.source: sa.FromClause = tables.runs

    def operand(self, path: str, position: int) -> Operand:
        """Raises QueryError for a path that cannot exist."""
        known = self._found.get(path)
        if known is None:
            known = self._found[path] = self._resolve(path, position)
        return known

    def _resolve(self, path: str, position: int) -> Operand:
        if path in _NUMBERS:
            return Operand(_NUMBERS[path], sa.null())
        if path in _TEXTS:
            return Operand(sa.null(), _TEXTS[path])
        if path == "state":
            return Operand(sa.null(), self._state())
        if path == "tags":
            return Operand(sa.null(), _R.tags)
        section, _, rest = path.partition(".")
        if rest and section == "config":
            leaf = self._leaf("config", rest)
            return Operand(leaf.c.num, leaf.c.txt)
        if rest and section == "summary":
            return self._summary(rest)
        raise QueryError(f"unknown path {path!r}; paths are config.…, summary.…, {', '.join(RUN_PATHS)}", position)

    def _state(self) -> Any:
        alive = sa.case((is_heard(_R.heartbeat_us, self._now_us), "running"), else_="lost contact")
        return sa.func.ifnull(_R.exit_state, alive)

    def _leaf(self, section: str, path: str) -> Any:
        leaf = tables.leaves.alias()
        on = sa.and_(leaf.c.run_no == _R.run_no, leaf.c.section == section, leaf.c.path == path)
        self.source = self.source.outerjoin(leaf, on)
        return leaf

    def _summary(self, path: str) -> Operand:
        """The explicit value if there is one, else the automatic one unless it was deleted later."""
        k = tables.keys
        key_no = self._con.execute(sa.select(k.c.key_no).where(k.c.stream == "default", k.c.name == path)).scalar()
        said = self._leaf("summary", path)
        stats = tables.key_stats.alias()
        on = sa.and_(stats.c.run_no == _R.run_no, stats.c.key_no == (-1 if key_no is None else key_no))
        self.source = self.source.outerjoin(stats, on)
        over = tables.leaves.alias()
        parts = path.split(".")
        prefixes = [".".join(parts[:n]) for n in range(1, len(parts))]
        hidden = sa.and_(said.c.deleted == 1, said.c.ord > stats.c.ord)
        if prefixes:
            hidden = sa.or_(
                hidden,
                sa.exists().where(
                    over.c.run_no == _R.run_no,
                    over.c.section == "summary",
                    over.c.path.in_(prefixes),
                    sa.or_(over.c.deleted == 0, over.c.ord > stats.c.ord),
                ),
            )
        is_said = said.c.deleted == 0

        def choose(explicit: Any, automatic: Any) -> Any:
            return sa.case((is_said, explicit), (hidden, sa.null()), else_=automatic)

        return Operand(choose(said.c.num, stats.c.num), choose(said.c.txt, stats.c.txt))


def compile_filter(node: Node, paths: Paths) -> Any:
    """A condition that is never null: a run without the value does not match, and its negation does."""
    if isinstance(node, Word):
        return sa.or_(_contains(NAME, node.text), _contains(_R.run_id, node.text))
    if isinstance(node, Not):
        return sa.not_(compile_filter(node.item, paths))
    if isinstance(node, Many):
        items = [compile_filter(item, paths) for item in node.items]
        return sa.and_(*items) if node.is_all else sa.or_(*items)
    return _compare(node, paths)


def _contains(column: Any, text: str) -> Any:
    return sa.func.instr(sa.func.lower(column), text.lower()) > 0


def _compare(node: Compare, paths: Paths) -> Any:
    operand = paths.operand(node.path, node.position)
    values = [_dated(v) if node.path in _DATES else v for v in node.values]
    if node.path == "tags":
        return _tags(node.op, values, node.position)
    if node.op == "in":
        return sa.or_(*[_equals(operand, v) for v in values])
    value = values[0]
    if node.op == "=":
        return _equals(operand, value)
    if node.op == "!=":
        return sa.not_(_equals(operand, value))
    if node.op == "~":
        text = sa.func.ifnull(operand.text, sa.cast(operand.number, sa.Text))
        return sa.func.ifnull(sa.func.regexp(value.text, text), 0) == 1
    if value.is_null:
        raise QueryError(f"null has no order: use = or != instead of {node.op}", value.position)
    side, bound = (operand.text, value.text) if value.number is None else (operand.number, value.number)
    compared = {"<": side < bound, "<=": side <= bound, ">": side > bound, ">=": side >= bound}[node.op]
    return sa.func.ifnull(compared, 0) == 1


def _equals(operand: Operand, value: Value) -> Any:
    if value.is_null:
        return sa.and_(operand.number.is_(None), operand.text.is_(None))
    same = sa.func.ifnull(operand.text == value.text, 0) == 1
    if value.number is None:
        return same
    return sa.or_(same, sa.func.ifnull(operand.number == value.number, 0) == 1)


def _tags(op: str, values: list[Value], position: int) -> Any:
    tag = sa.func.json_each(sa.func.ifnull(_R.tags, "[]")).table_valued("value")
    if op in ("=", "!=", "in"):
        if any(v.is_null for v in values):
            none = sa.func.json_array_length(sa.func.ifnull(_R.tags, "[]")) == 0
            return sa.not_(none) if op == "!=" else none
        has = sa.exists().where(tag.c.value.in_([v.text for v in values]))
        return sa.not_(has) if op == "!=" else has
    if op == "~":
        return sa.exists().where(sa.func.regexp(values[0].text, tag.c.value) == 1)
    raise QueryError(f"tags can be compared with = != in ~, not with {op}", position)


def _dated(value: Value) -> Value:
    """A date (ISO 8601; UTC where it says no zone) as epoch seconds."""
    if value.number is not None or value.is_null:
        return value
    try:
        moment = datetime.fromisoformat(value.text.replace("Z", "+00:00"))
    except ValueError as error:
        raise QueryError(f"{value.text!r} is neither epoch seconds nor an ISO date", value.position) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return Value(value.text, moment.timestamp(), position=value.position)
