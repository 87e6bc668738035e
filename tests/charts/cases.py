"""The matrix of values that every check of rendered objects goes over."""

AWS = {
    "profile": "aws",
    "images": {"registry": "123456789012.dkr.ecr.ap-northeast-2.amazonaws.com/haetsal-dev"},
    "storage": {"root": "s3://artifacts", "data": "s3://data", "backups": "s3://backups"},
    "tracking": {"uri": "http://mlflow.mlflow.svc:5000"},
}
ALL = {"serving": {"enabled": True}, "gateway": {"enabled": True}, "queues": {"enabled": True}}
NOTHING = {
    "cluster": {"enabled": False},
    "monitoring": {"enabled": False},
    "priorities": {"enabled": False},
    "operations": {
        "drillNamespace": "",
        "jobs": {n: {"enabled": False} for n in ("backup", "health", "drill", "retention", "cost")},
    },
}
CONFIG = 'model: {source: "org/모델"}\ntrain: {epochs: 1}\n'
FIXED = {"config": CONFIG, "workers": {"training": {"min": 2, "max": 2}}}
ELASTIC = {"config": CONFIG, "workers": {"training": {"min": 1, "max": 4}, "preprocessing": {"min": 0, "max": 8}}}
SHARED = {"config": CONFIG, "sharedCluster": "haetsal", "retries": 0}
QUEUED = FIXED | {"queue": "runs"}

POSTGRES = {
    "tracking": {"database": "postgresql://mlflow@db:5432/mlflow", "databaseSecret": "arn:aws:secretsmanager:x"}
}

# name: (chart, values, values files)
CASES = {
    "platform on aws": ("haetsal", AWS, ()),
    "platform on aws, all": ("haetsal", AWS | ALL, ()),
    "platform with a database": ("haetsal", AWS | POSTGRES, ()),
    "platform on kind": ("haetsal", {}, ("values-kind.yaml",)),
    "platform on kind, all": ("haetsal", ALL, ("values-kind.yaml",)),
    "platform, nothing": ("haetsal", AWS | NOTHING, ()),
    "platform, pull secrets and recreate": (
        "haetsal",
        AWS | {"images": {"pullSecrets": ["mirror"], "tag": "1.2.3"}, "cluster": {"upgrade": "Recreate"}},
        (),
    ),
    "run of fixed size": ("ray-job", FIXED, ()),
    "elastic run": ("ray-job", ELASTIC, ()),
    "run on a shared cluster": ("ray-job", SHARED, ()),
    "queued run": ("ray-job", QUEUED, ()),
    "run on kind": ("ray-job", FIXED, ("values-kind.yaml",)),
    "elastic run on kind": ("ray-job", ELASTIC, ("values-kind.yaml",)),
    "run with ttl": ("ray-job", FIXED | {"cleanup": {"ttlSeconds": 600}}, ()),
    "run with rules": (
        "ray-job",
        FIXED
        | {
            "cleanup": {
                "deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 5}}]
            }
        },
        (),
    ),
}
