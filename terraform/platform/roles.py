"""Roles of nodes and of the cluster's own add-ons."""

from dataclasses import dataclass

from cdktn import ITerraformDependable, TerraformStack
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy_attachment import IamRolePolicyAttachment

from terraform.platform.cluster import AddonRoles
from terraform.policy import trust
from terraform.settings import Environment

MANAGED = "arn:aws:iam::aws:policy"
POD_IDENTITY_TRUST = trust("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession")


@dataclass(frozen=True)
class NodeRole:
    """The nodes' role and the permissions that must be there before a node joins."""

    role: IamRole
    permissions: tuple[ITerraformDependable, ...]


def managed_role(
    stack: TerraformStack, environment: Environment, name: str, description: str, assume: str, policies: tuple[str, ...]
) -> tuple[IamRole, tuple[IamRolePolicyAttachment, ...]]:
    """A role with policies that AWS maintains; `policies` are paths below arn:aws:iam::aws:policy."""
    role = IamRole(
        stack,
        f"{name}-role",
        name=f"{environment.cluster_name}-{name}",
        description=description,
        assume_role_policy=assume,
    )
    attachments = tuple(
        IamRolePolicyAttachment(
            stack, f"{name}-role-{path.split('/')[-1]}", role=role.name, policy_arn=f"{MANAGED}/{path}"
        )
        for path in policies
    )
    return role, attachments


def add_node_role(stack: TerraformStack, environment: Environment) -> NodeRole:
    """Nodes join the cluster and pull images. Pod networking has its own role, so a pod on a node gains nothing."""
    role, permissions = managed_role(
        stack,
        environment,
        "node",
        "EKS nodes join the cluster and pull images",
        trust("ec2.amazonaws.com"),
        ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore"),
    )
    return NodeRole(role, permissions)


def add_addon_roles(stack: TerraformStack, environment: Environment) -> AddonRoles:
    """Roles of the VPC CNI and of the EBS driver, given through Pod Identity."""
    cni, _ = managed_role(
        stack,
        environment,
        "vpc-cni",
        "aws-node gives pods their addresses",
        POD_IDENTITY_TRUST,
        ("AmazonEKS_CNI_Policy",),
    )
    csi, _ = managed_role(
        stack,
        environment,
        "ebs-csi",
        "The EBS driver makes and attaches volumes",
        POD_IDENTITY_TRUST,
        ("service-role/AmazonEBSCSIDriverPolicy",),
    )
    return AddonRoles(vpc_cni=cni, ebs_csi=csi)
