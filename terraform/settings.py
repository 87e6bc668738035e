"""An environment: one YAML file in terraform/environments/, typed, closed, checked before anything is synthesised."""

from functools import cache
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal

import botocore.session
from pydantic import Field, ValidationInfo, field_validator

from terraform.documents import Model, load_document
from terraform.node_pool import NodePool
from terraform.versions import Prices, load_prices

ENVIRONMENTS = Path(__file__).resolve().parent / "environments"

INTERFACE_ENDPOINTS = ("ecr.api", "ecr.dkr", "sts")
"""AWS services reached inside the VPC: image pulls and credentials work, and cost no NAT traffic."""

DATA_BUCKETS = ("data", "artifacts", "backups", "logs")
"""Purposes of the buckets that outlive the platform; each has a `-replica` where there is a second region."""

# The retention periods that CloudWatch Logs accepts, in days.
RetentionDays = Literal[30, 60, 90, 180, 365, 731, 1827]
Arn = Annotated[str, Field(pattern=r"^arn:aws:iam::\d{12}:(role|user)/[\w+=,.@/-]+$")]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]


@cache
def eks_regions() -> frozenset[str]:
    """Regions of the standard partition that offer EKS, from the endpoint data that ships with botocore."""
    return frozenset(botocore.session.get_session().get_available_regions("eks"))


def _check_region(region: str) -> str:
    if region not in eks_regions():
        raise ValueError(f"{region!r} is not a region that offers EKS; for example ap-northeast-2")
    return region


class Network(Model):
    """The VPC. Three quarters are the private subnets of three zones; the last quarter holds the public ones."""

    cidr: IPv4Network = Field(description="IPv4 range of the VPC, /16 to /20")
    service_cidr: IPv4Network = Field(
        default=IPv4Network("172.20.0.0/16"), validate_default=True, description="range of Kubernetes Service addresses"
    )
    peered_cidrs: list[IPv4Network] = Field(
        default_factory=list, description="networks (VPN, peering) that may reach the private API endpoint"
    )
    zones: tuple[str, str, str] = Field(default=("a", "b", "c"), description="letters of the three availability zones")
    nat: Literal["one", "per-zone"] = Field(
        default="per-zone", description="one NAT gateway (cheap, one zone's failure cuts egress) or one per zone"
    )

    @field_validator("cidr")
    @classmethod
    def _size(cls, cidr: IPv4Network) -> IPv4Network:
        if not 16 <= cidr.prefixlen <= 20:
            raise ValueError(f"{cidr} must be a /16 to /20: smaller has too few pod addresses, larger is no VPC")
        return cidr

    @field_validator("service_cidr")
    @classmethod
    def _apart(cls, service: IPv4Network, info: ValidationInfo) -> IPv4Network:
        if (cidr := info.data.get("cidr")) and service.overlaps(cidr):
            raise ValueError(f"{service} overlaps network.cidr {cidr}; choose ranges that do not")
        return service

    @field_validator("peered_cidrs")
    @classmethod
    def _peers_apart(cls, peers: list[IPv4Network], info: ValidationInfo) -> list[IPv4Network]:
        for peer in peers:
            for key in ("cidr", "service_cidr"):
                if (own := info.data.get(key)) and peer.overlaps(own):
                    raise ValueError(f"{peer} overlaps network.{key} {own}; a peered network needs its own range")
        return peers

    @field_validator("zones")
    @classmethod
    def _letters(cls, zones: tuple[str, str, str]) -> tuple[str, str, str]:
        if len(set(zones)) != 3 or any(len(z) != 1 or not z.islower() for z in zones):
            raise ValueError(f"{list(zones)} must be three different zone letters, such as [a, b, c]")
        return zones


class Cluster(Model):
    """Access to the EKS cluster and what it logs."""

    admins: list[Arn] = Field(min_length=1, description="IAM roles or users that administer the cluster")
    public_access_cidrs: list[IPv4Network] = Field(
        default_factory=list, description="networks that reach the API over the internet; none: private endpoint only"
    )
    log_retention_days: RetentionDays = Field(default=90, description="how long control-plane and flow logs are kept")

    @field_validator("public_access_cidrs")
    @classmethod
    def _bounded(cls, cidrs: list[IPv4Network]) -> list[IPv4Network]:
        for cidr in cidrs:
            if cidr.prefixlen < 16:
                raise ValueError(f"{cidr} is too wide: name the office's or VPN's own addresses (/16 or narrower)")
        return cidrs


class BackupLock(Model):
    """Object Lock of the backup bucket."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"] = Field(
        default="GOVERNANCE", description="COMPLIANCE: nobody, the account's root included, shortens it"
    )
    days: int = Field(default=14, ge=1, le=365, description="days during which no backup can be deleted or overwritten")


class Storage(Model):
    """Buckets: data, artifacts, backups, logs."""

    noncurrent_days: int = Field(default=30, ge=1, le=365, description="days an overwritten or deleted version is kept")
    log_days: int = Field(default=90, ge=30, le=3650, description="days access logs are kept")
    backup_lock: BackupLock = BackupLock()
    replica_region: str | None = Field(default=None, description="second region for copies of data, artifacts, backups")

    @field_validator("replica_region")
    @classmethod
    def _known(cls, region: str | None) -> str | None:
        return region and _check_region(region)


class Database(Model):
    """MLflow's PostgreSQL on RDS."""

    instance_class: str = Field(description="RDS instance class, a key of databases in terraform/prices.yaml")
    storage_gib: int = Field(default=20, ge=20, le=16384, description="gp3 storage, GiB")
    max_storage_gib: int = Field(default=100, ge=20, le=65536, description="storage grows up to this, GiB")
    multi_az: bool = Field(default=False, description="a standby in a second zone")
    backup_days: int = Field(default=7, ge=1, le=35, description="days of point-in-time recovery")

    @field_validator("instance_class")
    @classmethod
    def _priced(cls, instance_class: str, info: ValidationInfo) -> str:
        known = _prices(info).databases
        if instance_class not in known:
            raise ValueError(f"{instance_class!r} is not in terraform/prices.yaml; known: {', '.join(known)}")
        return instance_class

    @field_validator("max_storage_gib")
    @classmethod
    def _room(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("storage_gib", 0):
            raise ValueError(f"{maximum} is below storage_gib {info.data['storage_gib']}")
        return maximum


class Budget(Model):
    """Monthly cost budget, filtered by the environment's tags."""

    monthly_usd: int = Field(gt=0, description="USD per month; alerts at 50, 80 and 100 % spent and 100 % forecast")
    emails: list[Email] = Field(min_length=1, max_length=10, description="who gets the alerts")


class Environment(Model):
    """One AWS environment. Field order matters: later fields are checked against earlier ones."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]*$", max_length=12, description="environment name; the file's name")
    project: str = Field(
        default="haetsal", pattern=r"^[a-z][a-z0-9-]*[a-z0-9]$", max_length=16, description="prefix of all names"
    )
    account_id: str = Field(pattern=r"^\d{12}$", description="AWS account; other accounts are refused")
    region: str = Field(default="ap-northeast-2", description="AWS region")
    owner: str = Field(pattern=r"^[\w+=,.@:/ -]{1,64}$", description="who answers for the cost; a tag on everything")
    cost_center: str = Field(pattern=r"^[\w+=,.@:/ -]{1,64}$", description="who pays; a tag on everything")
    deletion_protection: bool = Field(
        default=False, description="cluster and database refuse to be destroyed until this is turned off and applied"
    )
    network: Network
    cluster: Cluster
    storage: Storage = Storage()
    database: Database | None = Field(default=None, description="none: MLflow keeps SQLite on a volume")
    budget: Budget
    node_pools: list[NodePool] = Field(min_length=1, description="managed node groups")

    @field_validator("region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        return _check_region(region)

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str, info: ValidationInfo) -> str:
        stem = (info.context or {}).get("stem", name)
        if name != stem:
            raise ValueError(f"{name!r} must be the file's name, {stem!r}: two files must never mean one environment")
        return name

    @field_validator("cluster")
    @classmethod
    def _own_account(cls, cluster: Cluster, info: ValidationInfo) -> Cluster:
        account = info.data.get("account_id")
        for admin in cluster.admins:
            if account and admin.split(":")[4] != account:
                raise ValueError(f"admins: {admin} is not in account_id {account}")
        return cluster

    @field_validator("storage")
    @classmethod
    def _two_regions(cls, storage: Storage, info: ValidationInfo) -> Storage:
        if storage.replica_region == info.data.get("region"):
            raise ValueError("replica_region: must differ from region, or the copy is lost with it")
        return storage

    @field_validator("node_pools")
    @classmethod
    def _pools(cls, pools: list[NodePool], info: ValidationInfo) -> list[NodePool]:
        names = [pool.name for pool in pools]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"name {min(twice)!r} is used twice; every pool needs its own")
        if not any(pool.workload == "system" and pool.min >= 1 for pool in pools):
            raise ValueError("no pool has workload: system and min of at least 1; operators and DNS need a node")
        if network := info.data.get("network"):
            for pool in pools:
                if outside := set(pool.zones or ()) - set(network.zones):
                    raise ValueError(f"pool {pool.name!r}: zone {min(outside)!r} is not in network.zones")
        return pools

    @property
    def cluster_name(self) -> str:
        return f"{self.project}-{self.name}"

    @property
    def registry(self) -> str:
        """The account's registry, with the environment's path: `<registry>/<image>:<tag>`."""
        return f"{self.account_id}.dkr.ecr.{self.region}.amazonaws.com/{self.cluster_name}"

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(f"{self.region}{letter}" for letter in self.network.zones)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of every resource, and of what Kubernetes makes on our behalf."""
        return {
            "Project": self.project,
            "Environment": self.name,
            "Owner": self.owner,
            "CostCenter": self.cost_center,
            "ManagedBy": "terraform",
        }

    def bucket_name(self, purpose: str) -> str:
        """Globally unique by the account id; at most 60 of S3's 63 characters."""
        return f"{self.project}-{self.name}-{purpose}-{self.account_id}"


class Kind(Model):
    """The local profile: the add-ons stack on a kind cluster that already runs."""

    name: Literal["kind"]
    kube_context: str = Field(min_length=1, description="kubectl context of the cluster, such as kind-haetsal")


def _prices(info: ValidationInfo) -> Prices:
    prices: Prices = (info.context or {})["prices"]
    return prices


def load_environment(name: str, folder: Path = ENVIRONMENTS) -> Environment:
    """Read environments/<name>.yaml. Raises UsageError with one line per mistake."""
    context = {"prices": load_prices(), "stem": name}
    return load_document(folder / f"{name}.yaml", Environment, context)


def load_kind(folder: Path = ENVIRONMENTS) -> Kind:
    """Read environments/kind.yaml. Raises UsageError."""
    return load_document(folder / "kind.yaml", Kind)
