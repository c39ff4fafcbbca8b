"""When records come in so fast that showing them has to wait."""

from trackd_daemon.ingest.pressure import HIGH_BYTES_PER_S, Pressure


def test_a_steady_rate_below_the_limit_is_no_pressure() -> None:
    pressure = Pressure()
    for tick in range(1000):
        pressure.add(tick / 100, HIGH_BYTES_PER_S // 200)
        assert not pressure.is_high(tick / 100)


def test_a_rate_above_the_limit_is_pressure_and_passes() -> None:
    pressure = Pressure()
    for tick in range(100):
        pressure.add(tick / 100, HIGH_BYTES_PER_S // 50)
    assert pressure.is_high(1.0)
    assert not pressure.is_high(1.3)


def test_one_large_request_passes_at_once() -> None:
    pressure = Pressure()
    pressure.add(0.0, HIGH_BYTES_PER_S // 10)
    assert not pressure.is_high(0.0)
