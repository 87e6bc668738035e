"""ECR repositories for the images that `make images` builds."""

import json

from cdktn import TerraformOutput, TerraformStack
from cdktn_provider_aws.ecr_lifecycle_policy import EcrLifecyclePolicy
from cdktn_provider_aws.ecr_repository import (
    EcrRepository,
    EcrRepositoryEncryptionConfiguration,
    EcrRepositoryImageScanningConfiguration,
)
from cdktn_provider_aws.kms_key import KmsKey

from terraform.settings import Environment

IMAGES = ("job-cpu", "job-gpu", "ops", "gateway")
KEPT_RELEASES = 20

_LIFECYCLE = json.dumps(
    {
        "rules": [
            {
                "rulePriority": 1,
                "description": "layers of failed pushes",
                "selection": {
                    "tagStatus": "untagged",
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": 7,
                },
                "action": {"type": "expire"},
            },
            {
                "rulePriority": 2,
                "description": f"all but the newest {KEPT_RELEASES} releases",
                "selection": {
                    "tagStatus": "tagged",
                    "tagPatternList": ["*"],
                    "countType": "imageCountMoreThan",
                    "countNumber": KEPT_RELEASES,
                },
                "action": {"type": "expire"},
            },
        ]
    }
)


def add_registry(stack: TerraformStack, environment: Environment, key: KmsKey) -> None:
    """One repository per image: scanned on push, tags immutable, old releases expired."""
    for image in IMAGES:
        repository = EcrRepository(
            stack,
            f"image-{image}",
            name=f"{environment.cluster_name}/{image}",
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=EcrRepositoryImageScanningConfiguration(scan_on_push=True),
            encryption_configuration=[EcrRepositoryEncryptionConfiguration(encryption_type="KMS", kms_key=key.arn)],
            force_delete=True,  # images are rebuilt from the repository's source; data is not
        )
        EcrLifecyclePolicy(stack, f"image-{image}-lifecycle", repository=repository.name, policy=_LIFECYCLE)
    TerraformOutput(stack, "registry", value=environment.registry, description="where images are pushed")
