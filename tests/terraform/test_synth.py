"""What the synthesised JSON of every environment must hold, and must not."""

import re
import subprocess
import sys
import time
from pathlib import Path

from terraform.settings import ENVIRONMENTS
from terraform.versions import ROOT
from tests.terraform.conftest import CANARY
from tests.terraform.stacks import REFERENCE, Stack, binding, expressions, statements

AWS_STACKS = ("storage", "platform")


def test_every_environment_has_its_stacks(stacks, environments):
    own = {path.stem for path in ENVIRONMENTS.glob("*.yaml")}
    assert own | {"lab"} == {environment for environment, _ in stacks}
    for name in environments:
        assert {stack for environment, stack in stacks if environment == name} == {"storage", "platform", "addons"}


# --- references -----------------------------------------------------------------------------------------------------


def references(stack: Stack) -> set[tuple[bool, str, str, str]]:
    """(is data, type, name, attribute) of everything that an expression or depends_on points at."""
    texts = [expression for text in stack.strings() for expression in expressions(text)]
    texts += [target for _, _, body in stack.resources() for target in body.get("depends_on", [])]
    found = set()
    for text in texts:
        for data, kind, name, path in REFERENCE.findall(text):
            found.add((bool(data), kind, name, path.rpartition(".")[2]))
    return found


def test_no_reference_dangles(stacks):
    counted = 0
    for stack in stacks.values():
        for data, kind, name, attribute in references(stack):
            where = stack.json.get("data" if data else "resource", {}).get(kind, {})
            assert name in where, f"{stack.path}: {kind}.{name} does not exist"
            if kind != "terraform_remote_state" and attribute:
                assert hasattr(binding(kind, data), attribute), f"{kind} has no attribute {attribute}"
            counted += 1
    assert counted > 300


def test_cross_stack_references_resolve(stacks):
    pattern = re.compile(r"terraform_remote_state\.([\w-]+)\.outputs\.([\w-]+)")
    counted = 0
    for stack in stacks.values():
        remote = stack.json.get("data", {}).get("terraform_remote_state", {})
        for text in stack.strings():
            for source, output in pattern.findall(text):
                config = remote[source]["config"]
                target = next(
                    other
                    for other in stacks.values()
                    if other.environment == stack.environment
                    and other.json["terraform"]["backend"].get("s3", {}).get("key") == config["key"]
                )
                assert target.json["terraform"]["backend"]["s3"]["bucket"] == config["bucket"]
                assert output in target.json["output"], f"{stack.path}: {target.name} has no output {output}"
                counted += 1
    assert counted > 50


def test_dependencies_have_no_cycle(stacks):
    for stack in stacks.values():
        edges: dict[str, set[str]] = {}
        for kind, name, body in stack.resources():
            texts = [e for text in Stack("", "", stack.path, body).strings() for e in expressions(text)]
            texts += body.get("depends_on", [])
            edges[f"{kind}.{name}"] = {f"{k}.{n}" for text in texts for d, k, n, _ in REFERENCE.findall(text) if not d}
        done: set[str] = set()
        while ready := {node for node, needs in edges.items() if node not in done and needs <= done}:
            done |= ready
        assert done == set(edges), f"{stack.path}: {set(edges) - done}"


# --- state, providers, secrets --------------------------------------------------------------------------------------


def test_state_is_remote_locked_and_encrypted(stacks, environments):
    for stack in stacks.values():
        backend = stack.json["terraform"]["backend"]
        assert len(backend) == 1
        if stack.environment == "kind":
            assert backend["kubernetes"]["config_context"] == "kind-haetsal"
            continue
        s3 = backend["s3"]
        assert s3["encrypt"] and s3["use_lockfile"]
        assert s3["allowed_account_ids"] == [environments[stack.environment].account_id]
    keys = [
        (s.environment, s.json["terraform"]["backend"]["s3"]["key"]) for s in stacks.values() if s.environment != "kind"
    ]
    assert len(set(keys)) == len(keys)


def test_binary_and_providers_are_pinned(stacks, versions):
    for stack in stacks.values():
        assert stack.json["terraform"]["required_version"] == f">= {versions.terraform}"
        for provider in stack.json["terraform"]["required_providers"].values():
            assert re.fullmatch(r"\d+\.\d+\.\d+", provider["version"])


def test_platform_holds_no_kubernetes_object_and_addons_only_releases(stacks):
    for (_, name), stack in stacks.items():
        kinds = {kind for kind, _, _ in stack.resources()}
        if name == "addons":
            assert kinds == {"helm_release"}
        else:
            assert all(kind.startswith("aws_") for kind in kinds)


def test_no_secret_and_no_path_of_this_machine(stacks):
    key = re.compile(r'"(\w*password\w*|secret_key|access_key|token)": "(?!true|false)[^"]+"')
    for stack in stacks.values():
        text = stack.path.read_text()
        assert CANARY not in text
        assert not key.findall(text), key.findall(text)
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN", text)
        assert str(ROOT) not in text
        assert str(Path.home()) not in text


# --- tags -----------------------------------------------------------------------------------------------------------


def test_everything_is_tagged(stacks, environments):
    for (name, stack_name), stack in stacks.items():
        if stack_name not in AWS_STACKS:
            continue
        tags = environments[name].tags
        assert {"Project", "Environment", "Owner", "CostCenter"} <= set(tags)
        for provider in stack.json["provider"]["aws"]:
            assert provider["default_tags"] == [{"tags": tags}]
        for kind, resource, body in stack.resources():
            # An explicit tag never replaces one of the environment's, and no resource opts out of the provider.
            own = body.get("tags") or {}
            assert not set(own) & set(tags), f"{kind}.{resource}"
            assert "provider" not in body, f"{kind}.{resource}"


def test_what_ec2_and_kubernetes_make_is_tagged_too(stacks, environments):
    for name, environment in environments.items():
        platform = stacks[name, "platform"]
        for template in platform.all("aws_launch_template").values():
            specifications = {s["resource_type"]: s["tags"] for s in template["tag_specifications"]}
            assert set(specifications) == {"instance", "volume", "network-interface"}
            assert all(environment.tags.items() <= tags.items() for tags in specifications.values())
        driver = platform.all("aws_eks_addon")["aws-ebs-csi-driver"]["configuration_values"]
        assert f'"Environment": "{name}"' in driver


# --- buckets --------------------------------------------------------------------------------------------------------


def test_every_bucket_is_closed_versioned_encrypted_logged_and_tidy(stacks):
    for name, stack in stacks.items():
        if name[1] != "storage":
            continue
        for id_, bucket in stack.all("aws_s3_bucket").items():
            region = bucket.get("region")
            here = {
                kind: named[f"{id_}-{suffix}"]
                for kind, suffix in {
                    "aws_s3_bucket_public_access_block": "public-access",
                    "aws_s3_bucket_versioning": "versioning",
                    "aws_s3_bucket_server_side_encryption_configuration": "encryption",
                    "aws_s3_bucket_lifecycle_configuration": "lifecycle",
                    "aws_s3_bucket_policy": "policy",
                    "aws_s3_bucket_ownership_controls": "ownership",
                }.items()
                if (named := stack.all(kind))
            }
            assert len(here) == 6
            for part in here.values():
                assert part["bucket"] == f"${{aws_s3_bucket.{id_}.id}}"
                assert part.get("region") == region
            block = here["aws_s3_bucket_public_access_block"]
            assert all(block[k] for k in block if k.startswith(("block_", "ignore_", "restrict_")))
            assert sum(k.startswith(("block_", "ignore_", "restrict_")) for k in block) == 4
            assert here["aws_s3_bucket_versioning"]["versioning_configuration"]["status"] == "Enabled"
            rules = here["aws_s3_bucket_lifecycle_configuration"]["rule"]
            assert any("abort_incomplete_multipart_upload" in rule for rule in rules)
            assert any("noncurrent_version_expiration" in rule for rule in rules)
            for statement in statements(here["aws_s3_bucket_policy"]["policy"]):
                if statement["Effect"] == "Allow":
                    assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
                else:
                    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            deny = [s for s in statements(here["aws_s3_bucket_policy"]["policy"]) if s["Effect"] == "Deny"]
            assert deny and deny[0]["Action"] == ["s3:*"] and len(deny[0]["Resource"]) == 2
            (rule,) = here["aws_s3_bucket_server_side_encryption_configuration"]["rule"]
            algorithm = rule["apply_server_side_encryption_by_default"]["sse_algorithm"]
            is_log_bucket = id_.startswith("logs")
            assert algorithm == ("AES256" if is_log_bucket else "aws:kms")
            if not is_log_bucket:
                assert stack.all("aws_s3_bucket_logging")[f"{id_}-logging"]["target_prefix"] == f"{id_}/"
            assert "acl" not in bucket and not bucket.get("force_destroy")


def test_backups_are_locked_and_not_expired_before_the_lock_ends(stacks, environments):
    for name, environment in environments.items():
        storage = stacks[name, "storage"]
        assert storage.all("aws_s3_bucket")["backups"]["object_lock_enabled"]
        retention = storage.all("aws_s3_bucket_object_lock_configuration")["backups-lock"]["rule"]["default_retention"]
        lock = environment.storage.backup_lock
        assert retention == {"days": lock.days, "mode": lock.mode}
        rules = storage.all("aws_s3_bucket_lifecycle_configuration")["backups-lifecycle"]["rule"]
        (expiry,) = [r["noncurrent_version_expiration"][0] for r in rules if "noncurrent_version_expiration" in r]
        assert expiry["noncurrent_days"] >= lock.days
    assert environments["prod"].storage.backup_lock.mode == "COMPLIANCE"


def test_replicas_are_where_asked_for(stacks, environments):
    for name, environment in environments.items():
        storage = stacks[name, "storage"]
        copies = {n: b for n, b in storage.all("aws_s3_bucket").items() if n.endswith("-replica")}
        region = environment.storage.replica_region
        assert bool(copies) == bool(region)
        assert all(bucket["region"] == region for bucket in copies.values())
        assert set(storage.all("aws_s3_bucket_replication_configuration")) == (
            {"data-replication", "artifacts-replication", "backups-replication"} if region else set()
        )


def test_names_fit(stacks):
    limits = {
        "aws_s3_bucket": ("bucket", 63),
        "aws_iam_role": ("name", 64),
        "aws_eks_cluster": ("name", 100),
        "aws_eks_node_group": ("node_group_name", 63),
        "aws_launch_template": ("name", 128),
        "aws_db_instance": ("identifier", 63),
    }
    for stack in stacks.values():
        for kind, (key, limit) in limits.items():
            names = [body[key] for body in stack.all(kind).values()]
            assert all(len(name) <= limit for name in names)
            assert len(set(names)) == len(names)


# --- network and cluster --------------------------------------------------------------------------------------------


def test_nothing_is_open_to_the_world(stacks):
    for stack in stacks.values():
        assert not any("ingress" in body for _, _, body in stack.resources())
        for rule in stack.all("aws_vpc_security_group_ingress_rule").values():
            assert rule.get("cidr_ipv4", "10.0.0.0/8") != "0.0.0.0/0"
            assert "cidr_ipv6" not in rule
        for subnet in stack.all("aws_subnet").values():
            assert not subnet.get("map_public_ip_on_launch")
        for database in stack.all("aws_db_instance").values():
            assert database["publicly_accessible"] is False
        for cluster in stack.all("aws_eks_cluster").values():
            assert "0.0.0.0/0" not in (cluster["vpc_config"].get("public_access_cidrs") or [])


def test_endpoint_is_private_unless_addresses_are_named(stacks, environments):
    for name, environment in environments.items():
        vpc = stacks[name, "platform"].all("aws_eks_cluster")["cluster"]["vpc_config"]
        assert vpc["endpoint_private_access"] is True
        assert vpc["endpoint_public_access"] is bool(environment.cluster.public_access_cidrs)
    assert stacks["lab", "platform"].all("aws_eks_cluster")["cluster"]["vpc_config"]["public_access_cidrs"] == [
        "203.0.113.0/24"
    ]
    peers = stacks["prod", "platform"].all("aws_vpc_security_group_ingress_rule")["api-from-peer-0"]
    assert (peers["cidr_ipv4"], peers["from_port"]) == ("10.0.0.0/16", 443)


def test_cluster_is_hardened(stacks, environments, versions):
    for name, environment in environments.items():
        platform = stacks[name, "platform"]
        cluster = platform.all("aws_eks_cluster")["cluster"]
        assert cluster["version"] == versions.kubernetes
        assert cluster["encryption_config"]["resources"] == ["secrets"]
        assert cluster["access_config"] == {
            "authentication_mode": "API",
            "bootstrap_cluster_creator_admin_permissions": False,
        }
        assert len(cluster["enabled_cluster_log_types"]) == 5
        assert cluster["deletion_protection"] is environment.deletion_protection
        groups = platform.all("aws_cloudwatch_log_group")
        assert groups["control-plane-logs"]["name"] == f"/aws/eks/{environment.cluster_name}/cluster"
        for group in groups.values():
            assert group["retention_in_days"] == environment.cluster.log_retention_days
            assert group["kms_key_id"] == "${aws_kms_key.platform-key.arn}"
        assert "aws_cloudwatch_log_group.control-plane-logs" in cluster["depends_on"]
        addons = {a["addon_name"]: a["addon_version"] for a in platform.all("aws_eks_addon").values()}
        assert addons == versions.eks.addons
        assert '"enableNetworkPolicy": "true"' in platform.all("aws_eks_addon")["vpc-cni"]["configuration_values"]
    assert environments["prod"].deletion_protection


def test_three_zones_and_as_many_nat_gateways_as_asked(stacks, environments):
    for name, environment in environments.items():
        platform = stacks[name, "platform"]
        private = {n: s for n, s in platform.all("aws_subnet").items() if n.startswith("private")}
        assert {s["availability_zone"] for s in private.values()} == set(environment.zones)
        assert len(platform.all("aws_nat_gateway")) == (3 if environment.network.nat == "per-zone" else 1)
        services = {e["service_name"].split(".", 3)[3] for e in platform.all("aws_vpc_endpoint").values()}
        assert services == {"s3", "ecr.api", "ecr.dkr", "sts"}
        assert platform.all("aws_flow_log")["flow-log"]["traffic_type"] == "ALL"
        assert private["private-" + environment.network.zones[0]]["tags"]["kubernetes.io/role/internal-elb"] == "1"


def test_budget_alerts(stacks, environments):
    for name, environment in environments.items():
        (budget,) = stacks[name, "platform"].all("aws_budgets_budget").values()
        assert budget["limit_amount"] == str(environment.budget.monthly_usd)
        assert budget["cost_filter"] == [{"name": "TagKeyValue", "values": [f"user:Environment${name}"]}]
        alerts = [(n["notification_type"], n["threshold"]) for n in budget["notification"]]
        assert alerts == [("ACTUAL", 50), ("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)]
        assert all(n["subscriber_email_addresses"] == environment.budget.emails for n in budget["notification"])


def test_registry_scans_and_database_password_stays_in_secrets_manager(stacks):
    for (name, stack_name), stack in stacks.items():
        if stack_name != "platform":
            continue
        repositories = stack.all("aws_ecr_repository")
        assert len(repositories) == 4
        assert all(r["image_scanning_configuration"]["scan_on_push"] for r in repositories.values())
        assert len(stack.all("aws_ecr_lifecycle_policy")) == 4
        for database in stack.all("aws_db_instance").values():
            assert database["manage_master_user_password"] is True
            assert database["storage_encrypted"] is True
        assert bool(stack.all("aws_db_instance")) == (name in ("prod", "lab"))
    assert stacks["prod", "platform"].all("aws_db_instance")["database"]["multi_az"] is True


# --- time -----------------------------------------------------------------------------------------------------------


def test_make_synth_takes_at_most_30_s():
    """The bar of the command as a user runs it: a fresh interpreter, Node and all bindings included."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "terraform.main", "synth", "--env", "prod"], cwd=ROOT, capture_output=True, text=True
    )
    elapsed_s = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    assert elapsed_s <= 30
