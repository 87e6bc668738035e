"""A monthly budget over everything that carries the environment's tag."""

from cdktn import TerraformStack
from cdktn_provider_aws.budgets_budget import BudgetsBudget, BudgetsBudgetCostFilter, BudgetsBudgetNotification

from terraform.settings import Environment

SPENT_PERCENT = (50, 80, 100)
FORECAST_PERCENT = 100


def add_budget(stack: TerraformStack, environment: Environment) -> None:
    """Mail `budget.emails` at 50, 80 and 100 % spent, and when the forecast passes 100 %.

    The Environment tag must be active as a cost allocation tag in the paying account, or the filter matches nothing.
    """
    alerts = [("ACTUAL", percent) for percent in SPENT_PERCENT] + [("FORECASTED", FORECAST_PERCENT)]
    BudgetsBudget(
        stack,
        "budget",
        name=environment.cluster_name,
        budget_type="COST",
        time_unit="MONTHLY",
        limit_amount=str(environment.budget.monthly_usd),
        limit_unit="USD",
        cost_filter=[BudgetsBudgetCostFilter(name="TagKeyValue", values=[f"user:Environment${environment.name}"])],
        notification=[
            BudgetsBudgetNotification(
                notification_type=kind,
                comparison_operator="GREATER_THAN",
                threshold=percent,
                threshold_type="PERCENTAGE",
                subscriber_email_addresses=environment.budget.emails,
            )
            for kind, percent in alerts
        ],
    )
