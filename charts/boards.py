"""What each dashboard shows. Every query is run against a real Prometheus, by tests/observe or on a GPU by tests/gpu.

Written into the chart by dashboards.py.
"""

from __future__ import annotations

from dataclasses import dataclass

_TRAIN, _GATEWAY, _RATE = "ray_haetsal_train_", "haetsal_gateway_", "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """`queries` are pairs of PromQL and legend. `unit` is Grafana's word for it."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    needs_gpu: bool = False


@dataclass(frozen=True)
class Board:
    """One dashboard. `variable` is a metric's label that it can be narrowed to."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variable: tuple[str, str, str] | None = None
    """Name, metric, label."""


def _panel(title: str, unit: str, *queries: tuple[str, str], gpu: bool = False) -> Panel:
    return Panel(title, unit, queries, gpu)


def _of_runs(title: str, unit: str, metric: str) -> Panel:
    return _panel(title, unit, (f'max by (run) ({_TRAIN}{metric}{{run=~"$run"}})', "{{run}}"))


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Of a histogram of the gateway, by variant."""
    rate = f"sum by (le, model, variant) (rate({_GATEWAY}{metric}_bucket[{_RATE}]))"
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    return tuple((f"histogram_quantile({q}, {rate})", f"{{{{model}}}} {{{{variant}}}} {name}") for q, name in shares)


def _by_variant(metric: str, more: str = "") -> str:
    return f"sum by (model, variant) (rate({_GATEWAY}{metric}{more}[{_RATE}]))"


_ERRORS = 'status=~"5..|cut"'
_CLUSTER = '{ray_io_cluster=~"$cluster"}'
_RUN = ("run", f"{_TRAIN}step", "run")

BOARDS: tuple[Board, ...] = (
    Board(
        "training",
        "training",
        (
            _panel(
                "Loss",
                "none",
                (f'{_TRAIN}loss{{run=~"$run"}}', "{{run}} training"),
                (f'{_TRAIN}held_out_loss{{run=~"$run"}}', "{{run}} held out"),
            ),
            _panel("Progress", "percentunit", (f'{_TRAIN}step{{run=~"$run"}} / {_TRAIN}steps', "{{run}}")),
            _of_runs("Tokens per second, padding not counted", "none", "tokens_per_second"),
            _panel(
                "Tokens trained on",
                "short",
                (f'sum by (run) (increase({_TRAIN}tokens_total{{run=~"$run"}}[1h]))', "{{run}}, last hour"),
            ),
            _of_runs("Time of a step", "s", "step_seconds"),
            _of_runs("Wait for data before a step", "s", "data_wait_seconds"),
            _of_runs("Share of padding", "percentunit", "padding_ratio"),
            _panel("Model FLOP/s utilisation", "percentunit", (f"{_TRAIN}mfu_ratio", "{{run}}"), gpu=True),
            _panel(
                "Age of the last checkpoint",
                "s",
                (f'time() - {_TRAIN}last_checkpoint_timestamp_seconds{{run=~"$run"}}', "{{run}}"),
            ),
            _panel(
                "Since the last step",
                "s",
                (f'time() - {_TRAIN}last_step_timestamp_seconds{{run=~"$run"}}', "{{run}}"),
            ),
            _panel(
                "Use of GPUs",
                "percent",
                ("avg by (ray_io_cluster, pod) (ray_node_gpus_utilization)", "{{pod}}"),
                gpu=True,
            ),
        ),
        _RUN,
    ),
    Board(
        "tuning",
        "tuning",
        (
            _panel("Trials by state", "none", ('ray_haetsal_tune_trials{run=~"$run"} > 0', "{{run}} {{state}}")),
            _panel("Best held-out loss", "none", ('ray_haetsal_tune_best_loss{run=~"$run"}', "{{run}}")),
            _panel(
                "Share of trials stopped early",
                "percentunit",
                (
                    'sum by (run) (ray_haetsal_tune_trials{run=~"$run", state="stopped"})'
                    ' / sum by (run) (ray_haetsal_tune_trials{run=~"$run", state!="running"} > 0)',
                    "{{run}}",
                ),
            ),
            _panel(
                "Trials that went wrong",
                "none",
                (
                    'sum by (run) (ray_haetsal_tune_trials{run=~"$run", state=~"diverged|out_of_memory|died|failed"})',
                    "{{run}}",
                ),
            ),
        ),
        ("run", "ray_haetsal_tune_trials", "run"),
    ),
    Board(
        "serving",
        "serving and A/B tests",
        (
            _panel("Requests", "reqps", (_by_variant("requests_total"), "{{model}} {{variant}}")),
            _panel(
                "Share of errors",
                "percentunit",
                (
                    f"{_by_variant('requests_total', f'{{{_ERRORS}}}')} / {_by_variant('requests_total')}",
                    "{{model}} {{variant}}",
                ),
            ),
            _panel("Time to the first token", "s", *_quantiles("time_to_first_token_seconds")),
            _panel("Time of a whole answer", "s", *_quantiles("request_duration_seconds")),
            _panel(
                "Tokens",
                "none",
                (
                    f"sum by (model, variant, kind) (rate({_GATEWAY}tokens_total[{_RATE}]))",
                    "{{model}} {{variant}} {{kind}}",
                ),
            ),
            _panel(
                "Share of the traffic",
                "percentunit",
                (
                    f"{_by_variant('requests_total')} / on (model) group_left ()"
                    f" sum by (model) (rate({_GATEWAY}requests_total[{_RATE}]))",
                    "{{model}} {{variant}}",
                ),
            ),
            _panel(
                "Thumbs up of all thumbs",
                "percentunit",
                (
                    f'sum by (model, variant) ({_GATEWAY}feedback_total{{thumb="up"}})'
                    f' / sum by (model, variant) ({_GATEWAY}feedback_total{{thumb=~"up|down"}})',
                    "{{model}} {{variant}}",
                ),
            ),
            _panel(
                "In work and waiting",
                "none",
                (f"sum by (backend) ({_GATEWAY}active_requests)", "{{backend}} in work"),
                (f"sum by (backend) ({_GATEWAY}queued_requests)", "{{backend}} waiting"),
            ),
            _panel("Clients connected", "none", (f"sum({_GATEWAY}connections)", "connections")),
            _panel(
                "Tries that failed before the first byte",
                "reqps",
                (f"sum by (backend, reason) (rate({_GATEWAY}retries_total[{_RATE}]))", "{{backend}} {{reason}}"),
            ),
            _panel(
                "Copies for a shadow",
                "reqps",
                (f"sum by (model, outcome) (rate({_GATEWAY}shadow_requests_total[{_RATE}]))", "{{model}} {{outcome}}"),
            ),
            _panel(
                "Replicas wanted and there",
                "none",
                ("sum by (deployment) (ray_serve_autoscaling_target_replicas)", "{{deployment}} wanted"),
                ("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}} healthy"),
            ),
            _panel(
                "Requests at the engines",
                "reqps",
                (
                    f"sum by (deployment) (rate(ray_serve_deployment_request_counter_total[{_RATE}]))",
                    "{{deployment}}",
                ),
            ),
        ),
    ),
    Board(
        "clusters",
        "clusters and autoscaling",
        (
            _panel(
                "Nodes",
                "none",
                (f"count by (ray_io_cluster, ray_io_group) (ray_node_cpu_count{_CLUSTER})", "{{ray_io_group}}"),
            ),
            _panel(
                "Nodes that the autoscaler has, awaits and has lost",
                "none",
                ("sum by (NodeType) (autoscaler_active_nodes)", "{{NodeType}} active"),
                ("sum by (NodeType) (autoscaler_pending_nodes)", "{{NodeType}} pending"),
                ("sum(autoscaler_failed_create_nodes_total)", "could not be made"),
            ),
            _panel(
                "CPUs asked for and there",
                "none",
                ('sum(ray_resources{Name="CPU", State="USED"})', "used"),
                ('sum(ray_resources{Name="CPU"})', "there"),
            ),
            _panel(
                "GPUs asked for and there",
                "none",
                ('sum(ray_resources{Name="GPU", State="USED"})', "used"),
                ('sum(ray_resources{Name="GPU"})', "there"),
                gpu=True,
            ),
            _panel(
                "Use of CPUs",
                "percent",
                (
                    f"avg by (ray_io_cluster, ray_io_group) (ray_node_cpu_utilization{_CLUSTER})",
                    "{{ray_io_cluster}} {{ray_io_group}}",
                ),
            ),
            _panel(
                "Memory",
                "percentunit",
                (f"max by (instance, pod) (ray_node_mem_used{_CLUSTER} / ray_node_mem_total{_CLUSTER})", "{{pod}}"),
            ),
            _panel(
                "Disk",
                "percent",
                (f"max by (instance, pod) (ray_node_disk_utilization_percentage{_CLUSTER})", "{{pod}}"),
            ),
            _panel(
                "Use of GPUs", "percent", (f"avg by (pod) (ray_node_gpus_utilization{_CLUSTER})", "{{pod}}"), gpu=True
            ),
            _panel(
                "Memory of GPUs", "decmbytes", (f"sum by (pod) (ray_node_gram_used{_CLUSTER})", "{{pod}}"), gpu=True
            ),
            _panel("Tasks by state", "none", (f"sum by (State) (ray_tasks{_CLUSTER})", "{{State}}")),
        ),
        ("cluster", "ray_node_cpu_count", "ray_io_cluster"),
    ),
    Board(
        "cost",
        "cost",
        (
            _panel(
                "The month",
                "currencyUSD",
                ("haetsal_cost_month_usd", "spent"),
                ("haetsal_cost_month_idle_usd", "of it while no step ran"),
                ("haetsal_cost_month_budget_usd", "budget"),
            ),
            _panel(
                "Share of the month's budget",
                "percentunit",
                ("haetsal_cost_month_usd / haetsal_cost_month_budget_usd", "spent"),
            ),
            _panel(
                "Per million trained tokens",
                "currencyUSD",
                ("haetsal_cost_usd_per_million_trained_tokens", "this month"),
            ),
            _panel(
                "Per million served tokens",
                "currencyUSD",
                (
                    'sum(count by (ray_io_group) (ray_node_cpu_count{ray_io_group="inference"}) * on () group_left ()'
                    ' haetsal_cost_machine_usd_per_hour{group="inference"})'
                    f" / (sum(rate({_GATEWAY}tokens_total[1h])) * 3600 / 1e6)",
                    "last hour",
                ),
            ),
            _panel("Runs at work", "currencyUSD", ("max by (run) (ray_haetsal_run_cost_usd)", "{{run}}")),
            _panel(
                "Of it while no step ran", "currencyUSD", ("max by (run) (ray_haetsal_run_idle_cost_usd)", "{{run}}")
            ),
            _panel(
                "Share of the runs' budgets",
                "percentunit",
                ("max by (run) (ray_haetsal_run_cost_usd) / max by (run) (ray_haetsal_run_budget_usd)", "{{run}}"),
            ),
            _panel("Price of a machine, per hour", "currencyUSD", ("haetsal_cost_machine_usd_per_hour", "{{group}}")),
        ),
    ),
    Board(
        "backups",
        "backups and health",
        (
            _panel(
                "Age of the newest backup and drill",
                "s",
                ("time() - haetsal_backup_last_successful_timestamp_seconds", "backup"),
                ("time() - haetsal_restore_drill_last_success_timestamp_seconds", "drill"),
            ),
            _panel(
                "Last results, 1 is bad",
                "none",
                ("haetsal_backup_failed", "backup failed"),
                ("haetsal_backup_partially_failed", "backup lacks a source"),
                ("haetsal_restore_drill_failed", "drill failed"),
            ),
            _panel(
                "Time that they took",
                "s",
                ("haetsal_backup_duration_seconds", "backup"),
                ("haetsal_restore_drill_duration_seconds", "drill"),
            ),
            _panel(
                "Size of a backup",
                "bytes",
                ("haetsal_backup_bytes", "all"),
                ("haetsal_backup_sent_bytes", "new"),
                ("haetsal_retention_deleted_bytes", "deleted by retention"),
            ),
            _panel("Backups kept", "none", ("haetsal_retention_backups", "backups")),
            _panel(
                "Findings",
                "none",
                ("haetsal_health_findings_critical", "critical"),
                ("haetsal_health_findings_warning", "warnings"),
            ),
            _panel("Repairs in a day", "none", ("increase(haetsal_health_repairs_total[1d])", "repairs")),
            _panel(
                "Not repaired, not told",
                "none",
                ("haetsal_health_circuits_open", "circuits open"),
                ("haetsal_health_channels_failing", "channels failing"),
            ),
        ),
    ),
)
