"""The values that charts/ray-job gets: pure, from the settings of a run and the profile."""

from __future__ import annotations

import math
from typing import Any

from jobs.cluster.profile import Profile
from jobs.errors import UsageError
from jobs.settings import ScalingSettings, Settings

_PREPROCESS, _TUNE, _PIPELINE = "preprocess", "tune", "pipeline"
_WORK_IN_THE_DRIVER = ("evaluate", _PIPELINE)


def make(job: str, settings: Settings, config_yaml: str, profile: Profile) -> dict[str, Any]:
    """Values of one run; `config_yaml` is the text of `settings`. Raises UsageError for settings no cluster can run."""
    workers = worker_groups(job, settings)
    shared = profile.shared_cluster
    images = {"registry": profile.registry, "tag": profile.tag}
    scaling = settings.scaling
    driver = {"cpus": scaling.cpus_per_worker, "gpus": scaling.gpus_per_worker}
    return {
        "job": job,
        "config": config_yaml,
        "workers": {} if shared else workers,
        # Its own process does the work: on the head it would do without a GPU.
        "driver": driver if job in _WORK_IN_THE_DRIVER else {},
        "sharedCluster": shared or "",
        "serviceAccount": _PREPROCESS if job == _PREPROCESS else "train",
        "retries": 0 if shared else profile.retries,
        "deadlines": {"startSeconds": profile.start_deadline_s},
        "images": {key: value for key, value in images.items() if value},
    } | ({} if shared or job == _PREPROCESS else {"ray": {"workerGroups": {"training": _pod(scaling)}}})


def worker_groups(job: str, settings: Settings) -> dict[str, dict[str, int]]:
    """Fewest and most pods, which are machines, of the worker group that a job uses."""
    count = settings.scaling.workers
    if count < 1:
        raise UsageError(
            "scaling.workers=0 runs in the process that starts the job, which on a cluster is the head without GPU; "
            "set scaling.workers to 1 or more"
        )
    if job == _PREPROCESS:
        return {"preprocessing": {"min": 1, "max": count}}
    if job == _TUNE or (job == _PIPELINE and settings.release.tune):  # each worker trains a trial
        count *= settings.tune.max_concurrent
    if job == _PIPELINE:  # its driver, which evaluates, holds one worker's share while the others train
        count += 1
    share = settings.scaling.gpus_per_worker
    pods = math.ceil(count / math.floor(1 / share)) if 0 < share < 1 else count
    return {"training": {"min": pods, "max": pods}}


def _pod(scaling: ScalingSettings) -> dict[str, Any]:
    """One pod takes what one worker takes; workers with a part of a GPU share one."""
    share = scaling.gpus_per_worker
    together = math.floor(1 / share) if 0 < share < 1 else 1
    return {"cpu": f"{scaling.cpus_per_worker * together:g}", "gpus": math.ceil(share)}
