from trackd.courier.pace import LONG_S, SHORT_S, Pace


def test_the_first_second_of_a_lane_is_watched_closely() -> None:
    pace = Pace()
    pace.begin(100.0)
    assert [pace.rest_s(0, now, is_awaited=False) for now in (100.0, 100.5, 100.99)] == [SHORT_S] * 3


def test_a_calm_lane_is_looked_at_seldom_and_a_flood_at_once() -> None:
    pace = Pace()
    rests = [pace.rest_s(1000, 10.0 + i, is_awaited=False) for i in range(10)]
    assert rests == sorted(rests)
    assert rests[-1] == LONG_S
    assert pace.rest_s(10_000_000, 30.0, is_awaited=False) == SHORT_S


def test_what_comes_between_two_rounds_is_less_than_half_of_the_smallest_chunk() -> None:
    for rate in (1_000_000, 5_000_000, 20_000_000, 60_000_000):  # bytes per second
        pace, sent = Pace(), 0.0
        for i in range(50):
            sent = rate * pace.rest_s(int(sent), 10.0 + i, is_awaited=False)
        assert sent <= 512 * 1024


def test_an_end_that_is_waited_for_is_quick() -> None:
    pace = Pace()
    for i in range(10):
        pace.rest_s(0, 10.0 + i, is_awaited=False)
    assert pace.rest_s(0, 30.0, is_awaited=True) == SHORT_S


def test_an_end_that_does_not_come_is_not_polled_for_in_haste() -> None:
    pace = Pace()
    rests = [pace.rest_s(0, 10.0 + i / 10, is_awaited=True) for i in range(60)]
    assert rests[:20] == [SHORT_S] * 20
    assert rests[-1] == LONG_S
    pace.rest_s(0, 20.0, is_awaited=False)
    assert pace.rest_s(0, 21.0, is_awaited=True) == SHORT_S
