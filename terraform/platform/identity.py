"""One Pod Identity role per workload: a pod's service account decides what it may do, the node's role never does."""

from cdktn import TerraformStack
from cdktn_provider_aws.eks_cluster import EksCluster
from cdktn_provider_aws.eks_pod_identity_association import EksPodIdentityAssociation
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy import IamRolePolicy

from terraform.platform.permissions import Targets, workloads
from terraform.platform.roles import POD_IDENTITY_TRUST
from terraform.policy import policy
from terraform.settings import Environment


def add_identity(stack: TerraformStack, environment: Environment, cluster: EksCluster, targets: Targets) -> None:
    """Role, inline policy and association for every workload."""
    for name, workload in workloads(targets).items():
        role = IamRole(
            stack,
            f"{name}-role",
            name=f"{environment.cluster_name}-{name}",
            description=workload.purpose,
            assume_role_policy=POD_IDENTITY_TRUST,
        )
        IamRolePolicy(stack, f"{name}-policy", name=name, role=role.id, policy=policy(workload.statements))
        EksPodIdentityAssociation(
            stack,
            f"{name}-identity",
            cluster_name=cluster.name,
            namespace=workload.namespace,
            service_account=workload.service_account,
            role_arn=role.arn,
        )
