"""Handing durable records to the next hop: one `Route` per upstream, each with its own cursor over the log.

`delivery` is pure and decides what is sent; `local` and `remote` are the two kinds of next hop; `route` drives them.
"""
