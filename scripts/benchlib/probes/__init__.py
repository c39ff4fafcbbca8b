"""Each module is one measurement: `probe(tool, …)` runs in the environment of `tool` and returns JSON."""
