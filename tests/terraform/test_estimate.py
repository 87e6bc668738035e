"""The monthly estimate: arithmetic checked by hand, and assumptions stated."""

import pytest

from terraform.estimate import estimate, report


def line(environment, prices, start: str):
    (found,) = [row for row in estimate(environment, prices) if row.what.startswith(start)]
    return found


def test_a_pool_costs_its_dearest_type_at_min_and_at_max(environments, prices):
    training = line(environments["dev"], prices, "pool training")
    node = 1.490 * 730 + 200 * 0.0912  # g5.2xlarge is dearer than g6.2xlarge
    assert training.least_usd == 0
    assert training.most_usd == pytest.approx(4 * node)


def test_fixed_costs(environments, prices):
    dev, prod = environments["dev"], environments["prod"]
    assert line(dev, prices, "EKS").least_usd == pytest.approx(73)
    assert line(dev, prices, "NAT").least_usd == pytest.approx(0.064 * 730)
    assert line(prod, prices, "NAT").least_usd == pytest.approx(3 * 0.064 * 730)
    assert line(prod, prices, "KMS keys (3)").least_usd == 3
    assert line(prod, prices, "PostgreSQL").least_usd == pytest.approx(2 * (0.222 * 730 + 20 * 0.131) + 0.40)
    assert not [row for row in estimate(dev, prices) if row.what.startswith("PostgreSQL")]


def test_the_report_states_date_region_and_what_is_missing(environments, prices):
    text = report(environments["dev"], prices)
    total = sum(row.most_usd for row in estimate(environments["dev"], prices))
    assert f"{total:,.0f}" in text
    assert "list prices of ap-northeast-2 of 2026-11-22" in text
    assert "Not in it: traffic" in text
    assert "yours is" not in text
    lab = report(environments["lab"], prices)
    assert "yours is ap-northeast-1" in lab
    assert "BELOW the smallest estimate" in lab
