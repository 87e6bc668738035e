"""VPC over three zones: private subnets for nodes, public ones for NAT gateways, endpoints, flow logs."""

from dataclasses import dataclass

from cdktn import ITerraformDependable, TerraformStack
from cdktn_provider_aws.default_security_group import DefaultSecurityGroup
from cdktn_provider_aws.eip import Eip
from cdktn_provider_aws.internet_gateway import InternetGateway
from cdktn_provider_aws.nat_gateway import NatGateway
from cdktn_provider_aws.route import Route
from cdktn_provider_aws.route_table import RouteTable
from cdktn_provider_aws.route_table_association import RouteTableAssociation
from cdktn_provider_aws.security_group import SecurityGroup
from cdktn_provider_aws.subnet import Subnet
from cdktn_provider_aws.vpc import Vpc
from cdktn_provider_aws.vpc_endpoint import VpcEndpoint
from cdktn_provider_aws.vpc_security_group_ingress_rule import VpcSecurityGroupIngressRule

from terraform.settings import INTERFACE_ENDPOINTS, Environment


@dataclass(frozen=True)
class NetworkOutputs:
    """What other parts need of the network. `egress`: what must exist before a node can reach the world."""

    vpc: Vpc
    private_subnets: dict[str, Subnet]
    """Zone letter to private subnet."""
    egress: tuple[ITerraformDependable, ...]

    @property
    def private_subnet_ids(self) -> list[str]:
        return [subnet.id for subnet in self.private_subnets.values()]


def add_network(stack: TerraformStack, environment: Environment) -> NetworkOutputs:
    """The VPC and all that routes in it."""
    name, settings = environment.cluster_name, environment.network
    vpc = Vpc(
        stack,
        "vpc",
        cidr_block=str(settings.cidr),
        enable_dns_support=True,
        enable_dns_hostnames=True,
        tags={"Name": name},
    )
    # The VPC's default group lets its members talk to each other; nothing of ours uses it, so it is emptied.
    DefaultSecurityGroup(stack, "default-security-group", vpc_id=vpc.id, tags={"Name": f"{name}-default-closed"})
    gateway = InternetGateway(stack, "internet-gateway", vpc_id=vpc.id, tags={"Name": name})
    quarters = list(settings.cidr.subnets(prefixlen_diff=2))
    public_ranges = list(quarters[3].subnets(prefixlen_diff=2))
    public_table = RouteTable(stack, "public-routes", vpc_id=vpc.id, tags={"Name": f"{name}-public"})
    Route(
        stack,
        "public-default-route",
        route_table_id=public_table.id,
        destination_cidr_block="0.0.0.0/0",
        gateway_id=gateway.id,
    )
    private: dict[str, Subnet] = {}
    tables: list[RouteTable] = []
    routes: list[Route] = []
    nat: NatGateway | None = None
    for letter, private_range, public_range in zip(settings.zones, quarters, public_ranges, strict=False):
        zone = f"{environment.region}{letter}"
        public = Subnet(
            stack,
            f"public-{letter}",
            vpc_id=vpc.id,
            availability_zone=zone,
            cidr_block=str(public_range),
            tags={"Name": f"{name}-public-{letter}", "kubernetes.io/role/elb": "1"},
        )
        RouteTableAssociation(stack, f"public-{letter}-routes", subnet_id=public.id, route_table_id=public_table.id)
        private[letter] = Subnet(
            stack,
            f"private-{letter}",
            vpc_id=vpc.id,
            availability_zone=zone,
            cidr_block=str(private_range),
            tags={"Name": f"{name}-private-{letter}", "kubernetes.io/role/internal-elb": "1"},
        )
        if nat is None or settings.nat == "per-zone":
            nat = _nat(stack, name, letter, public, gateway)
        table = RouteTable(stack, f"private-{letter}-table", vpc_id=vpc.id, tags={"Name": f"{name}-private-{letter}"})
        RouteTableAssociation(stack, f"private-{letter}-routes", subnet_id=private[letter].id, route_table_id=table.id)
        routes.append(
            Route(
                stack,
                f"private-{letter}-default-route",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=nat.id,
            )
        )
        tables.append(table)
    outputs = NetworkOutputs(vpc, private, tuple(routes))
    _endpoints(stack, environment, outputs, tables)
    return outputs


def _nat(stack: TerraformStack, name: str, letter: str, public: Subnet, gateway: InternetGateway) -> NatGateway:
    tags = {"Name": f"{name}-nat-{letter}"}
    address = Eip(stack, f"nat-{letter}-address", domain="vpc", tags=tags)
    return NatGateway(
        stack,
        f"nat-{letter}",
        allocation_id=address.id,
        subnet_id=public.id,
        depends_on=[gateway],
        tags=tags,
    )


def _endpoints(
    stack: TerraformStack, environment: Environment, network: NetworkOutputs, tables: list[RouteTable]
) -> None:
    name, service = environment.cluster_name, f"com.amazonaws.{environment.region}"
    VpcEndpoint(
        stack,
        "s3-endpoint",
        vpc_id=network.vpc.id,
        service_name=f"{service}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[table.id for table in tables],
        tags={"Name": f"{name}-s3"},
    )
    group = SecurityGroup(
        stack,
        "endpoint-security-group",
        name=f"{name}-endpoints",
        description="HTTPS from inside the VPC to AWS service endpoints",
        vpc_id=network.vpc.id,
        tags={"Name": f"{name}-endpoints"},
    )
    VpcSecurityGroupIngressRule(
        stack,
        "endpoint-https",
        security_group_id=group.id,
        description="HTTPS from the VPC",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        cidr_ipv4=str(environment.network.cidr),
    )
    for endpoint in INTERFACE_ENDPOINTS:
        VpcEndpoint(
            stack,
            f"{endpoint.replace('.', '-')}-endpoint",
            vpc_id=network.vpc.id,
            service_name=f"{service}.{endpoint}",
            vpc_endpoint_type="Interface",
            private_dns_enabled=True,
            subnet_ids=network.private_subnet_ids,
            security_group_ids=[group.id],
            tags={"Name": f"{name}-{endpoint}"},
        )
