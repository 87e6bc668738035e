"""Keys and log groups: made before the services that write to them, so that retention and encryption are ours."""

from dataclasses import dataclass

from cdktn import TerraformStack
from cdktn_provider_aws.cloudwatch_log_group import CloudwatchLogGroup
from cdktn_provider_aws.flow_log import FlowLog
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy import IamRolePolicy
from cdktn_provider_aws.kms_alias import KmsAlias
from cdktn_provider_aws.kms_key import KmsKey

from terraform.platform.network import NetworkOutputs
from terraform.policy import ACCOUNT_ROOT_REASON, Statement, key_policy, policy, trust
from terraform.settings import Environment


@dataclass(frozen=True)
class Logs:
    """The platform's key and the control plane's log group."""

    key: KmsKey
    control_plane: CloudwatchLogGroup


def add_logs(stack: TerraformStack, environment: Environment, network: NetworkOutputs) -> Logs:
    """The platform's KMS key, the log groups and the VPC's flow log."""
    key = _platform_key(stack, environment)
    # EKS writes to a group of this name, and makes it without retention or key if it is not there first.
    control_plane = add_log_group(
        stack, "control-plane-logs", f"/aws/eks/{environment.cluster_name}/cluster", environment, key
    )
    flows = add_log_group(stack, "flow-logs", f"/haetsal/{environment.cluster_name}/vpc-flow", environment, key)
    _flow_log(stack, environment, network, flows)
    return Logs(key, control_plane)


def _platform_key(stack: TerraformStack, environment: Environment) -> KmsKey:
    logs = Statement(
        "CloudWatchLogsOfThisEnvironment",
        ("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"),
        ("*",),
        conditions={
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": [
                    f"arn:aws:logs:{environment.region}:{environment.account_id}:log-group:{prefix}"
                    for prefix in (
                        f"/aws/eks/{environment.cluster_name}/*",
                        f"/haetsal/{environment.cluster_name}/*",
                        f"/aws/rds/instance/{environment.cluster_name}-*",
                    )
                ]
            }
        },
        principal={"Service": f"logs.{environment.region}.amazonaws.com"},
        wildcard_reason=ACCOUNT_ROOT_REASON,
    )
    key = KmsKey(
        stack,
        "platform-key",
        description=f"Kubernetes secrets, logs, images and database of {environment.cluster_name}",
        enable_key_rotation=True,
        deletion_window_in_days=30,
        policy=key_policy(environment.account_id, logs),
    )
    KmsAlias(stack, "platform-key-alias", name=f"alias/{environment.cluster_name}-platform", target_key_id=key.key_id)
    return key


def add_log_group(
    stack: TerraformStack, id_: str, name: str, environment: Environment, key: KmsKey
) -> CloudwatchLogGroup:
    """A log group with the environment's retention, encrypted with `key`."""
    return CloudwatchLogGroup(
        stack,
        id_,
        name=name,
        retention_in_days=environment.cluster.log_retention_days,
        kms_key_id=key.arn,
    )


def _flow_log(
    stack: TerraformStack, environment: Environment, network: NetworkOutputs, group: CloudwatchLogGroup
) -> None:
    name = f"{environment.cluster_name}-flow-logs"
    account = {"StringEquals": {"aws:SourceAccount": environment.account_id}}
    role = IamRole(
        stack,
        "flow-logs-role",
        name=name,
        description="VPC flow logs write to their log group",
        assume_role_policy=trust("vpc-flow-logs.amazonaws.com", conditions=account),
    )
    write = Statement(
        "WriteFlowLogs",
        ("logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"),
        (f"{group.arn}:*",),
    )
    IamRolePolicy(stack, "flow-logs-policy", name=name, role=role.id, policy=policy((write,)))
    FlowLog(
        stack,
        "flow-log",
        vpc_id=network.vpc.id,
        traffic_type="ALL",
        log_destination=group.arn,
        iam_role_arn=role.arn,
        max_aggregation_interval=600,
        tags={"Name": name},
    )
