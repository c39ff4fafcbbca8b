"""`python -m benchlib.probe NAME JSON`: one probe in this process; its answer is the last line of stdout."""

import importlib
import json
import sys

MARK = "BENCH-RESULT "


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    result = importlib.import_module(f"benchlib.probes.{name}").probe(**arguments)
    sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
