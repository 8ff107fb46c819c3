import math
import random

import pytest
import torch

from spelldown.training.learning.schedule import (
    ConstantRate,
    CosineRate,
    NoamRate,
    OneCycleRate,
    PlateauRate,
    Schedule,
    build_schedule,
)


def factors(schedule: Schedule, *done: float) -> list[float]:
    return [schedule.factor(each) for each in done]


def test_constant_stays_after_its_warm_up() -> None:
    schedule = build_schedule(ConstantRate(warmup=2), 10)
    assert factors(schedule, 0.5, 1, 2, 9.9) == [0.25, 0.5, 1, 1]
    assert factors(build_schedule(ConstantRate(), 10), 0.001, 9) == [1, 1]


def test_cosine_warms_up_and_falls_to_its_floor_at_the_last_epoch() -> None:
    schedule = build_schedule(CosineRate(warmup=2, floor=0.2), 10)
    quarter = 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert factors(schedule, 1, 2, 4, 6, 10) == pytest.approx([0.5, 1, quarter, 0.6, 0.2])


def test_one_cycle_rises_and_falls_once() -> None:
    schedule = build_schedule(OneCycleRate(peak=0.25, start=0.1, end=0.02), 8)
    assert factors(schedule, 0, 1, 2, 5, 8) == pytest.approx([0.1, 0.55, 1, 0.51, 0.02])


def test_one_cycle_is_torchs_when_asked_at_its_steps() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2.0, total_steps=101, pct_start=0.305, cycle_momentum=False
    )
    ours = build_schedule(OneCycleRate(peak=0.29805), 100)  # torch's peak is a step earlier
    for step in range(101):
        peak, place = 0.305 * 101 - 1, float(step)
        if place > peak:  # and it reckons the fall from there
            share = (place - peak) / (100 - peak)
            place = 29.805 + share * (100 - 29.805)
        assert 2 * ours.factor(place) == pytest.approx(theirs.get_last_lr()[0], rel=1e-4)
        optimizer.step()
        if step < 100:
            theirs.step()


def test_noam_is_highest_at_its_warm_ups_end_and_falls_with_the_root_of_time() -> None:
    schedule = build_schedule(NoamRate(warmup=4), 100)
    assert factors(schedule, 1, 4, 16, 64) == pytest.approx([0.25, 1, 0.5, 0.25])


def test_plateau_halves_the_rate_after_its_patience() -> None:
    schedule = build_schedule(PlateauRate(factor=0.5, patience=2), 100)
    seen = []
    for value in (10, 9, 9, 9, 9, 8, 8, 8, 8, 8, 8, 8):
        schedule.validated(value)
        seen.append(schedule.factor(1.0))
    assert seen == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_plateau_does_what_torchs_does() -> None:
    draw = random.Random(7)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    ours = build_schedule(PlateauRate(), 150)
    value = 100.0
    for _ in range(150):
        value = min(value, 100) * draw.choice([0.99, 1.0, 1.02, 0.99995])
        theirs.step(value)
        ours.validated(value)
        assert ours.factor(1.0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
    assert ours.factor(1.0) < 0.1


def test_a_plateau_remembers_across_a_resumption() -> None:
    unbroken = build_schedule(PlateauRate(patience=1), 9)
    values = [5.0, 5, 5, 4, 4, 4, 4]
    for value in values[:4]:
        unbroken.validated(value)
    resumed = build_schedule(PlateauRate(patience=1), 9)
    resumed.load_state_dict(unbroken.state_dict())
    for value in values[4:]:
        for schedule in (unbroken, resumed):
            schedule.validated(value)
        assert resumed.factor(5) == unbroken.factor(5)
