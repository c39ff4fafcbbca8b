"""What SDK, courier and daemon share: wire messages, byte formats, limits, and where things lie.

Everything but `v1` (generated, needs protobuf) and `local` (finds and starts the daemon) is pure:
bytes and values in, bytes and values out.
"""
