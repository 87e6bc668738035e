"""Alert rules by Prometheus' own tester, and dashboards as Grafana reads them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.cases import AWS
from tests.charts.helm import only

TESTS = sorted(Path(__file__).parent.glob("*.test.yaml"))


@pytest.fixture(scope="module")
def groups(helm) -> list[dict]:
    return only(helm.render("haetsal", AWS), "PrometheusRule")["spec"]["groups"]


@pytest.fixture(scope="module")
def promtool(tmp_path_factory, groups):
    """Run promtool in a folder with the rendered rules and the tests."""
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    for file in TESTS:
        shutil.copy(file, folder)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_rules_fire_when_they_must_and_only_then(promtool):
    done = promtool("test", "rules", *(file.name for file in TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_nothing_to_say(promtool):
    done = promtool("check", "rules", "--lint-fatal", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not(groups):
    cases = [case for file in TESTS for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fires = {c["alertname"] for c in checks if c["exp_alerts"]}
    silent = {c["alertname"] for c in checks if not c["exp_alerts"]}
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert fires == silent == alerts


def test_every_alert_says_what_to_do(groups):
    for group in groups:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert len(rule["annotations"]["summary"].split()) >= 4
            assert len(rule["annotations"]["runbook"].split()) >= 5, rule["alert"]
            assert "@namespace@" not in rule["expr"]


def test_every_alert_has_its_section_in_the_runbook(groups, repository):
    text = (repository / "ops" / "RUNBOOK.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\S+)\n\n(\S.*)", text.partition("# Alerts of Prometheus")[2], re.MULTILINE)
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    assert sorted(name for name, _ in sections) == sorted(alerts)
    assert set(re.findall(r"\(#([a-z-]+)\)", text)) <= {
        name.lower() for name in re.findall(r"^## (\S+)", text, re.MULTILINE)
    }


def dashboards(objects: list[dict]) -> dict[str, dict]:
    labelled = (o for o in objects if o["metadata"]["labels"].get("grafana_dashboard") == "1")
    return {name: json.loads(text) for o in labelled for name, text in o["data"].items()}


def test_one_configmap_holds_one_dashboard_and_fits(helm):
    objects = [o for o in helm.render("haetsal", AWS) if o["metadata"]["name"].startswith("dashboard-")]
    assert len(objects) == len(dashboards(objects)) >= 4
    for entry in objects:
        assert entry["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = entry["data"].values()
        assert len(text) < 900_000
    boards = dashboards(objects).values()
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(objects)


def test_every_panels_query_is_promql(helm, promtool, tmp_path):
    """Grafana's variables stand for what Prometheus would get."""
    expressions = [
        target["expr"].replace("$__rate_interval", "5m").replace("$cluster", ".*").replace("$run", ".*")
        for board in dashboards(helm.render("haetsal", AWS)).values()
        for panel in board["panels"]
        for target in panel["targets"]
    ]
    assert len(expressions) > 20 and not any(re.search(r"\$\w", expression) for expression in expressions)
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
