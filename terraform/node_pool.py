"""One node pool of an environment file, and its expansion into what the cloud and the autoscaler must be told."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from terraform.documents import Model
from terraform.versions import InstanceType, Prices

Capacity = Literal["on-demand", "spot", "capacity-block"]


@dataclass(frozen=True)
class Workload:
    """What runs on a pool decides its label, its taint and where its capacity comes from unless the pool says so."""

    node_type: str
    gpu: bool
    capacity: Capacity


# Labels and taints are the ones the charts' worker groups select (seed, section "worker groups").
WORKLOADS = {
    "system": Workload("system", gpu=False, capacity="on-demand"),
    "training": Workload("gpu-training", gpu=True, capacity="spot"),
    "preprocessing": Workload("cpu-preprocessing", gpu=False, capacity="spot"),
    "inference": Workload("gpu-inference", gpu=True, capacity="on-demand"),
}


class NodePool(Model):
    """A managed node group. Field order matters: later fields are checked against earlier ones."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*[a-z0-9]$", max_length=24, description="pool name, unique")
    workload: Literal["system", "training", "preprocessing", "inference"] = Field(description="what runs on it")
    capacity: Capacity | None = Field(default=None, description="where nodes come from; none: the workload's default")
    instance_types: list[str] = Field(min_length=1, description="instance types, keys of terraform/prices.yaml")
    min: int = Field(default=0, ge=0, le=450, description="fewest nodes; 0 scales from zero")
    max: int = Field(ge=1, le=450, description="most nodes")
    desired: int | None = Field(
        default=None, ge=0, description="nodes at creation, min if not said; then the autoscaler's"
    )
    disk_gib: int = Field(default=100, ge=20, le=16384, description="root volume, GiB; images of 10 GiB are common")
    ami_release: str | None = Field(
        default=None, pattern=r"^\d+\.\d+\.\d+-\d{8}$", description="AL2023 image release; none: versions.yaml's"
    )
    zones: list[str] | None = Field(default=None, min_length=1, description="zone letters; none: all of the network's")
    efa: bool = Field(default=False, description="EFA network cards and a placement group; one zone")
    capacity_reservation_id: str | None = Field(
        default=None,
        validate_default=True,
        pattern=r"^cr-[0-9a-f]{17}$",
        description="the capacity block's reservation",
    )

    @field_validator("instance_types")
    @classmethod
    def _shapes(cls, names: list[str], info: ValidationInfo) -> list[str]:
        prices: Prices = (info.context or {})["prices"]
        for name in names:
            if name not in prices.instances:
                raise ValueError(f"{name!r} is not in terraform/prices.yaml; add its row (shape and price) there")
        workload = info.data.get("workload")
        if workload is None:
            return names
        for name in names:
            gpus = prices.instances[name].gpus
            if WORKLOADS[workload].gpu and not gpus:
                raise ValueError(f"{name!r} has no GPU, but workload {workload!r} needs one; for example g6.xlarge")
            if gpus and not WORKLOADS[workload].gpu:
                raise ValueError(f"{name!r} has GPUs, which workload {workload!r} would leave idle")
        if len({prices.instances[name].gpus for name in names}) > 1:
            raise ValueError("the types have different numbers of GPUs; the autoscaler needs one number per pool")
        if info.data.get("capacity") == "capacity-block" and len(names) > 1:
            raise ValueError("a capacity block reserves one instance type; name exactly that one")
        return names

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("min", 0):
            raise ValueError(f"{maximum} is below min {info.data['min']}")
        return maximum

    @field_validator("desired")
    @classmethod
    def _within(cls, desired: int | None, info: ValidationInfo) -> int | None:
        low, high = info.data.get("min"), info.data.get("max")
        if desired is not None and low is not None and high is not None and not low <= desired <= high:
            raise ValueError(f"{desired} is outside min {low} to max {high}")
        return desired

    @field_validator("efa")
    @classmethod
    def _efa_capable(cls, efa: bool, info: ValidationInfo) -> bool:
        prices: Prices = (info.context or {})["prices"]
        names = info.data.get("instance_types", [])
        if efa and len({prices.instances[name].efa_interfaces for name in names} | {0}) != 2:
            raise ValueError(f"{', '.join(names)}: types with the same number of EFA cards are needed")
        if efa and any(prices.instances[name].efa_interfaces == 0 for name in names):
            raise ValueError(f"{', '.join(names)}: every type must have EFA cards")
        if efa and len(info.data.get("zones") or ()) != 1:
            raise ValueError("zones: EFA traffic stays in one zone; name exactly one, such as zones: [a]")
        return efa

    @field_validator("capacity_reservation_id", mode="after")
    @classmethod
    def _reserved(cls, reservation: str | None, info: ValidationInfo) -> str | None:
        block = info.data.get("capacity") == "capacity-block"
        if reservation and not block:
            raise ValueError("only a pool with capacity: capacity-block uses a reservation")
        if block and not reservation:
            raise ValueError("capacity: capacity-block needs the reservation's id, such as cr-0123456789abcdef0")
        if block and len(info.data.get("zones") or ()) != 1:
            raise ValueError("zones: a capacity block is in one zone; name exactly that one")
        return reservation


@dataclass(frozen=True)
class PoolPlan:
    """A pool with every default resolved: all that the node group, its launch template and its tags need."""

    name: str
    capacity: Capacity
    ami_type: Literal["AL2023_x86_64_STANDARD", "AL2023_x86_64_NVIDIA"]
    ami_release: str
    instance_types: tuple[str, ...]
    minimum: int
    maximum: int
    desired: int
    disk_gib: int
    zones: tuple[str, ...]
    labels: dict[str, str]
    taint: str | None
    """Taint key; its value is "true" and its effect NoSchedule."""
    gpus: int
    efa_interfaces: int
    capacity_reservation_id: str | None

    def autoscaler_tags(self, cluster: str) -> dict[str, str]:
        """Tags by which cluster-autoscaler finds the group, and knows a node's shape while the group has none.

        Source: cluster-autoscaler's AWS README, "Auto-discovery setup" and "Scaling a node group to 0".
        """
        template = "k8s.io/cluster-autoscaler/node-template"
        tags = {"k8s.io/cluster-autoscaler/enabled": "true", f"k8s.io/cluster-autoscaler/{cluster}": "owned"}
        tags |= {f"{template}/label/{key}": value for key, value in self.labels.items()}
        if self.taint:
            tags[f"{template}/taint/{self.taint}"] = "true:NoSchedule"
        if self.gpus:
            tags[f"{template}/resources/nvidia.com/gpu"] = str(self.gpus)
        if self.efa_interfaces:
            tags[f"{template}/resources/vpc.amazonaws.com/efa"] = str(self.efa_interfaces)
        return tags | {f"{template}/resources/ephemeral-storage": f"{self.disk_gib}Gi"}


def plan_pool(pool: NodePool, prices: Prices, ami_release: str, zones: tuple[str, ...]) -> PoolPlan:
    """Expand `pool`: `ami_release` is the default image release, `zones` the letters of the network's zones."""
    workload = WORKLOADS[pool.workload]
    shape: InstanceType = prices.instances[pool.instance_types[0]]
    labels = {"node-type": workload.node_type}
    if shape.gpu:
        # The autoscaler waits for GPUs to be ready on nodes with this label instead of adding more nodes.
        models = {prices.instances[name].gpu for name in pool.instance_types}
        labels["k8s.amazonaws.com/accelerator"] = shape.gpu if len(models) == 1 else "nvidia-mixed"
    return PoolPlan(
        name=pool.name,
        capacity=pool.capacity or workload.capacity,
        ami_type="AL2023_x86_64_NVIDIA" if workload.gpu else "AL2023_x86_64_STANDARD",
        ami_release=pool.ami_release or ami_release,
        instance_types=tuple(pool.instance_types),
        minimum=pool.min,
        maximum=pool.max,
        desired=pool.min if pool.desired is None else pool.desired,
        disk_gib=pool.disk_gib,
        zones=tuple(pool.zones or zones),
        labels=labels,
        taint=workload.node_type if workload.gpu else None,
        gpus=shape.gpus,
        efa_interfaces=shape.efa_interfaces if pool.efa else 0,
        capacity_reservation_id=pool.capacity_reservation_id,
    )
