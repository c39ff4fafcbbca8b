"""The read side: `trackd.Api()` finds runs and reads what was logged, exactly.

api = trackd.Api()
for run in api.runs("digits", filters='config.lr < 0.1 and state = finished'):
    print(run.name, run.summary["accuracy"])
frame = api.run("digits/3xk1v9qa").history(samples=500)
"""

from trackd.api.client import Api, Project, Runs
from trackd.api.run import Attempt, Run

__all__ = ["Api", "Attempt", "Project", "Run", "Runs"]
