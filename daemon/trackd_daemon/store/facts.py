"""What was said of a run: config, summary, its own fields. Whoever said it last by order key wins, in any order of
arrival; searchable leaves follow from what won."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from trackd_daemon.store import decode, lineage, tables
from trackd_daemon.store.order import inherited_key

_json = msgspec.json.Encoder().encode


def _upsert_lww(table: sa.Table, keys: Sequence[str]) -> Any:
    """Insert, or replace every other column if the order key is greater."""
    statement = insert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest, where=statement.excluded.ord > table.c.ord)


_UPSERT_FACT: Final = _upsert_lww(tables.facts, ("run_no", "section", "path"))
_UPSERT_LEAF: Final = _upsert_lww(tables.leaves, ("run_no", "section", "path"))
_B: Final = sa.bindparam
_WINNERS: Final = sa.select(tables.facts.c.path, tables.facts.c.ord, tables.facts.c.value).where(
    tables.facts.c.run_no == _B("no"),
    tables.facts.c.section == _B("part"),
    tables.facts.c.path.in_(_B("tops", expanding=True)),
)
_DROP_LEAVES: Final = tables.leaves.delete().where(
    tables.leaves.c.run_no == _B("no"),
    tables.leaves.c.section == _B("part"),
    sa.or_(
        tables.leaves.c.path == _B("top"),
        sa.and_(tables.leaves.c.path >= _B("inside"), tables.leaves.c.path < _B("after")),
    ),
)


def _set_field(name: str) -> Any:
    runs = tables.runs
    mark = runs.c[f"{name}_ord"]
    return (
        runs.update()
        .where(runs.c.run_no == _B("no"), sa.func.ifnull(mark, b"") < _B("ord"))
        .values({name: _B("value"), mark.name: _B("ord")})
    )


_SET_FIELDS: Final = {name: _set_field(name) for name in ("name", "notes", "tags", "group", "job_type")}


def set_config(con: Connection, run_no: int, section: str, body: Mapping[str, Any], order: bytes) -> None:
    """Entries of "config" or "meta"."""
    entries = {str(key): value for key, value in body.items()}
    if not entries:
        return
    _put(con, run_no, section, order, entries)
    if section == "config":
        _leaves(con, run_no, section, list(entries))


def set_summary(con: Connection, run_no: int, sets: Mapping[str, Any], dels: Sequence[str], order: bytes) -> bool:
    """Explicit writes and deletions; whether there were any. `summary_leaves` is due afterwards."""
    _put(con, run_no, "summary", order, {str(key): value for key, value in sets.items()})
    where = {"run_no": run_no, "section": "summary", "ord": order, "deleted": 1, "value": b"\xc0"}
    gone = [where | {"path": str(key)} for key in dels if key not in sets]
    if gone:
        con.execute(_UPSERT_FACT, gone)
    return bool(sets or gone)


def set_traceback(con: Connection, run_no: int, trace: str | None, order: bytes) -> None:
    """Of the latest attempt that ended: order keys begin with the attempt's start."""
    _put(con, run_no, "exit", order, {"traceback": trace})


def inherit(con: Connection, parents: set[int]) -> None:
    """Hand the config of parents on to their forks, where these said nothing themselves, and to theirs."""
    while parents:
        heirs = set()
        for parent, child in lineage.pairs(con, parents):
            mine = (tables.facts.c.run_no == parent, tables.facts.c.section == "config")
            rows = con.execute(sa.select(tables.facts).where(*mine)).all()
            if rows:
                given = [dict(row._mapping) | {"run_no": child, "ord": inherited_key(row.ord)} for row in rows]
                con.execute(_UPSERT_FACT, given)
                _leaves(con, child, "config", [row.path for row in rows])
                heirs.add(child)
        parents = heirs


def _put(con: Connection, run_no: int, section: str, order: bytes, entries: Mapping[str, Any]) -> None:
    where = {"run_no": run_no, "section": section, "ord": order, "deleted": 0}
    if entries:
        con.execute(_UPSERT_FACT, [where | {"path": k, "value": decode.encode_value(v)} for k, v in entries.items()])


def _leaves(con: Connection, run_no: int, section: str, tops: Sequence[str]) -> None:
    """Rebuild the searchable leaves of these top-level entries from what won."""
    who = {"no": run_no, "part": section}
    # "/" is the character after "."
    con.execute(_DROP_LEAVES, [who | {"top": top, "inside": f"{top}.", "after": f"{top}/"} for top in tops])
    found: list[dict[str, Any]] = []
    for first in range(0, len(tops), 500):
        for row in con.execute(_WINNERS, who | {"tops": tops[first : first + 500]}):
            value = msgspec.msgpack.decode(row.value, strict=False)
            found.extend(_leaf(run_no, section, path, row.ord, v) for path, v in decode.paths([(row.path, value)]))
    if found:
        con.execute(_UPSERT_LEAF, found)


def sortable(value: object) -> tuple[float | None, str | None]:
    """(number, text) by which a filter finds a value."""
    if isinstance(value, bool):
        return None, "true" if value else "false"
    if isinstance(value, int | float):
        try:
            return float(value), None
        except OverflowError:
            return None, str(value)
    if value is None:
        return None, None
    return None, value if isinstance(value, str) else _json(value).decode()[:1000]


def _leaf(run_no: int, section: str, path: str, order: bytes, value: object, deleted: int = 0) -> dict[str, Any]:
    number, words = sortable(decode.plain(value))
    return {
        "run_no": run_no, "section": section, "path": path, "ord": order, "deleted": deleted,
        "num": number, "txt": words,
    }  # fmt: skip


def summary_leaves(con: Connection, run_no: int) -> None:
    """Rebuild the searchable leaves of the explicit summary: writes in their order, later ones over earlier ones."""
    facts, table = tables.facts, tables.leaves
    mine = (facts.c.run_no == run_no, facts.c.section == "summary")
    result: dict[str, dict[str, Any]] = {}
    above: set[str] = set()  # of the paths in it: hardly any write stands above others
    for row in con.execute(sa.select(facts).where(*mine).order_by(facts.c.ord, facts.c.path)):
        result.pop(row.path, None)
        for path in [p for p in result if p.startswith(f"{row.path}.")] if row.path in above else ():
            del result[path]
        if row.deleted:
            result[row.path] = _leaf(run_no, "summary", row.path, row.ord, None, 1)
            continue
        for path, value in decode.paths([(row.path, msgspec.msgpack.decode(row.value, strict=False))]):
            result[path] = _leaf(run_no, "summary", path, row.ord, value)
            above.update(path[:at] for at, sign in enumerate(path) if sign == ".")
    con.execute(table.delete().where(table.c.run_no == run_no, table.c.section == "summary"))
    if result:
        con.execute(table.insert(), list(result.values()))


def set_fields(con: Connection, run_no: int, changes: Mapping[str, Any], order: bytes) -> set[str]:
    """Set the run's own fields where `order` is later than what set them; the names that were given."""
    given: set[str] = set()
    for name in _SET_FIELDS:
        if name not in changes:
            continue
        value = changes[name]
        if name == "tags":
            value = _json([str(v) for v in value or ()]).decode()
        elif value is not None:
            value = str(value)
        con.execute(_SET_FIELDS[name], {"no": run_no, "ord": order, "value": value})
        given.add(name)
    return given
