"""Typed access to the repository's versions.yaml and to the price table."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field

from terraform.documents import Model, load_document

ROOT = Path(__file__).resolve().parent.parent


Source = Literal["catalogue", "recalled", "ratio"]


class Eks(Model):
    ami_release: str = Field(pattern=r"^\d+\.\d+\.\d+-\d{8}$", description="AL2023 node image release")
    addons: dict[str, str] = Field(description="EKS add-on name to version")


class Chart(Model):
    repository: str = Field(pattern=r"^(https|oci)://", description="Helm repository or OCI registry folder")
    version: str = Field(description="chart version")
    crds: bool = Field(description="true where `make crds` applies the chart's CRDs, which Helm never upgrades")


class Versions(Model):
    """versions.yaml, whole: what Terraform does not read is still checked for its form."""

    kubernetes: str = Field(pattern=r"^\d+\.\d+$", description="Kubernetes minor version")
    ray: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="Ray release")
    python: str = Field(pattern=r"^\d+\.\d+$", description="Python minor version in the images")
    terraform: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="oldest accepted terraform or tofu")
    eks: Eks
    postgres: str = Field(pattern=r"^\d+$", description="PostgreSQL major version")
    charts: dict[str, Chart]
    images: dict[str, str] = Field(description="image references")


class InstanceType(Model):
    vcpus: int = Field(ge=1, description="virtual CPUs")
    memory_gib: float = Field(gt=0, description="memory, GiB")
    gpus: int = Field(default=0, ge=0, description="GPUs")
    gpu: str | None = Field(default=None, description="GPU model, the value of the label k8s.amazonaws.com/accelerator")
    efa_interfaces: int = Field(default=0, ge=0, description="EFA network cards")
    usd_per_hour: float = Field(gt=0, description="on-demand list price, USD per hour")
    source: Source = Field(description="where the price is from; see the head of the file")


class Database(Model):
    usd_per_hour: float = Field(gt=0, description="on-demand list price in one zone, USD per hour")
    source: Source = Field(description="where the price is from; see the head of the file")


class Services(Model):
    eks_cluster_hour: float = Field(gt=0, description="USD per cluster and hour")
    nat_gateway_hour: float = Field(gt=0, description="USD per NAT gateway and hour, without traffic")
    public_ipv4_hour: float = Field(gt=0, description="USD per public IPv4 address and hour")
    interface_endpoint_zone_hour: float = Field(gt=0, description="USD per interface endpoint, zone and hour")
    gp3_gib_month: float = Field(gt=0, description="USD per GiB of gp3 volume and month")
    rds_gp3_gib_month: float = Field(gt=0, description="USD per GiB of database storage and month")
    kms_key_month: float = Field(gt=0, description="USD per customer key and month")
    secret_month: float = Field(gt=0, description="USD per secret and month")


class Prices(Model):
    """prices.yaml: list prices of one region, and the shape of every instance type that a pool may name."""

    region: str
    written_on: date = Field(description="day the prices were written down")
    hours_per_month: int = Field(gt=0, description="hours in a billing month")
    instances: dict[str, InstanceType]
    databases: dict[str, Database]
    services: Services


def load_versions(path: Path = ROOT / "versions.yaml") -> Versions:
    """Read versions.yaml. Raises UsageError."""
    return load_document(path, Versions)


def load_prices(path: Path = ROOT / "terraform" / "prices.yaml") -> Prices:
    """Read the price table. Raises UsageError."""
    return load_document(path, Prices)
