from collections.abc import Sequence

import pytest
from pydantic import TypeAdapter, ValidationError

from spelldown.model.spelling.speller import Feedback
from spelldown.training.learning.teacher_forcing import (
    AfterAlignmentForcing,
    ConstantForcing,
    Judged,
    LinearForcing,
    RuleAForcing,
    RuleBForcing,
    StagedForcing,
    TeacherForcingSettings,
    build_teacher_forcing,
    feedback_at,
)


def rates(
    settings: TeacherForcingSettings,
    epochs: int,
    distances: Sequence[float] = (),
    improved: Sequence[bool] = (),
    aligned: Sequence[bool] = (),
) -> list[float]:
    """The rate of each epoch, resumed from its state after every one of them."""
    forcing, found = build_teacher_forcing(settings), []
    for epoch in range(1, epochs + 1):
        found.append(forcing.rate_in(epoch))
        forcing.validated(
            Judged(
                epoch,
                distances[epoch - 1] if distances else 100.0,
                improved[epoch - 1] if improved else True,
                aligned[epoch - 1] if aligned else False,
            )
        )
        resumed = build_teacher_forcing(settings)
        resumed.load_state_dict(forcing.state_dict())
        forcing = resumed
    return found


def test_constant_stays() -> None:
    assert rates(ConstantForcing(rate=0.9), 3) == [0.9, 0.9, 0.9]


def test_linear_falls_evenly() -> None:
    settings = LinearForcing(start=1, end=0.6, first_epoch=2, last_epoch=6)
    assert rates(settings, 8) == pytest.approx([1, 1, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6])


def test_stages_begin_at_their_epochs() -> None:
    settings = StagedForcing(stages={5: 0.8, 3: 0.9})
    assert rates(settings, 7) == [1, 1, 0.9, 0.9, 0.8, 0.8, 0.8]


def test_stages_without_epochs_begin_at_plateaus() -> None:
    settings = StagedForcing(stages=(1.0, 0.8, 0.7), patience=2)
    improved = [True, False, False, True, False, True, False, False, False, False]
    found = rates(settings, 10, improved=improved)
    #       1       2    3(*) 4    5    6    7    8(*) 9    10
    assert found == [1.0, 1.0, 1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7, 0.7]


def test_after_alignment_stays_at_1_until_aligned_and_then_falls_in_stages_to_its_floor() -> None:
    settings = AfterAlignmentForcing(step=0.2, every=2, floor=0.5)
    aligned = [False, False, True, True, True, False, True, True, True, True]
    #             1    2    3    4    5    6    7    8    9    10
    assert rates(settings, 10, aligned=aligned) == pytest.approx(
        [1.0, 1.0, 1.0, 0.8, 0.8, 0.6, 0.6, 0.6, 0.5, 0.5]
    )


def test_rule_a_as_typed_falls_every_epoch_and_rounding_takes_it_to_point_3() -> None:
    found = rates(RuleAForcing(reading="as-typed"), 100)
    assert found[:9] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3])
    assert found[6] > 0.4  # which is why it fell once more
    assert set(found[7:]) == {found[7]}


def test_rule_a_in_the_plain_reading_falls_every_20_epochs_for_80_epochs() -> None:
    found = rates(RuleAForcing(reading="plain"), 120)
    assert found == [1.0] * 20 + [0.9] * 20 + [0.8] * 20 + [0.7] * 20 + [0.6] * 40


def test_rule_b_as_typed_has_a_floor_for_late_epochs_but_none_for_good_distances() -> None:
    late = rates(RuleBForcing(reading="as-typed"), 70, distances=[40.0] * 70)
    assert late[:22] == [1.0] * 22  # the seed's epoch 21 is our 22nd, and tells the 23rd
    assert late[22:25] == pytest.approx([0.985, 0.970225, 0.955671625])
    assert late[55] == pytest.approx(0.985**34) and late[54] > 0.6 > late[55]
    assert late[69] == late[55]
    good = rates(RuleBForcing(reading="as-typed"), 101, distances=[40.0] + [29.0] * 100)
    assert good[:3] == pytest.approx([1.0, 1.0, 0.985])
    assert good[100] == pytest.approx(0.985**99)  # 0.22


def test_rule_b_in_the_plain_reading_has_its_floor_for_both() -> None:
    late = rates(RuleBForcing(reading="plain"), 70, distances=[40.0] * 70)
    assert late == rates(RuleBForcing(reading="as-typed"), 70, distances=[40.0] * 70)
    good = rates(RuleBForcing(reading="plain"), 101, distances=[40.0] + [29.0] * 100)
    assert good[100] == good[40] == pytest.approx(0.985**34)


def test_the_seeds_rules_toss_one_coin_a_batch_and_name_their_reading() -> None:
    settings = RuleBForcing(reading="plain", feedback="sample", temperature=0.5)
    assert feedback_at(settings, 0.7) == Feedback(0.7, "batch", "sample", 0.5)
    with pytest.raises(ValidationError, match="reading"):
        TypeAdapter[TeacherForcingSettings](TeacherForcingSettings).validate_python(
            {"kind": "rule-a"}
        )


def test_stages_may_be_written_by_epoch_or_as_a_list() -> None:
    adapter = TypeAdapter[TeacherForcingSettings](TeacherForcingSettings)
    for stages in ({"1": 1.0, "20": 0.9}, [1.0, 0.9]):
        found = adapter.validate_python({"kind": "staged", "stages": stages})
        again = adapter.validate_python(adapter.dump_python(found, mode="json"))
        assert again == found
    with pytest.raises(ValidationError, match="at least one rate"):
        adapter.validate_python({"kind": "staged", "stages": []})
