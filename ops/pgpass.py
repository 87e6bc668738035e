"""Keep libpq's password file equal to the secret that RDS rotates: sidecars of MLflow, backup and drill run it.

libpq reads the file at every new connection, so a rotated password needs no restart and is never in the cluster's etcd.
An error ends the process; the kubelet starts it again.
"""

import argparse
import json
import time
from pathlib import Path

import boto3

REFRESH_S = 60


def line(secret: dict[str, str]) -> str:
    """One .pgpass line for every host, port and database. Source: PostgreSQL manual, "The Password File"."""
    user, password = (secret[key].replace("\\", "\\\\").replace(":", "\\:") for key in ("username", "password"))
    return f"*:*:*:{user}:{password}"


def refresh(path: Path, secret_arn: str) -> None:
    """Write the current password to `path`, readable by its owner only, in one step."""
    answer = boto3.client("secretsmanager").get_secret_value(SecretId=secret_arn)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(line(json.loads(answer["SecretString"])) + "\n", encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m ops.pgpass", description=__doc__)
    options.add_argument("path", type=Path, help="password file, made if it is not there")
    options.add_argument("secret_arn", help="the secret in AWS Secrets Manager")
    arguments = options.parse_args()
    while True:
        refresh(arguments.path, arguments.secret_arn)
        time.sleep(REFRESH_S)
