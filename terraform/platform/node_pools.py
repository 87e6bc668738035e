"""Each pool of the environment file as a managed node group with its launch template and its autoscaler tags."""

from cdktn import Fn, ITerraformDependable, TerraformResourceLifecycle, TerraformStack
from cdktn_provider_aws.autoscaling_group_tag import AutoscalingGroupTagA, AutoscalingGroupTagTag
from cdktn_provider_aws.eks_cluster import EksCluster
from cdktn_provider_aws.eks_node_group import (
    EksNodeGroup,
    EksNodeGroupLaunchTemplate,
    EksNodeGroupNodeRepairConfig,
    EksNodeGroupScalingConfig,
    EksNodeGroupTaint,
    EksNodeGroupUpdateConfig,
)
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.launch_template import (
    LaunchTemplate,
    LaunchTemplateBlockDeviceMappings,
    LaunchTemplateBlockDeviceMappingsEbs,
    LaunchTemplateCapacityReservationSpecification,
    LaunchTemplateCapacityReservationSpecificationCapacityReservationTarget,
    LaunchTemplateInstanceMarketOptions,
    LaunchTemplateMetadataOptions,
    LaunchTemplateNetworkInterfaces,
    LaunchTemplatePlacement,
    LaunchTemplateTagSpecifications,
)
from cdktn_provider_aws.placement_group import PlacementGroup
from cdktn_provider_aws.security_group import SecurityGroup
from cdktn_provider_aws.vpc_security_group_egress_rule import VpcSecurityGroupEgressRule
from cdktn_provider_aws.vpc_security_group_ingress_rule import VpcSecurityGroupIngressRule

from terraform.node_pool import PoolPlan, plan_pool
from terraform.platform.network import NetworkOutputs
from terraform.settings import Environment
from terraform.versions import Prices, Versions

CAPACITY_TYPES = {"on-demand": "ON_DEMAND", "spot": "SPOT", "capacity-block": "CAPACITY_BLOCK"}


def add_node_pools(
    stack: TerraformStack,
    environment: Environment,
    versions: Versions,
    prices: Prices,
    cluster: EksCluster,
    network: NetworkOutputs,
    role: IamRole,
    after: list[ITerraformDependable],
) -> dict[str, EksNodeGroup]:
    """One node group per pool, by pool name. `after`: what must exist before the first node starts."""
    plans = [plan_pool(p, prices, versions.eks.ami_release, environment.network.zones) for p in environment.node_pools]
    efa = _efa_group(stack, environment, network) if any(plan.efa_interfaces for plan in plans) else None
    groups = {}
    for plan in plans:
        template = _launch_template(stack, environment, plan, cluster, efa)
        groups[plan.name] = _node_group(stack, environment, versions, plan, cluster, network, role, template, after)
        _tag_group(stack, plan, environment.cluster_name, groups[plan.name])
    return groups


def _node_group(
    stack: TerraformStack,
    environment: Environment,
    versions: Versions,
    plan: PoolPlan,
    cluster: EksCluster,
    network: NetworkOutputs,
    role: IamRole,
    template: LaunchTemplate,
    after: list[ITerraformDependable],
) -> EksNodeGroup:
    reserved = plan.capacity == "capacity-block"
    return EksNodeGroup(
        stack,
        f"pool-{plan.name}",
        cluster_name=cluster.name,
        node_group_name=plan.name,
        node_role_arn=role.arn,
        subnet_ids=[network.private_subnets[zone].id for zone in plan.zones],
        version=versions.kubernetes,
        ami_type=plan.ami_type,
        # Pinned: an apply for something else must never roll nodes under a running training.
        release_version=plan.ami_release,
        capacity_type=CAPACITY_TYPES[plan.capacity],
        # A capacity block's type stands in the launch template, where EC2 matches it with the reservation.
        instance_types=None if reserved else list(plan.instance_types),
        scaling_config=EksNodeGroupScalingConfig(
            min_size=plan.minimum, max_size=plan.maximum, desired_size=plan.desired
        ),
        # GPU replacements are scarce: take the old node down first rather than wait for a second one.
        update_config=EksNodeGroupUpdateConfig(
            max_unavailable=1, update_strategy="MINIMAL" if plan.gpus else "DEFAULT"
        ),
        node_repair_config=EksNodeGroupNodeRepairConfig(enabled=True),
        labels=plan.labels,
        taint=[EksNodeGroupTaint(key=plan.taint, value="true", effect="NO_SCHEDULE")] if plan.taint else None,
        launch_template=EksNodeGroupLaunchTemplate(id=template.id, version=Fn.tostring(template.latest_version)),
        tags={"Name": f"{environment.cluster_name}-{plan.name}"},
        # The autoscaler owns the number of nodes once the group exists.
        lifecycle=TerraformResourceLifecycle(ignore_changes=["scaling_config[0].desired_size"]),
        depends_on=[*after, *network.egress],
    )


def _launch_template(
    stack: TerraformStack, environment: Environment, plan: PoolPlan, cluster: EksCluster, efa: SecurityGroup | None
) -> LaunchTemplate:
    name = f"{environment.cluster_name}-{plan.name}"
    tags = {**environment.tags, "Name": name}
    disk = LaunchTemplateBlockDeviceMappingsEbs(
        volume_size=plan.disk_gib,
        volume_type="gp3",
        # gp3's free 125 MiB/s make a 10 GiB image the slowest part of a cold start.
        throughput=500,
        iops=4000,
        encrypted="true",
        delete_on_termination="true",
    )
    reserved = plan.capacity == "capacity-block"
    placement = None
    if plan.efa_interfaces:
        group = PlacementGroup(stack, f"placement-{plan.name}", name=name, strategy="cluster")
        placement = LaunchTemplatePlacement(group_name=group.name)
    return LaunchTemplate(
        stack,
        f"template-{plan.name}",
        name=name,
        update_default_version=True,
        instance_type=plan.instance_types[0] if reserved else None,
        block_device_mappings=[LaunchTemplateBlockDeviceMappings(device_name="/dev/xvda", ebs=disk)],
        # IMDSv2 only, one hop: pods get credentials from Pod Identity, never the node's.
        metadata_options=LaunchTemplateMetadataOptions(
            http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
        ),
        network_interfaces=_efa_interfaces(plan, cluster, efa) if efa and plan.efa_interfaces else None,
        placement=placement,
        instance_market_options=LaunchTemplateInstanceMarketOptions(market_type="capacity-block") if reserved else None,
        capacity_reservation_specification=LaunchTemplateCapacityReservationSpecification(
            capacity_reservation_target=LaunchTemplateCapacityReservationSpecificationCapacityReservationTarget(
                capacity_reservation_id=plan.capacity_reservation_id
            )
        )
        if reserved
        else None,
        # The provider's default tags do not reach what EC2 makes from a template.
        tag_specifications=[
            LaunchTemplateTagSpecifications(resource_type=kind, tags=tags)
            for kind in ("instance", "volume", "network-interface")
        ],
        tags={"Name": name},
    )


def _efa_interfaces(plan: PoolPlan, cluster: EksCluster, efa: SecurityGroup) -> list[LaunchTemplateNetworkInterfaces]:
    """One EFA interface per network card. Source: EC2 user guide, "Maximize network bandwidth with multiple cards"."""
    groups = [cluster.vpc_config.cluster_security_group_id, efa.id]
    return [
        LaunchTemplateNetworkInterfaces(
            network_card_index=card,
            device_index=0 if card == 0 else 1,
            interface_type="efa",
            security_groups=groups,
            delete_on_termination="true",
        )
        for card in range(plan.efa_interfaces)
    ]


def _efa_group(stack: TerraformStack, environment: Environment, network: NetworkOutputs) -> SecurityGroup:
    """EFA needs a group that lets all of its own traffic in and out. Source: EC2 user guide, "Get started with EFA"."""
    name = f"{environment.cluster_name}-efa"
    group = SecurityGroup(
        stack,
        "efa-security-group",
        name=name,
        description="EFA traffic among the nodes of EFA pools",
        vpc_id=network.vpc.id,
        tags={"Name": name},
    )
    for direction in (VpcSecurityGroupIngressRule, VpcSecurityGroupEgressRule):
        direction(
            stack,
            "efa-in" if direction is VpcSecurityGroupIngressRule else "efa-out",
            security_group_id=group.id,
            referenced_security_group_id=group.id,
            description="EFA among the group's members",
            ip_protocol="-1",
        )
    return group


def _tag_group(stack: TerraformStack, plan: PoolPlan, cluster_name: str, group: EksNodeGroup) -> None:
    """EKS does not copy a node group's tags to its autoscaling group, where the autoscaler reads them."""
    scaling_group = group.resources.get(0).autoscaling_groups.get(0).name
    for number, (key, value) in enumerate(plan.autoscaler_tags(cluster_name).items()):
        AutoscalingGroupTagA(
            stack,
            f"pool-{plan.name}-tag-{number}",
            autoscaling_group_name=scaling_group,
            tag=AutoscalingGroupTagTag(key=key, value=value, propagate_at_launch=False),
        )
