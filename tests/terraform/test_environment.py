"""A wrong environment file is one clear line that names the key."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.errors import UsageError
from terraform.settings import ENVIRONMENTS, load_environment
from terraform.versions import ROOT

VALID = (ENVIRONMENTS / "dev.yaml").read_text(encoding="utf-8")


def changed(path: str, value: object) -> str:
    """dev.yaml as text with the value at `path` replaced (or added)."""
    data = yaml.safe_load(VALID)
    here = data
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
    here[last] = value
    return yaml.safe_dump(data, sort_keys=False)


BLOCK = {
    "name": "block",
    "workload": "training",
    "capacity": "capacity-block",
    "instance_types": ["p5.48xlarge"],
    "max": 1,
}

CASES = {
    "unknown key": ("regoin", "x", "regoin: unknown key; did you mean 'region'?"),
    "unknown nested key": ("network.nta", "one", "network.nta: unknown key; did you mean 'nat'?"),
    "unknown pool key": ("node_pools.1.maximum", 3, "node_pools[1].maximum: unknown key; did you mean 'max'?"),
    "GPU pool without GPU": (
        "node_pools.1.instance_types",
        ["m6i.large"],
        "node_pools[1].instance_types: 'm6i.large' has no GPU",
    ),
    "CPU pool with GPU": (
        "node_pools.0.instance_types",
        ["g6.xlarge"],
        "node_pools[0].instance_types: 'g6.xlarge' has GPUs",
    ),
    "unknown type": (
        "node_pools.1.instance_types",
        ["g9.huge"],
        "node_pools[1].instance_types: 'g9.huge' is not in terraform/prices",
    ),
    "mixed GPU counts": (
        "node_pools.1.instance_types",
        ["g6.xlarge", "g5.12xlarge"],
        "node_pools[1].instance_types: the types have diff",
    ),
    "max below min": ("node_pools.0.max", 1, "node_pools[0].max: 1 is below min 2"),
    "desired outside": ("node_pools.0.desired", 9, "node_pools[0].desired: 9 is outside min 2 to max 4"),
    "service range overlaps": (
        "network.service_cidr",
        "10.20.0.0/16",
        "network.service_cidr: 10.20.0.0/16 overlaps network.cidr",
    ),
    "default service range overlaps": (
        "network.cidr",
        "172.20.0.0/16",
        "network.service_cidr: 172.20.0.0/16 overlaps network.cidr",
    ),
    "peer overlaps": (
        "network.peered_cidrs",
        ["10.20.4.0/24"],
        "network.peered_cidrs: 10.20.4.0/24 overlaps network.cidr",
    ),
    "VPC too small": ("network.cidr", "10.20.0.0/24", "network.cidr: 10.20.0.0/24 must be a /16 to /20"),
    "not a network": ("network.cidr", "10.20.1.0/16", "network.cidr: Input is not a valid IPv4 network"),
    "zones": ("network.zones", ["a", "a", "b"], "network.zones: ['a', 'a', 'b'] must be three different"),
    "world-open endpoint": (
        "cluster.public_access_cidrs",
        ["0.0.0.0/0"],
        "cluster.public_access_cidrs: 0.0.0.0/0 is too wide",
    ),
    "name too long": ("project", "a-name-that-is-too-long", "project: String should have at most 16 characters"),
    "pool name too long": (
        "node_pools.0.name",
        "p" * 25,
        "node_pools[0].name: String should have at most 24 characters",
    ),
    "name is not the file's": ("name", "prod", "name: 'prod' must be the file's name, 'dev'"),
    "unknown region": ("region", "ap-east-9", "region: 'ap-east-9' is not a region that offers EKS"),
    "replica in the same region": ("storage.replica_region", "ap-northeast-2", "storage: replica_region: must differ"),
    "account": ("account_id", "12", "account_id: String should match pattern"),
    "admin of another account": (
        "cluster.admins",
        ["arn:aws:iam::999999999999:role/x"],
        "cluster: admins: arn:aws:iam::999999999999:role/x is not in",
    ),
    "no e-mail": ("budget.emails", [], "budget.emails: List should have at least 1 item"),
    "unknown database": (
        "database.instance_class",
        "db.huge",
        "database.instance_class: 'db.huge' is not in terraform/prices",
    ),
    "same pool twice": ("node_pools.1.name", "system", "node_pools: name 'system' is used twice"),
    "no system pool": ("node_pools.0.min", 0, "node_pools: no pool has workload: system"),
    "pool outside the network": (
        "node_pools.1.zones",
        ["b"],
        "node_pools: pool 'training': zone 'b' is not in network.zones",
    ),
    "EFA over zones": (
        "node_pools.1",
        {**BLOCK, "capacity": "on-demand", "efa": True},
        "node_pools[1].efa: zones: EFA",
    ),
    "EFA without cards": ("node_pools.1.efa", True, "node_pools[1].efa: g6.2xlarge, g5.2xlarge"),
    "block without reservation": (
        "node_pools.1",
        BLOCK,
        "node_pools[1].capacity_reservation_id: capacity: capacity-block needs",
    ),
    "reservation without block": (
        "node_pools.1.capacity_reservation_id",
        "cr-0123456789abcdef0",
        "node_pools[1].capacity_reservation_id: only",
    ),
    "unpinned image": ("node_pools.1.ami_release", "latest", "node_pools[1].ami_release: String should match pattern"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_the_key(case, tmp_path):
    path, value, expected = CASES[case]
    file = tmp_path / "dev.yaml"
    file.write_text(changed(path, value), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_environment("dev", tmp_path)
    message = str(error.value)
    assert "\n" not in message
    place, _, rest = message.partition(": ")
    assert place.rsplit(":", 1)[0] == str(file)
    assert rest.startswith(expected)


def test_the_line_number_is_the_keys(tmp_path):
    lines = VALID.splitlines()
    number = next(i for i, line in enumerate(lines) if line.strip() == "max: 10")
    lines[number] = "    max: 0"
    (tmp_path / "dev.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"dev\.yaml:{number + 1}: node_pools\[2\]\.max: "):
        load_environment("dev", tmp_path)


def test_every_mistake_is_listed(tmp_path):
    text = VALID.replace("nat: one", "nat: two").replace("monthly_usd: 1500", "monthly_usd: 0")
    (tmp_path / "dev.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_environment("dev", tmp_path)
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == ["network.nat", "budget.monthly_usd"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [dev", "not YAML"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"", "expected keys and values"),
        ("이름: dev".encode("cp949"), "not UTF-8"),
    ],
)
def test_not_an_environment_file(content, expected, tmp_path):
    (tmp_path / "dev.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=expected):
        load_environment("dev", tmp_path)


def test_command_line_prints_one_line_and_exits_2():
    done = subprocess.run(
        [sys.executable, "-m", "terraform.main", "synth", "--env", "staging"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "staging.yaml does not exist; there are: dev, kind, prod" in done.stderr


def test_readme_shows_a_new_environment_and_a_four_line_pool(tmp_path):
    """The README's own examples are loaded: what it promises is what works."""
    readme = (Path(ROOT) / "terraform" / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```yaml\n")[1:]]
    environment = next(block for block in blocks if block.startswith("name: staging"))
    pool = next(block for block in blocks if block.lstrip().startswith("- name: tuning"))
    assert len(pool.strip().splitlines()) == 4
    (tmp_path / "staging.yaml").write_text(environment.rstrip() + "\n" + pool, encoding="utf-8")
    loaded = load_environment("staging", tmp_path)
    assert loaded.node_pools[-1].name == "tuning"
