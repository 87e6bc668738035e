"""The platform stack, from the network up."""

from dataclasses import dataclass

from cdktn import App, TerraformOutput, TerraformStack
from cdktn_provider_aws.eks_cluster import EksCluster

from terraform.backend import aws_provider, use_s3_state
from terraform.platform.budget import add_budget
from terraform.platform.cluster import add_agents, add_cluster, add_services
from terraform.platform.database import DatabaseOutputs, add_database
from terraform.platform.identity import add_identity
from terraform.platform.logs import add_logs
from terraform.platform.network import add_network
from terraform.platform.node_pools import add_node_pools
from terraform.platform.permissions import Targets
from terraform.platform.registry import add_registry
from terraform.platform.roles import add_addon_roles, add_node_role
from terraform.settings import Environment
from terraform.storage.stack import Storage
from terraform.versions import Prices, Versions


@dataclass(frozen=True)
class Platform:
    """What the add-ons stack uses of this one."""

    stack: TerraformStack
    cluster: EksCluster
    database: DatabaseOutputs | None


def platform_stack(
    app: App, environment: Environment, versions: Versions, prices: Prices, storage: Storage
) -> Platform:
    """Add the platform stack of `environment` to `app`."""
    stack = TerraformStack(app, "platform")
    use_s3_state(stack, environment)
    aws_provider(stack, environment)
    network = add_network(stack, environment)
    logs = add_logs(stack, environment, network)
    cluster = add_cluster(stack, environment, versions, network, logs)
    roles = add_addon_roles(stack, environment)
    agents = add_agents(stack, versions, cluster, roles)
    nodes = add_node_role(stack, environment)
    pools = add_node_pools(
        stack, environment, versions, prices, cluster, network, nodes.role, [*agents, *nodes.permissions]
    )
    system = [pools[pool.name] for pool in environment.node_pools if pool.workload == "system"]
    add_services(stack, environment, versions, cluster, roles, system)
    database = None
    if environment.database:
        database = add_database(stack, environment, environment.database, versions, network, cluster, logs.key)
    buckets = storage.buckets
    targets = Targets(
        cluster_name=environment.cluster_name,
        cluster_arn=cluster.arn,
        region=environment.region,
        account_id=environment.account_id,
        data=buckets.data.resource.arn,
        artifacts=buckets.artifacts.resource.arn,
        backups=buckets.backups.resource.arn,
        storage_key=buckets.key.arn,
        platform_key=logs.key.arn,
        database_secret=database.secret_arn if database else None,
    )
    add_identity(stack, environment, cluster, targets)
    add_registry(stack, environment, logs.key)
    add_budget(stack, environment)
    TerraformOutput(stack, "cluster_name", value=cluster.name, description="name of the EKS cluster")
    return Platform(stack, cluster, database)
