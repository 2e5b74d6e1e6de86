"""Tokens and what they cost: by the names of models, which are not chatd's own, and by prices that are settings."""

from typing import Any

import pytest
from prometheus_client import generate_latest

from chatd.config import Config, read_config
from chatd.errors import ConfigError
from chatd.metrics import MAX_MODELS, Metrics
from chatd.parsing import Price, prices
from tests.test_metrics import Scrape


def spent(metrics: Metrics) -> Scrape:
    return Scrape(generate_latest(metrics.registry).decode())


def test_names_of_models_are_bounded() -> None:
    metrics = Metrics("asked-for", {"priced": Price(1, 2, 3, 4)})
    for n in range(MAX_MODELS + 50):
        metrics.model.spend(f"model-{n}", {"input_tokens": 1})
    metrics.model.spend("a name with\nwords", {"input_tokens": 1})
    metrics.model.spend("priced", {"input_tokens": 10**6})
    now = spent(metrics)
    names = {sample.labels["model"] for sample in now.samples if sample.name == "chatd_tokens_total"}
    assert len(names) <= MAX_MODELS + 1
    assert {"other", "priced", "model-0"} <= names
    assert now("chatd_tokens_total", model="other") > 50
    assert now("chatd_cost_usd_total") == 1


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": "many", "output_tokens": -5}, {"input_tokens": None}])
def test_usage_that_can_not_be_is_not_counted(usage: dict[str, Any] | None) -> None:
    metrics = Metrics("m", {"m": Price(1, 1, 1, 1)})
    metrics.model.spend("m", usage)
    assert spent(metrics)("chatd_tokens_total") == spent(metrics)("chatd_cost_usd_total") == 0


@pytest.mark.parametrize("model", ["m-1", "m-1-20260901", "m-1@20260901"])
def test_a_price_holds_for_a_models_releases(model: str) -> None:
    metrics = Metrics("m-1", prices("m-1=2/4/6/8, m=100/100/100/100"))
    metrics.model.spend(model, {"input_tokens": 1_000_000, "output_tokens": 500_000})
    assert spent(metrics)("chatd_cost_usd_total", model=model) == 4


async def test_prices(config: Config) -> None:
    given = "claude-sonnet-5-5=3/15/3.75/0.30,vendor/m:free=0/0/0/0,m+tools=1/2/3/4"
    assert read_config({"CHATD_PRICES": given}).prices == {
        "claude-sonnet-5-5": Price(input=3, output=15, cache_write=3.75, cache_read=0.30),
        "vendor/m:free": Price(0, 0, 0, 0),
        "m+tools": Price(1, 2, 3, 4),
    }
    assert config.prices == {}


WRONG_AMOUNTS = ["", "1", "1/2", "1/2/3/4/5", "1/2/3/x", "1/2/3/-4", "1/2/3/nan", "1/2/3/1e9", "//3/4"]
WRONG_LISTS = ["m", "=1/2/3/4", "a b=1/2/3/4", "m=1/2/3/4,m=1/2/3/5", ",", "m=1/2/3/4;n=1/2/3/4"]


@pytest.mark.parametrize("text", [*(f"m={amounts}" for amounts in WRONG_AMOUNTS), *WRONG_LISTS])
def test_prices_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="CHATD_PRICES: "):
        read_config({"CHATD_PRICES": text})
