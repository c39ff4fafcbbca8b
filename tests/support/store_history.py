"""A made-up history of one run: what its writers wrote, as records and as batches."""

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
from trackd_daemon.model import Batch
from trackd_proto import batch as framing
from trackd_proto import records

BORN_US = 1_700_000_000_000_000
encode = msgspec.msgpack.encode


@dataclass
class Script:
    """One writer's records in order."""

    writer_id: bytes
    attempt: str
    start_us: int
    role: str = "main"
    project: str = "p"
    run_id: str = "r"
    written: list[bytes] = field(default_factory=list)

    def add(self, kind: int, time_us: int, x: int, body: dict[Any, Any]) -> None:
        """One more record."""
        self.written.append(encode([kind, time_us, x, body]))

    def start(self, **more: Any) -> "Script":
        """The START record."""
        who = {"role": self.role, "pid": 7, "host": "box", "parent": None}
        body = {
            "project": self.project,
            "run_id": self.run_id,
            "entity": None,
            "attempt": self.attempt,
            "attempt_start_us": self.start_us,
            "writer": who,
            "created_us": self.start_us,
        }
        if self.role == "main":
            body |= {"name": f"name of {self.attempt}", "tags": ["t"], "notes": None, "group": "g", "user": "u"}
        self.add(records.START, self.start_us, 0, body | more)
        return self

    def row(self, x: int, body: dict[Any, Any], time_us: int, kind: int = records.ROW_ORDINAL) -> None:
        """A history row."""
        self.add(kind, time_us, x, body)

    def batch(self, first_seq: int, count: int) -> Batch:
        """The records [first_seq, first_seq + count) as a batch."""
        some = self.written[first_seq - 1 : first_seq - 1 + count]
        return Batch(self.writer_id, self.project, self.run_id, first_seq, len(some), framing.join(some))

    def whole(self) -> Batch:
        """Everything as one batch."""
        return self.batch(1, len(self.written))


def writer_id(number: int) -> bytes:
    """A UUIDv7-like id whose order is the number's."""
    return (BORN_US // 1000).to_bytes(6, "big") + b"\x70" + bytes(8) + bytes([number])


VALUES: list[Any] = [
    0.5, -0.0, float("nan"), float("inf"), float("-inf"), 3, -(2**63), 2**53 + 1, 2**63 + 5, records.tagged_int(2**70),
    "text", "", True, False, None, [1, 2.5, "x"], {"inner": 1.5, "deep": {"er": 2}}, records.tagged_repr("<obj>"), {},
]  # fmt: skip


def two_attempts(rng: random.Random) -> list[Script]:
    """Four writers over two attempts of one run: ordinals, explicit steps in any order, duplicates, every kind."""
    main = Script(writer_id(1), "a1", BORN_US).start()
    fork = Script(writer_id(2), "a1", BORN_US, "fork").start()
    again = Script(writer_id(3), "a2", BORN_US + 50_000_000).start(tags=["t2"])
    courier = Script(writer_id(4), "a2", BORN_US + 50_000_000, "courier").start()
    for script in (main, fork, again):
        clock = script.start_us
        for ordinal in range(rng.randrange(15, 40)):
            clock += rng.choice((0, 1, 1000, 250_000))
            body: dict[Any, Any] = {"loss": rng.random(), "epoch": ordinal // 10}
            if rng.random() < 0.5:
                body["mixed"] = rng.choice(VALUES)
            if rng.random() < 0.2:
                body[f"rare/{rng.randrange(4)}"] = rng.random()
            if rng.random() < 0.3:
                # The second attempt supersedes what the first has from about step 20 on.
                script.row(rng.randrange(20 if script is again else -5, 60), body, clock, records.ROW)
            else:
                script.row(ordinal, body, clock)
            _aside(rng, script, clock)
    main.add(records.EXIT, BORN_US + 40_000_000, 0, {"state": "failed", "exit_code": 1, "cause": "ValueError"})
    courier.add(records.EXIT, BORN_US + 90_000_000, 0, {"state": "crashed", "exit_code": None, "cause": "signal 9"})
    for tick in range(10):
        courier.row(0, {"cpu": rng.random(), "gpu.0.mem": tick}, BORN_US + 50_000_000 + tick * 1000, records.SYSTEM)
    again.add(records.EXIT, BORN_US + 80_000_000, 0, {"state": "finished", "exit_code": 0, "cause": None})
    return [main, fork, again, courier]


def _aside(rng: random.Random, script: Script, clock: int) -> None:
    """Now and then a record that is not a row."""
    dice = rng.random()
    if dice < 0.06:
        script.add(records.CONFIG, clock, 0, {rng.choice("ab"): rng.choice(VALUES), "c.d": rng.randrange(9)})
    elif dice < 0.12:
        path = rng.choice(("loss", "best", "best.at", "mixed", "new.inner"))
        body = {"set": {path: rng.choice(VALUES)}} if rng.random() < 0.7 else {"del": [path]}
        script.add(records.SUMMARY, clock, 0, body)
    elif dice < 0.15:
        script.add(records.META, clock, 0, {"git": {"commit": str(rng.random())}})
    elif dice < 0.18:
        script.add(records.UPDATE, clock, 0, {"name": f"renamed {rng.random()}", "notes": "n"})
    elif dice < 0.20:
        script.add(77, clock, 0, {"from": "the future"})
    elif dice < 0.22:
        script.written.append(b"\xc1 not msgpack")


def cut(script: Script, rng: random.Random) -> list[Batch]:
    """The writer's records as batches cut at random; one of them is a loss."""
    batches: list[Batch] = []
    seq = 1
    while seq <= len(script.written):
        count = min(rng.choice((1, 2, 5, 100)), len(script.written) + 1 - seq)
        batches.append(script.batch(seq, count))
        seq += count
    batches.append(Batch(script.writer_id, script.project, script.run_id, seq, 7, b"", "full"))
    return batches


def interleave(queues: list[list[Batch]], rng: random.Random) -> list[Batch]:
    """All batches in some order that keeps each writer's."""
    left = [list(q) for q in queues]
    result: list[Batch] = []
    while any(left):
        queue = rng.choice([q for q in left if q])
        result.append(queue.pop(0))
    return result
