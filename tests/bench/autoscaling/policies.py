"""What is compared: static provisioning, the policy of the guide that the project began with, and the chart's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import yaml

from jobs.serving.settings import ServingSettings
from terraform.versions import ROOT, load_prices
from tests.bench.autoscaling.group import Pool, Scaling
from tests.bench.autoscaling.serving import Serve

INSTANCES = {"training": "g6.2xlarge", "preprocessing": "m6i.2xlarge", "inference": "g6.xlarge"}
"""One worker fills one node: the first type of terraform/environments/dev.yaml's pools."""

MOST = {"training": 32, "preprocessing": 20, "inference": 10}
"""Workers that prod.yaml's pools hold: 8 nodes of 4 GPUs, 10 nodes of 16 cores, 10 nodes of one GPU."""

SPOT_SHARE = 0.5
"""Spot price over on-demand price. An assumption: spot prices move, AWS names no more than "up to 90 % less"."""

SPOT_INTERRUPTIONS_PER_HOUR = 0.01
"""Of a spot node. An assumption: AWS's advisor has its worst class begin at 20 % a month, which is 0.0003."""

SPEED = {"Conservative": 1.0, "Default": 1000.0, "Aggressive": 1000.0}
"""KubeRay's upscalingMode as upscaling_speed (ray/autoscaler/_private/kuberay/autoscaling_config.py)."""


def pool(group: str, spot: bool = False) -> Pool:
    """The node group of a worker group; boot times are assumptions, see the README beside this file."""
    return Pool(
        boot_s=100.0 if group == "preprocessing" else 180.0,
        interruptions_per_hour=SPOT_INTERRUPTIONS_PER_HOUR if spot else 0.0,
    )


def usd_per_hour(group: str, spot: bool = False) -> float:
    """Price of a node of a group, USD per hour."""
    return load_prices().instances[INSTANCES[group]].usd_per_hour * (SPOT_SHARE if spot else 1.0)


@dataclass(frozen=True)
class Policy:
    """How each worker group scales, how serving scales on it, and which groups are on spot nodes."""

    name: str
    groups: dict[str, Scaling]
    serve: Serve
    spot: frozenset[str] = frozenset()


def guide() -> Policy:
    """The guide's: conservative, five minutes idle, warm nodes for training and serving; its Serve settings."""
    scaling = Scaling(minimum=0, maximum=10, idle_s=300)
    return Policy(
        "guide",
        {
            "training": replace(scaling, minimum=1, maximum=20),
            "preprocessing": scaling,
            "inference": replace(scaling, minimum=2, maximum=50),
        },
        Serve(1, 10, 2.0, 30.0, 600.0, 30.0, max_ongoing=5, max_queued=-1),
    )


def ours(spot: bool = True) -> Policy:
    """What the charts and the node groups are set to, read from their files."""
    library = yaml.safe_load((ROOT / "charts/ray-lib/values.yaml").read_text(encoding="utf-8"))
    platform = yaml.safe_load((ROOT / "charts/haetsal/values.yaml").read_text(encoding="utf-8"))
    speed = SPEED[library["autoscaler"]["upscalingMode"]]
    groups = {
        name: Scaling(group["min"], MOST[name], group["idleSeconds"], speed)
        for name, group in library["workerGroups"].items()
    }
    groups["inference"] = replace(groups["inference"], minimum=platform["serving"]["min"])
    application = yaml.safe_load(platform["serving"]["config"])["applications"][0]
    settings = ServingSettings.model_validate(application["args"]["serving"])
    scaling = settings.autoscaling
    serve = Serve(
        scaling.min_replicas,
        MOST["inference"],
        scaling.target_ongoing_requests,
        scaling.upscale_delay_s,
        scaling.downscale_delay_s,
        scaling.look_back_s,
        settings.max_ongoing_requests,
        settings.max_queued_requests,
    )
    jobs_groups = frozenset({"training", "preprocessing"})
    return Policy("ours, jobs on spot" if spot else "ours", groups, serve, jobs_groups if spot else frozenset())


def static(nodes: dict[str, int], serve: Serve) -> Policy:
    """As many nodes of each group, all week; replicas take and queue requests as under `serve`."""
    groups = {name: Scaling(count, count, 0.0) for name, count in nodes.items()}
    replicas = nodes["inference"]
    return Policy("static", groups, replace(serve, min_replicas=replicas, max_replicas=replicas))
