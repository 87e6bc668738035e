"""MLflow's PostgreSQL on RDS. RDS keeps and rotates its password in Secrets Manager; Terraform never sees it."""

from dataclasses import dataclass

from cdktn import Fn, TerraformResourceLifecycle, TerraformStack
from cdktn_provider_aws.db_instance import DbInstance
from cdktn_provider_aws.db_parameter_group import DbParameterGroup, DbParameterGroupParameter
from cdktn_provider_aws.db_subnet_group import DbSubnetGroup
from cdktn_provider_aws.eks_cluster import EksCluster
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy_attachment import IamRolePolicyAttachment
from cdktn_provider_aws.kms_key import KmsKey
from cdktn_provider_aws.security_group import SecurityGroup
from cdktn_provider_aws.vpc_security_group_ingress_rule import VpcSecurityGroupIngressRule

from terraform.platform.logs import add_log_group
from terraform.platform.network import NetworkOutputs
from terraform.policy import trust
from terraform.settings import Database, Environment
from terraform.versions import Versions

PORT = 5432
USER = "mlflow"
NAME = "mlflow"


@dataclass(frozen=True)
class DatabaseOutputs:
    """Address and secret of the database."""

    address: str
    secret_arn: str


def add_database(
    stack: TerraformStack,
    environment: Environment,
    settings: Database,
    versions: Versions,
    network: NetworkOutputs,
    cluster: EksCluster,
    key: KmsKey,
) -> DatabaseOutputs:
    """A PostgreSQL instance that only the cluster's pods reach, over TLS."""
    name = f"{environment.cluster_name}-mlflow"
    group = _reachable_from(stack, name, network, cluster)
    subnets = DbSubnetGroup(
        stack, "database-subnets", name=name, subnet_ids=network.private_subnet_ids, description="Private subnets"
    )
    parameters = DbParameterGroup(
        stack,
        "database-parameters",
        name=f"{name}-postgres{versions.postgres}",
        family=f"postgres{versions.postgres}",
        description="TLS required, statements that change the schema logged",
        parameter=[
            DbParameterGroupParameter(name="rds.force_ssl", value="1"),
            DbParameterGroupParameter(name="log_statement", value="ddl"),
            DbParameterGroupParameter(name="log_min_duration_statement", value="1000"),
        ],
    )
    exports = ["postgresql", "upgrade"]
    # RDS makes these groups itself, without retention or key, if they are not there first; and leaves them behind.
    groups = [
        add_log_group(stack, f"database-{export}-logs", f"/aws/rds/instance/{name}/{export}", environment, key)
        for export in exports
    ]
    database = DbInstance(
        stack,
        "database",
        identifier=name,
        engine="postgres",
        engine_version=versions.postgres,
        instance_class=settings.instance_class,
        allocated_storage=settings.storage_gib,
        max_allocated_storage=settings.max_storage_gib,
        storage_type="gp3",
        storage_encrypted=True,
        kms_key_id=key.arn,
        db_name=NAME,
        username=USER,
        manage_master_user_password=True,
        master_user_secret_kms_key_id=key.key_id,
        iam_database_authentication_enabled=True,
        port=PORT,
        publicly_accessible=False,
        multi_az=settings.multi_az,
        db_subnet_group_name=subnets.name,
        vpc_security_group_ids=[group.id],
        parameter_group_name=parameters.name,
        backup_retention_period=settings.backup_days,
        backup_window="17:00-18:00",  # UTC: 02:00 to 03:00 in Seoul
        maintenance_window="sun:18:30-sun:19:30",
        copy_tags_to_snapshot=True,
        auto_minor_version_upgrade=True,
        performance_insights_enabled=True,
        performance_insights_kms_key_id=key.arn,
        monitoring_interval=60,
        monitoring_role_arn=_monitoring_role(stack, environment).arn,
        enabled_cloudwatch_logs_exports=exports,
        deletion_protection=environment.deletion_protection,
        skip_final_snapshot=False,
        # Each incarnation needs its own snapshot name; fixed at creation, so that plans do not change with the clock.
        final_snapshot_identifier=f"{name}-final-{Fn.formatdate('YYYYMMDDhhmmss', Fn.timestamp())}",
        lifecycle=TerraformResourceLifecycle(ignore_changes=["final_snapshot_identifier"]),
        depends_on=list(groups),
    )
    return DatabaseOutputs(database.address, database.master_user_secret.get(0).secret_arn)


def _reachable_from(stack: TerraformStack, name: str, network: NetworkOutputs, cluster: EksCluster) -> SecurityGroup:
    group = SecurityGroup(
        stack,
        "database-security-group",
        name=name,
        description="PostgreSQL from the cluster's nodes",
        vpc_id=network.vpc.id,
        tags={"Name": name},
    )
    VpcSecurityGroupIngressRule(
        stack,
        "database-from-cluster",
        security_group_id=group.id,
        description="PostgreSQL from the cluster's nodes",
        ip_protocol="tcp",
        from_port=PORT,
        to_port=PORT,
        referenced_security_group_id=cluster.vpc_config.cluster_security_group_id,
    )
    return group


def _monitoring_role(stack: TerraformStack, environment: Environment) -> IamRole:
    role = IamRole(
        stack,
        "database-monitoring-role",
        name=f"{environment.cluster_name}-rds-monitoring",
        description="RDS writes operating system metrics to CloudWatch",
        assume_role_policy=trust("monitoring.rds.amazonaws.com"),
    )
    IamRolePolicyAttachment(
        stack,
        "database-monitoring-policy",
        role=role.name,
        policy_arn="arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
    )
    return role
