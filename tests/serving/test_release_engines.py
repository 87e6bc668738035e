"""The pipeline's A/B test on real engines: both variants in one application of Ray Serve, behind the gateway."""

import time
from pathlib import Path

import pytest
from rows import jsonl

from jobs import models as base_models
from jobs import settings
from jobs.registry.versions import CHALLENGER, CHAMPION
from jobs.release import gateway
from jobs.release.local import LocalServing, LocalTrial, RayEngines
from jobs.runs import Run
from jobs.storage import Storage

PATIENCE_S = 120


def served(trial: LocalTrial) -> set[str]:
    return {variant.name for variant in gateway.read(trial.file).models["haetsal"].variants}


@pytest.mark.long
def test_users_are_answered_by_both_and_then_by_the_champion_alone(
    models: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, adapters = models
    pairs = ((f"{number} 다음 수는?", f"{number + 1}입니다.") for number in range(20))
    rows = [[{"role": "user", "content": asked}, {"role": "assistant", "content": told}] for asked, told in pairs]
    data = jsonl(tmp_path / "rows.jsonl", *({"messages": turns} for turns in rows))
    tree = settings.from_tree(
        {
            "model": {"source": str(base)},
            "data": {"source": str(data), "held_out": 0.5},
            "storage": {"root": str(tmp_path / "out")},
            "ab": {"simulated_users": 4, "answer_tokens": 4},
        },
        "test",
    )

    def trained(adapter: str) -> Run:
        made = Run.create(Storage(tree.storage.root), "train", settings.to_yaml(tree))
        made.publish(adapters[adapter], "model")
        made.finish({"base_model_sha256": base_models.identity(base)})
        return made

    with LocalServing(tree, RayEngines(tree)).trial(trained("one"), trained("two")) as trial:
        trial.share(0.5)
        seen = []
        deadline_s = time.monotonic() + PATIENCE_S
        while min(sum(one.is_challenger for one in seen), sum(not one.is_challenger for one in seen)) < 10:
            assert time.monotonic() < deadline_s, seen
            time.sleep(0.1)
            seen += trial.observed()
        assert not any(one.failed for one in seen)
        assert {one.answer_tokens for one in seen} == {4}
        assert served(trial) == {CHAMPION, CHALLENGER}
        trial.share(0.0)
        assert served(trial) == {CHAMPION}
