"""The agent's write-ahead log: what was received, in order, and how much of it the hub has committed.

`frames`, `state` and `quota` are pure; `files` touches the disk; `log` runs them in one thread; `reader` gives the
upload what is durable. Byte format: `trackd_proto.segment`.
"""
