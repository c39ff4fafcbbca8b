"""The bench: trackd and its peers doing the same work, each measurement in a fresh process.

`probes/` runs inside the tool's own environment and knows only the adapters; `measures.py` says which probes make up
the table; `runner.py` starts them; `table.py` prints what came out.
"""
