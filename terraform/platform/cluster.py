"""The EKS control plane: private by default, secrets encrypted, access by IAM entries, managed add-ons pinned."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cdktn import ITerraformDependable, TerraformStack
from cdktn_provider_aws.eks_access_entry import EksAccessEntry
from cdktn_provider_aws.eks_access_policy_association import (
    EksAccessPolicyAssociation,
    EksAccessPolicyAssociationAccessScope,
)
from cdktn_provider_aws.eks_addon import EksAddon, EksAddonPodIdentityAssociation
from cdktn_provider_aws.eks_cluster import (
    EksCluster,
    EksClusterAccessConfig,
    EksClusterEncryptionConfig,
    EksClusterEncryptionConfigProvider,
    EksClusterKubernetesNetworkConfig,
    EksClusterUpgradePolicy,
    EksClusterVpcConfig,
)
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy_attachment import IamRolePolicyAttachment
from cdktn_provider_aws.vpc_security_group_ingress_rule import VpcSecurityGroupIngressRule

from terraform.node_pool import WORKLOADS
from terraform.platform.logs import Logs
from terraform.platform.network import NetworkOutputs
from terraform.policy import trust
from terraform.settings import Environment
from terraform.versions import Versions

CONTROL_PLANE_LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


def add_cluster(
    stack: TerraformStack, environment: Environment, versions: Versions, network: NetworkOutputs, logs: Logs
) -> EksCluster:
    """The control plane, who may administer it, and which networks may reach its private endpoint."""
    role = IamRole(
        stack,
        "cluster-role",
        name=f"{environment.cluster_name}-cluster",
        description="The EKS control plane",
        assume_role_policy=trust("eks.amazonaws.com"),
    )
    permission = IamRolePolicyAttachment(
        stack,
        "cluster-role-eks",
        role=role.name,
        policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
    )
    public = [str(cidr) for cidr in environment.cluster.public_access_cidrs]
    cluster = EksCluster(
        stack,
        "cluster",
        name=environment.cluster_name,
        role_arn=role.arn,
        version=versions.kubernetes,
        vpc_config=EksClusterVpcConfig(
            subnet_ids=network.private_subnet_ids,
            endpoint_private_access=True,
            endpoint_public_access=bool(public),
            public_access_cidrs=public or None,
        ),
        access_config=EksClusterAccessConfig(
            authentication_mode="API", bootstrap_cluster_creator_admin_permissions=False
        ),
        kubernetes_network_config=EksClusterKubernetesNetworkConfig(
            service_ipv4_cidr=str(environment.network.service_cidr)
        ),
        encryption_config=EksClusterEncryptionConfig(
            resources=["secrets"], provider=EksClusterEncryptionConfigProvider(key_arn=logs.key.arn)
        ),
        enabled_cluster_log_types=CONTROL_PLANE_LOGS,
        bootstrap_self_managed_addons=False,
        deletion_protection=environment.deletion_protection,
        # Standard support only: an old version is upgraded by EKS rather than billed at six times the price.
        upgrade_policy=EksClusterUpgradePolicy(support_type="STANDARD"),
        depends_on=[permission, logs.control_plane],
    )
    for number, admin in enumerate(environment.cluster.admins):
        _admin(stack, cluster, number, admin)
    for number, peer in enumerate(environment.network.peered_cidrs):
        VpcSecurityGroupIngressRule(
            stack,
            f"api-from-peer-{number}",
            security_group_id=cluster.vpc_config.cluster_security_group_id,
            description="Kubernetes API from a peered network",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            cidr_ipv4=str(peer),
        )
    return cluster


def _admin(stack: TerraformStack, cluster: EksCluster, number: int, principal: str) -> None:
    entry = EksAccessEntry(
        stack, f"admin-{number}", cluster_name=cluster.name, principal_arn=principal, type="STANDARD"
    )
    EksAccessPolicyAssociation(
        stack,
        f"admin-{number}-policy",
        cluster_name=cluster.name,
        principal_arn=entry.principal_arn,
        policy_arn=ADMIN_POLICY,
        access_scope=EksAccessPolicyAssociationAccessScope(type="cluster"),
    )


@dataclass(frozen=True)
class AddonRoles:
    """Roles of the add-ons that call AWS."""

    vpc_cni: IamRole
    ebs_csi: IamRole


def add_agents(
    stack: TerraformStack, versions: Versions, cluster: EksCluster, roles: AddonRoles
) -> tuple[EksAddon, ...]:
    """Add-ons that nodes need to become ready. They are daemon sets, so they exist before the first node does."""
    agent = _addon(stack, versions, cluster, "eks-pod-identity-agent")
    proxy = _addon(stack, versions, cluster, "kube-proxy")
    cni = _addon(
        stack,
        versions,
        cluster,
        "vpc-cni",
        configuration={"enableNetworkPolicy": "true"},
        identity=("aws-node", roles.vpc_cni),
    )
    return (agent, proxy, cni)


def add_services(
    stack: TerraformStack,
    environment: Environment,
    versions: Versions,
    cluster: EksCluster,
    roles: AddonRoles,
    nodes: Sequence[ITerraformDependable],
) -> None:
    """Add-ons whose pods need the system pool's `nodes`."""
    system: dict[str, object] = {"nodeSelector": {"node-type": WORKLOADS["system"].node_type}}
    _addon(stack, versions, cluster, "coredns", configuration=system, after=nodes)
    _addon(
        stack,
        versions,
        cluster,
        "aws-ebs-csi-driver",
        # Volumes of PersistentVolumeClaims carry our tags, so that `make destroy` finds the ones left behind.
        configuration={
            "controller": {**system, "extraVolumeTags": environment.tags},
            "defaultStorageClass": {"enabled": True},
        },
        identity=("ebs-csi-controller-sa", roles.ebs_csi),
        after=nodes,
    )


def _addon(
    stack: TerraformStack,
    versions: Versions,
    cluster: EksCluster,
    name: str,
    configuration: dict[str, object] | None = None,
    identity: tuple[str, IamRole] | None = None,
    after: Sequence[ITerraformDependable] | None = None,
) -> EksAddon:
    """`identity`: the add-on's service account and the role it gets through Pod Identity."""
    account, role = identity or (None, None)
    return EksAddon(
        stack,
        name,
        cluster_name=cluster.name,
        addon_name=name,
        addon_version=versions.eks.addons[name],
        resolve_conflicts_on_create="OVERWRITE",
        resolve_conflicts_on_update="OVERWRITE",
        configuration_values=json.dumps(configuration) if configuration else None,
        pod_identity_association=[EksAddonPodIdentityAssociation(service_account=account, role_arn=role.arn)]
        if account and role
        else None,
        depends_on=list(after) if after else None,
    )
