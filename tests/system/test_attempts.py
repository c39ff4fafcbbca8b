"""A run that is killed and begun again on several machines, one of them without a network: two homes, one hub."""

import json
from pathlib import Path

import pytest
from support import processes, scripts
from support.serving import free_port, ready, serving, wait_for
from trackd_proto.local import instance, places

TRAINER = """
import json, os, signal, sys, trackd
begin, end, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
run = trackd.init(project="p", dir=".", **json.loads(sys.argv[4]))
print(run.id, run.resumed, run.step, run.config.get("lr"), flush=True)
for step in range(begin, end):
    run.log({"loss": step + begin / 1000}, step=step if how != "steps" else None)
run.flush(durable=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
run.finish(wait_s=30)
"""
ATTEMPTS = """
import json, sys, trackd
run = trackd.Api().run(sys.argv[1])
listed = [(a.number, a.first_step, a.last_step, a.superseded_from, a.from_run, a.from_step) for a in run.attempts]
own = [[row["loss"] for row in run.scan_history(attempt=a.number)] for a in run.attempts]
print(json.dumps({"listed": listed, "own": own, "cause": run.cause, "last_step": run.last_step}))
"""


class Machine:
    """A home with an agent of its own; its data go to the hub."""

    def __init__(self, home: Path, route: str, cookie: Path) -> None:
        self.home = home
        self._environ = {
            "TRACKD_HOME": str(home), "TRACKD_UPSTREAM": route, "TRACKD_UPSTREAM_COOKIE": str(cookie),
        }  # fmt: skip

    def train(self, begin: int, end: int, how: str = "finished", *, code: int | None = None, **init: object) -> str:
        """What the trainer says of itself."""
        expected = (-9 if how == "killed" else 0) if code is None else code
        arguments = (str(begin), str(end), how, json.dumps(init))
        done = scripts.python(TRAINER, *arguments, cwd=self.home, code=expected, **self._environ)
        return done.stdout.strip() if expected == (code or 0) and not code else done.stdout.strip() + done.stderr

    def trackd(self, *words: str, code: int = 0) -> str:
        return scripts.trackd(*words, cwd=self.home, code=code, **self._environ)

    def attempts(self, path: str) -> dict[str, object]:
        """What trackd.Api() says of the run's attempts."""
        found: dict[str, object] = json.loads(scripts.python(ATTEMPTS, path, cwd=self.home, **self._environ).stdout)
        return found

    def curve(self, path: str) -> list[tuple[int, float]]:
        return [(row["_step"], row["loss"]) for row in scripts.read(path, self.home, **self._environ)["rows"]]


def rows(*parts: tuple[int, int]) -> list[tuple[int, float]]:
    """The rows that attempts logged: each from a step up to another; the value tells the attempt's first step."""
    return [(step, step + begin / 1000) for begin, part in [(part[0], part) for part in parts] for step in range(*part)]


@pytest.mark.timeout(240)
def test_three_restarts_on_two_machines_one_offline(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("hub", "one", "two")]
    for home in homes:
        home.mkdir(mode=0o700)
    there, route = places.instance(homes[0]), f"127.0.0.1:{free_port()}"
    instance.load_cookie(there)
    one, two = (Machine(home, route, there.cookie) for home in homes[1:])
    try:
        with serving(homes[0], "--role", "hub", "--listen", route):
            wait_for(lambda: ready(there), "hub")
            run = {"id": "r", "resume": "allow"}
            one.train(0, 90, "killed", **run, config={"lr": 0.1})
            two.train(60, 110, "killed", **run, mode="offline")
            one.train(80, 100, "killed", **run)
            one.trackd("flush", "--all", "--wait", "60")
            # What machine two has is not there yet: one curve of what is.
            assert one.curve("p/r") == [*rows((0, 90))[:80], *rows((80, 100))]
            assert two.train(0, 0, resume_from="r?_step=89").split()[:4] == ["r", "True", "90", "0.1"]
            two.train(90, 120, **run)
            # The home itself: online runs, the agent's log and its store's files lie beside the offline run.
            assert "of offline runs" in two.trackd("flush", ".", "--wait", "60")
            two.trackd("flush", "--all", "--wait", "60")
            curve = [*rows((0, 90))[:60], *rows((60, 110))[:20], *rows((80, 100))[:10], *rows((90, 120))]
            assert one.curve("p/r") == curve, "the offline attempt came last and stands where it belongs"
            told = one.attempts("p/r")
            assert told["listed"] == [
                [1, 0, 89, 60, None, None], [2, 60, 109, 80, None, None], [3, 80, 99, 90, None, None],
                [4, None, None, None, None, 89], [5, 90, 119, None, None, None],
            ]  # fmt: skip
            spans = [(0, 90), (60, 110), (80, 100), (0, 0), (90, 120)]
            assert told["own"] == [[value for _, value in rows(span)] for span in spans], "every attempt stays readable"
            assert told["last_step"] == 119 and told["cause"] is None
            for machine in (one, two):
                assert json.loads(machine.trackd("verify", "p/r", "--json"))["ok"]

            # Forks: online with the parent's config, and offline of one that is itself sent later.
            said = one.train(101, 105, "steps", id="f", fork_from="r?_step=100")
            assert said.split()[:4] == ["f", "False", "101", "0.1"]
            assert one.curve("p/f")[:101] == curve[:101] and [step for step, _ in one.curve("p/f")[101:]] == [
                101, 102, 103, 104,
            ]  # fmt: skip
            assert one.trackd("verify", "p/f")
            refused = one.train(0, 1, id="f", fork_from="r?_step=5", code=1)
            assert "ResumeError" in refused and "p/f already" in refused
            two.train(0, 10, id="late", mode="offline")
            two.train(5, 8, id="g", fork_from="late?_step=4", mode="offline")
            (of_g,) = two.home.glob("trackd-runs/*-g")
            (of_late,) = two.home.glob("trackd-runs/*-late")
            report = json.loads(two.trackd("flush", str(of_g), "--json", "--wait", "60"))
            assert report["committed"] and "has no run p/late yet" in report["conflicts"][0]
            assert two.curve("p/g") == rows((5, 8))
            assert "nothing of that run" in two.trackd("verify", "p/g", code=1)
            assert json.loads(two.trackd("flush", str(of_late), "--json", "--wait", "60"))["conflicts"] == []
            assert two.curve("p/g") == [*rows((0, 10))[:5], *rows((5, 8))]
            assert two.trackd("verify", "p/g")
    finally:
        leaks = [leak for home in homes for leak in processes.stop_home(home)]
    assert not leaks, leaks
