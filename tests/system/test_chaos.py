"""A daemon that is killed over and over is nothing that a training run notices; long form: scripts/torture chaos."""

from pathlib import Path

from support import chaos


def test_trainers_neither_notice_nor_lose_anything(trackd_home: Path) -> None:
    outcome = chaos.storm(trackd_home, seconds=4.0, interval_s=1.0)
    assert outcome.kills >= 2
    assert outcome.incarnations > outcome.kills, "it came back each time"
    for trainer in outcome.trainers:
        assert trainer.exit_code == 0, trainer.warnings
        assert len(trainer.warnings) <= 10, trainer.warnings
        assert trainer.logged > 100
        assert (trainer.held, trainer.wrong) == (trainer.logged, 0)
        assert trainer.took_s < 4.0 + 10.0
