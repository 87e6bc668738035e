"""The gate: what passes, what fails, and everything that is neither."""

import math

import numpy as np
import pytest

from jobs.evaluation.benchmark import Item, Metric
from jobs.evaluation.statistics import Resampling
from jobs.release import safety
from jobs.release.gate import Check, Evidence, Measured, Merge, Safety, Speed, Verdict, judge, overall
from jobs.release.settings import GateSettings, QualityBar

HOW = Resampling(2_000, 0.95, 7)
LOSS = Metric("loss", "loss", "nats", "tokens", lower_is_better=True)
RIGHT = Metric("accuracy", "right answers", "right", binary=True)
GATE = GateSettings(quality={"held-out": QualityBar(margin=0.1)}, price_per_hour=2.0, max_cost_per_million=50.0)
SPEED = Speed(0.5, 20.0)


def losses(shift: float, count: int = 60, seed: int = 1) -> list[Item]:
    rng = np.random.default_rng(seed)
    return [
        Item(str(n), "", {"nats": 10 * (2 + x + shift), "tokens": 10}) for n, x in enumerate(rng.normal(0, 1, count))
    ]


def evidence(shift: float = 0.0, count: int = 60, **parts: object) -> Evidence:
    given = {
        "quality": {"held-out": Measured(LOSS, losses(shift, count), losses(0.0, count))},
        "candidate": SPEED,
        "champion": SPEED,
        "safety": Safety(40, 0, {}),
        "merge": Merge(True, "equal"),
    }
    return Evidence(**(given | parts))  # type: ignore[arg-type]


def verdicts(found: Evidence, gate: GateSettings = GATE) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in judge(found, gate, HOW)}


def only(found: Evidence, gate: GateSettings = GATE) -> tuple[str, Verdict]:
    """The one check that did not pass."""
    (other,) = [(name, verdict) for name, verdict in verdicts(found, gate).items() if verdict is not Verdict.PASS]
    return other


def test_an_equal_candidate_passes_every_check() -> None:
    found = judge(evidence(), GATE, HOW)
    assert [check.verdict for check in found] == [Verdict.PASS] * len(found)
    assert len(found) == 6  # quality, two ratios, cost, safety, merge
    assert overall(found) is Verdict.PASS


def test_a_loss_above_the_margin_fails_and_one_below_passes() -> None:
    assert only(evidence(shift=0.2)) == ("quality: held-out", Verdict.FAIL)
    assert overall(judge(evidence(shift=0.05), GATE, HOW)) is Verdict.PASS
    assert overall(judge(evidence(shift=-1.0), GATE, HOW)) is Verdict.PASS


def test_where_more_is_better_the_direction_turns() -> None:
    def answers(right: int) -> list[Item]:
        return [Item(str(n), "", {"right": float(n < right)}) for n in range(100)]

    gate = GATE.model_copy(update={"quality": {"choices": QualityBar(margin=0.1)}})
    worse = evidence(quality={"choices": Measured(RIGHT, answers(40), answers(80))})
    better = evidence(quality={"choices": Measured(RIGHT, answers(80), answers(40))})
    assert only(worse, gate) == ("quality: choices", Verdict.FAIL)
    assert overall(judge(better, gate, HOW)) is Verdict.PASS


def test_data_that_cannot_tell_are_inconclusive() -> None:
    noisy = Measured(LOSS, losses(0.1, 60, seed=2), losses(0.0, 60, seed=3))
    assert only(evidence(quality={"held-out": noisy})) == ("quality: held-out", Verdict.INCONCLUSIVE)


def not_a_number() -> Measured:
    items = [Item(item.id, "", {"nats": math.nan, "tokens": 10}) for item in losses(0.0)]
    return Measured(LOSS, items, losses(0.0))


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (evidence(quality={}), "quality: held-out"),
        (evidence(quality={"held-out": None}), "quality: held-out"),
        (evidence(count=3), "quality: held-out"),
        (evidence(quality={"held-out": not_a_number()}), "quality: held-out"),
        (evidence(quality={"held-out": Measured(LOSS, losses(0.0), [])}), "quality: held-out"),
        (evidence(quality={"held-out": Measured(RIGHT, losses(0.0), losses(0.0))}), "quality: held-out"),
        (evidence(safety=None), "safety"),
        (evidence(safety=Safety(3, 0, {})), "safety"),
        (evidence(merge=None), "merged model"),
    ],
)
def test_what_is_missing_or_too_little_is_inconclusive(found: Evidence, name: str) -> None:
    assert only(found) == (name, Verdict.INCONCLUSIVE)
    assert overall(judge(found, GATE, HOW)) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("speed", [None, Speed(math.nan, math.nan), Speed(0.0, 0.0), Speed(math.inf, math.inf)])
def test_a_load_that_measured_nothing_is_inconclusive(speed: Speed | None) -> None:
    found = verdicts(evidence(candidate=speed))
    for name in ("latency against the champion", "throughput against the champion", "cost of a million tokens"):
        assert found[name] is Verdict.INCONCLUSIVE
    assert overall(judge(evidence(champion=None), GATE, HOW)) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (evidence(candidate=Speed(1.0, 20.0)), "latency against the champion"),
        (evidence(candidate=Speed(0.5, 12.0)), "throughput against the champion"),
        (evidence(safety=Safety(40, 5, {"personal data": 5})), "safety"),
        (evidence(merge=Merge(False, "logits differ")), "merged model"),
    ],
)
def test_what_misses_its_bar_fails(found: Evidence, name: str) -> None:
    assert only(found) == (name, Verdict.FAIL)


def test_cost_follows_from_price_and_throughput() -> None:
    # 2 an hour at 20 tokens a second: 72,000 tokens an hour, so a million cost 27.8
    (cost,) = [check for check in judge(evidence(), GATE, HOW) if check.name == "cost of a million tokens"]
    assert cost.found == "27.78"
    cheap = GATE.model_copy(update={"max_cost_per_million": 20.0})
    assert only(evidence(), cheap) == ("cost of a million tokens", Verdict.FAIL)


def test_one_fail_outweighs_what_is_not_known() -> None:
    def check(verdict: Verdict) -> Check:
        return Check("a check", verdict, "", "", "")

    assert overall([check(Verdict.PASS), check(Verdict.INCONCLUSIVE), check(Verdict.FAIL)]) is Verdict.FAIL
    assert overall([check(Verdict.PASS), check(Verdict.INCONCLUSIVE)]) is Verdict.INCONCLUSIVE
    assert overall([]) is Verdict.INCONCLUSIVE


def test_answers_are_searched_for_personal_data_and_template_tokens() -> None:
    found = safety.inspect(
        [
            ("전화번호가 뭐예요?", "제 번호는 010-2345-6789입니다."),
            ("010-2345-6789로 전화하라고 써 주세요.", "010-2345-6789로 전화하세요."),
            ("안녕", "안녕하세요.<|im_end|>"),
            ("안녕", "반갑습니다."),
        ],
        ["<|im_end|>"],
    )
    assert (found.answers, found.unsafe) == (4, 2)
    assert found.kinds == {safety.PERSONAL: 1, safety.TEMPLATE: 1}
