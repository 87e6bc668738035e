"""CRD upgrades: the very commands, on programs that record how they were called (helm and a cluster are not here)."""

from pathlib import Path

import pytest

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.kubernetes import apply_crds, write_context


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put programs on PATH that append their arguments and input to `calls`, then do what the test says."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(name: str, then: str) -> Path:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{then}\n')
        path.chmod(0o755)
        return calls

    return install


CRD = 'echo "kind: CustomResourceDefinition # $3"'


def test_crds_of_the_pinned_charts_are_applied_server_side(programs, versions, capsys):
    programs("helm", CRD)
    calls = programs("kubectl", 'sed "s/^/applied: /"')
    apply_crds(versions, "haetsal-dev")
    kubectl = "kubectl --context haetsal-dev apply --server-side --force-conflicts -f -"
    charts = versions.charts
    operator, stack = charts["kuberay-operator"], charts["kube-prometheus-stack"]
    assert calls.read_text().splitlines() == [
        f"helm show crds kuberay-operator --repo {operator.repository} --version 1.7.0",
        kubectl,
        f"helm show crds kube-prometheus-stack --repo {stack.repository} --version {stack.version}",
        kubectl,
    ]
    assert "applied: kind: CustomResourceDefinition # kuberay-operator" in capsys.readouterr().out


def test_a_chart_that_brings_no_crds_is_an_error(programs, versions):
    programs("helm", "true")
    calls = programs("kubectl", "true")
    with pytest.raises(RemoteError, match=r"kuberay-operator 1\.7\.0 brought no CRDs; check `crds` in versions\.yaml"):
        apply_crds(versions, "haetsal-dev")
    assert "kubectl" not in calls.read_text()


def test_what_helm_says_reaches_the_person(programs, versions):
    programs("helm", "echo 'Error: no such host' >&2; exit 1")
    with pytest.raises(RemoteError, match="helm show crds failed: Error: no such host"):
        apply_crds(versions, "haetsal-dev")


def test_a_missing_program_is_named(programs, versions, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(EnvironmentNotReady, match="helm is not on PATH"):
        apply_crds(versions, "haetsal-dev")


def test_the_context_carries_the_clusters_name(programs, environments):
    calls = programs("aws", "true")
    assert write_context(environments["prod"]) == "haetsal-prod"
    expected = "aws eks update-kubeconfig --name haetsal-prod --alias haetsal-prod --region ap-northeast-2\n"
    assert calls.read_text() == expected
