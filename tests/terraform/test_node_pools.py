"""Pools: taints, labels and autoscaler tags in the JSON, capacity kinds, EFA, pinned images."""

import pytest

from terraform.node_pool import WORKLOADS, NodePool, plan_pool

TEMPLATE = "k8s.io/cluster-autoscaler/node-template"
POOLS = [(e, p) for e, names in {
    "dev": ("system", "training", "preprocessing", "inference"),
    "prod": ("system", "training", "training-efa", "preprocessing", "inference"),
    "lab": ("system", "block"),
}.items() for p in names]  # fmt: skip


def group_tags(stack, pool: str) -> dict[str, str]:
    reference = f"${{aws_eks_node_group.pool-{pool}.resources[0].autoscaling_groups[0].name}}"
    tags = [
        t["tag"] for t in stack.all("aws_autoscaling_group_tag").values() if t["autoscaling_group_name"] == reference
    ]
    assert not any(tag["propagate_at_launch"] for tag in tags)
    return {tag["key"]: tag["value"] for tag in tags}


def test_the_table_is_complete(environments):
    assert {(name, pool.name) for name, e in environments.items() for pool in e.node_pools} == set(POOLS)


@pytest.mark.parametrize(("name", "pool_name"), POOLS)
def test_labels_taints_and_tags_of_each_pool(name, pool_name, stacks, environments, prices, versions):
    environment, stack = environments[name], stacks[name, "platform"]
    pool = next(p for p in environment.node_pools if p.name == pool_name)
    workload = WORKLOADS[pool.workload]
    group = stack.all("aws_eks_node_group")[f"pool-{pool_name}"]
    tags = group_tags(stack, pool_name)

    assert group["labels"]["node-type"] == workload.node_type
    assert tags[f"{TEMPLATE}/label/node-type"] == workload.node_type
    assert tags["k8s.io/cluster-autoscaler/enabled"] == "true"
    assert tags[f"k8s.io/cluster-autoscaler/{environment.cluster_name}"] == "owned"
    assert tags[f"{TEMPLATE}/resources/ephemeral-storage"] == f"{pool.disk_gib}Gi"
    gpus = prices.instances[pool.instance_types[0]].gpus
    if workload.gpu:
        assert group["taint"] == [{"key": workload.node_type, "value": "true", "effect": "NO_SCHEDULE"}]
        assert tags[f"{TEMPLATE}/taint/{workload.node_type}"] == "true:NoSchedule"
        assert tags[f"{TEMPLATE}/resources/nvidia.com/gpu"] == str(gpus)
        assert tags[f"{TEMPLATE}/label/k8s.amazonaws.com/accelerator"].startswith("nvidia-")
        assert group["ami_type"] == "AL2023_x86_64_NVIDIA"
    else:
        assert "taint" not in group
        assert not any("taint" in key or "gpu" in key for key in tags)
        assert group["ami_type"] == "AL2023_x86_64_STANDARD"
    assert group["release_version"] == versions.eks.ami_release
    assert group["scaling_config"] == {"min_size": pool.min, "max_size": pool.max, "desired_size": pool.min}
    assert group["lifecycle"]["ignore_changes"] == ["scaling_config[0].desired_size"]
    assert group["node_repair_config"] == {"enabled": True}
    assert group["subnet_ids"] == [f"${{aws_subnet.private-{z}.id}}" for z in pool.zones or environment.network.zones]


def test_the_seeds_pools_are_there(environments):
    """Preprocessing on spot from 0 to 10, system and inference on demand, training of several types from 0."""
    for name in ("dev", "prod"):
        pools = {p.name: p for p in environments[name].node_pools}
        assert (pools["preprocessing"].min, pools["preprocessing"].max) == (0, 10)
        capacity = {n: p.capacity or WORKLOADS[p.workload].capacity for n, p in pools.items()}
        assert capacity["preprocessing"] == "spot"
        assert capacity["system"] == capacity["inference"] == "on-demand"
        assert len(pools["training"].instance_types) > 1
        assert pools["training"].min == 0


def test_nodes_use_imdsv2_with_one_hop_and_encrypted_disks(stacks):
    for (_, name), stack in stacks.items():
        for template in stack.all("aws_launch_template").values() if name == "platform" else ():
            assert template["metadata_options"] == {
                "http_endpoint": "enabled",
                "http_tokens": "required",
                "http_put_response_hop_limit": 1,
            }
            (disk,) = template["block_device_mappings"]
            assert disk["ebs"]["encrypted"] == "true"


def test_nodes_wait_for_network_agents_and_permissions(stacks):
    """Without routes a node cannot join; removed before the nodes, a route strands them while they drain."""
    for group in stacks["prod", "platform"].all("aws_eks_node_group").values():
        needed = {"aws_eks_addon.vpc-cni", "aws_eks_addon.eks-pod-identity-agent", "aws_route.private-a-default-route"}
        assert needed <= set(group["depends_on"])


def test_efa_pool_has_cards_group_and_placement(stacks):
    stack = stacks["prod", "platform"]
    template = stack.all("aws_launch_template")["template-training-efa"]
    cards = template["network_interfaces"]
    assert [card["network_card_index"] for card in cards] == [0, 1, 2, 3]
    assert [card["device_index"] for card in cards] == [0, 1, 1, 1]
    assert all(card["interface_type"] == "efa" and len(card["security_groups"]) == 2 for card in cards)
    assert template["placement"] == {"group_name": "${aws_placement_group.placement-training-efa.name}"}
    assert stack.all("aws_placement_group")["placement-training-efa"]["strategy"] == "cluster"
    assert group_tags(stack, "training-efa")[f"{TEMPLATE}/resources/vpc.amazonaws.com/efa"] == "4"
    group = "${aws_security_group.efa-security-group.id}"
    for kind in ("aws_vpc_security_group_ingress_rule", "aws_vpc_security_group_egress_rule"):
        (rule,) = [r for n, r in stack.all(kind).items() if n.startswith("efa")]
        assert rule["referenced_security_group_id"] == rule["security_group_id"] == group
    plain = stack.all("aws_launch_template")["template-training"]
    assert "network_interfaces" not in plain and "placement" not in plain


def test_capacity_block_stands_in_the_launch_template(stacks):
    stack = stacks["lab", "platform"]
    template = stack.all("aws_launch_template")["template-block"]
    assert template["instance_type"] == "p5.48xlarge"
    assert template["instance_market_options"] == {"market_type": "capacity-block"}
    target = template["capacity_reservation_specification"]["capacity_reservation_target"]
    assert target == {"capacity_reservation_id": "cr-0123456789abcdef0"}
    group = stack.all("aws_eks_node_group")["pool-block"]
    assert group["capacity_type"] == "CAPACITY_BLOCK"
    assert "instance_types" not in group
    assert len(template["network_interfaces"]) == 32


def test_one_line_overrides_what_the_workload_decides(prices):
    text = {"name": "big", "workload": "training", "instance_types": ["g6.xlarge"], "max": 3}
    pool = NodePool.model_validate(text, context={"prices": prices})
    plan = plan_pool(pool, prices, "1.35.6-20260714", ("a", "b", "c"))
    assert (plan.capacity, plan.minimum, plan.desired, plan.zones) == ("spot", 0, 0, ("a", "b", "c"))
    change = {"capacity": "on-demand", "ami_release": "1.35.9-20261101", "min": 1, "desired": 2, "zones": ["b"]}
    pool = NodePool.model_validate(text | change, context={"prices": prices})
    plan = plan_pool(pool, prices, "1.35.6-20260714", ("a", "b", "c"))
    assert (plan.capacity, plan.ami_release, plan.desired, plan.zones) == ("on-demand", "1.35.9-20261101", 2, ("b",))
