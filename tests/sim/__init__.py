"""One seed, one history: the real spool, courier, log, delivery and admission code under every fault, checked at each
step. `scripts/torture-sim --seed N` replays a seed."""
