"""One seed, one history: the real spool, courier, log, delivery and admission code under every fault, checked at each
step. `python -m sim --help` (with `PYTHONPATH=tests`) replays a seed."""
