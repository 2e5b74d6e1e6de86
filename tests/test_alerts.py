"""What Prometheus and Grafana are given: expressions name what there is; alerts go off when they should."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chat_client import Chat
from tests.metric_names import families, series
from tests.test_metrics import read

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
RULES_FILE = ROOT / "deploy/prometheus-rules.yml"
RULES = yaml.safe_load(RULES_FILE.read_text())["groups"][0]["rules"]
PANELS = DASHBOARD["panels"]
DOCS = (ROOT / "docs/metrics.md").read_text()
PROMTOOL = Path("/usr/bin/promtool")
needs_promtool = pytest.mark.skipif(not PROMTOOL.exists(), reason="no promtool: apt-get install prometheus")

WORDS = {"sum", "count", "rate", "increase", "changes", "histogram_quantile", "or", "up", "label_values"}
TARGET_LABELS = {"instance", "job", "le"}
BY = re.compile(r"\bby \(([^)]*)\)")
MATCHERS = re.compile(r"\{([^}]*)\}")
NOT_NAMES = re.compile(r"\[[^]]*\]|\b[0-9.]+\b")
NAME = re.compile(r"[a-zA-Z_]\w*")


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def expressions() -> list[str]:
    annotated = [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [*panel_expressions(), *annotated, *(rule["expr"] for rule in RULES)]


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """Return the words of an expression that are no labels, and the labels."""
    matched = ",".join(MATCHERS.findall(expression))
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matched))
    labels |= set(NAME.findall(",".join(BY.findall(expression))))
    rest = NOT_NAMES.sub("", BY.sub("", MATCHERS.sub("", expression)))
    return set(NAME.findall(rest)), labels


def label_names() -> set[str]:
    known = {label for family in families() for sample in family.samples for label in sample.labels}
    return known | TARGET_LABELS | {"model", "kind", "method", "route", "status", "outcome"}


def test_expressions_name_what_there_is() -> None:
    for expression in expressions():
        words, labels = names_in(expression)
        assert words - WORDS <= series(), expression
        assert words - WORDS or "up" in words, expression
        assert labels <= label_names(), expression


def test_names_are_found() -> None:
    words, labels = names_in('sum by (code) (rate(chatd_nothing_total{outcom="failed", job!="x"}[5m])) > 0.1')
    assert words == {"sum", "rate", "chatd_nothing_total"}
    assert labels == {"code", "outcom", "job"}


@needs_promtool
async def test_promtool_finds_nothing_wrong_with_the_metrics(chat: Chat) -> None:
    await chat.stream("hi")
    assert promtool("check", "metrics", stdin=await read(chat)) == ""


# The dashboard


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["uid"] == "chatd"
    assert "id" not in DASHBOARD
    assert DASHBOARD["schemaVersion"] >= 36
    source, instance = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert instance["type"] == "query"
    assert names_in(instance["definition"])[0] <= series() | WORDS | {"instance"}
    used = {json.dumps(found) for found in find(DASHBOARD, "datasource")}
    assert used == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}


def find(value: Any, key: str) -> list[Any]:
    """Return what stands under a key, however deep."""
    if isinstance(value, list):
        return [found for item in value for found in find(item, key)]
    if not isinstance(value, dict):
        return []
    here = [value[key]] if key in value and isinstance(value[key], dict) else []
    return here + [found for item in value.values() for found in find(item, key)]


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    assert max(Counter(panel["id"] for panel in PANELS).values()) == 1
    assert max(Counter(panel["title"] for panel in PANELS).values()) == 1
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Durability", "Model", "Process"]
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_asks_for_something_with_a_unit() -> None:
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_metric_is_on_the_dashboard_or_for_comparison() -> None:
    used = {word for expression in expressions() for word in names_in(expression)[0]}
    unused = {name for name in series() - used if not name.endswith(("_bucket", "_sum", "_count"))}
    assert unused == {"process_virtual_memory_bytes", "chatd_draining"}


@needs_promtool
def test_the_dashboards_expressions_can_be_read_by_prometheus(tmp_path: Path) -> None:
    """As rules that record: promtool reads expressions nowhere else."""
    asked = [expression.replace("$__rate_interval", "1m") for expression in panel_expressions()]
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(asked)]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


# Alerts


def promtool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run([PROMTOOL, *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_alert_is_documented_and_says_what_to_do() -> None:
    table = DOCS.partition("| alert |")[2]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [rule["alert"] for rule in RULES]
    assert LOUD.keys() == {rule["alert"] for rule in RULES}
    assert TOO_EARLY.keys() == {rule["alert"] for rule in RULES if "for" in rule}
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert len(rule["annotations"]["summary"]) < 120
        assert len(rule["annotations"]["description"]) > 40


@needs_promtool
def test_the_rules_are_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(RULES_FILE))


QUIET = {
    'up{job="chatd",instance="a"}': "1x120",
    'process_start_time_seconds{job="chatd",instance="a"}': "1000x120",
    'process_open_fds{job="chatd",instance="a"}': "40x120",
    'process_max_fds{job="chatd",instance="a"}': "1024x120",
    'chatd_database_away{instance="a"}': "0x120",
    'chatd_uncommitted_age_seconds{instance="a"}': "0.01x120",
    'chatd_turns_begun_total{instance="a"}': "0+60x120",
    'chatd_turns_total{instance="a",outcome="done",code="ok"}': "0+60x120",
    'chatd_turns_total{instance="a",outcome="failed",code="upstream_cut"}': "0+1x120",
    'chatd_turns_total{instance="a",outcome="failed",code="internal"}': "0x120",
    'chatd_retries_total{instance="a",reason="upstream_cut"}': "0+2x120",
    'chatd_http_requests_total{instance="a",route="/agent/chat",status="200"}': "0+60x120",
    'chatd_errors_total{instance="a"}': "0x120",
    'chatd_http_requests_total{instance="a",route="/agent/chat",status="503"}': "0x120",
    'chatd_http_requests_total{instance="a",route="/readyz",status="503"}': "0+9x120",
    'chatd_limits_reached_total{instance="a",limit="process_turns"}': "0x120",
    'chatd_limits_reached_total{instance="a",limit="turns"}': "0+9x120",
}


def within(name: str, bound: str) -> dict[str, str]:
    """Return the series of a histogram of seconds in which everything is between half of a bound and the bound."""
    below, at = f"{float(bound) / 2:g}", bound
    counts = {below: "0x120", at: "0+60x120", "+Inf": "0+60x120"}
    return {f'chatd_{name}_seconds_bucket{{instance="a",le="{le}"}}': values for le, values in counts.items()}


QUIET |= within("commit_delay", "0.01") | within("first_content", "2")
QUIET |= within("pool_wait", "0.01") | within("event_loop_lag", "0.01")

# alert: the series that set it off within half an hour, and $value in its summary.
LOUD: dict[str, tuple[dict[str, str], str]] = {
    "ChatdDown": ({'up{job="chatd",instance="a"}': "0x120"}, "0"),
    "ChatdRestarts": ({'process_start_time_seconds{job="chatd",instance="a"}': "0x20 300 600 900x60"}, "3"),
    "ChatdDatabaseAway": ({'chatd_database_away{instance="a"}': "1x120"}, "1"),
    "ChatdUnavailable": (
        {'chatd_http_requests_total{instance="a",route="/agent/chat",status="503"}': "0+6x120"},
        "0.1",
    ),
    "ChatdNothingCommitted": ({'chatd_uncommitted_age_seconds{instance="a"}': "20x120"}, "20s"),
    "ChatdCommitsSlow": (within("commit_delay", "1"), "995ms"),
    "ChatdTurnsFailing": ({'chatd_turns_total{instance="a",outcome="failed",code="upstream_cut"}': "0+15x120"}, "20%"),
    "ChatdRetries": ({'chatd_retries_total{instance="a",reason="upstream_cut"}': "0+30x120"}, "50%"),
    "ChatdFirstContentSlow": (within("first_content", "20"), "19.9s"),
    "ChatdErrors": ({'chatd_errors_total{instance="a"}': "0x25 5x95"}, "5"),
    "ChatdPoolWaits": (within("pool_wait", "1"), "995ms"),
    "ChatdLoopLag": (within("event_loop_lag", "0.5"), "497.5ms"),
    "ChatdFull": ({'chatd_limits_reached_total{instance="a",limit="process_turns"}': "0+1x120"}, "5"),
    "ChatdOpenFiles": ({'process_open_fds{job="chatd",instance="a"}': "1000x120"}, "97.66%"),
}
FEW_TURNS = {  # one in six minutes, and all of them fail
    'chatd_turns_total{instance="a",outcome="failed",code="upstream_cut"}': "0x5 1x5 2x5 3x5 4x5 5x5 6x95",
    'chatd_turns_total{instance="a",outcome="done",code="ok"}': "0x120",
}
CAUSES = [(alert, *how) for alert, how in LOUD.items()] + [("ChatdTurnsFailing", FEW_TURNS, "100%")]

# When half of the time is over for which a cause must last; rates are known after a minute. The others tell at once.
TOO_EARLY = {
    "ChatdDown": "30s",
    "ChatdDatabaseAway": "15s",
    "ChatdUnavailable": "90s",
    "ChatdNothingCommitted": "7s",
    "ChatdCommitsSlow": "6m",
    "ChatdTurnsFailing": "210s",
    "ChatdRetries": "6m",
    "ChatdFirstContentSlow": "6m",
    "ChatdPoolWaits": "210s",
    "ChatdLoopLag": "210s",
    "ChatdOpenFiles": "150s",
}


def run_rules(tmp_path: Path, inputs: dict[str, str], expected: dict[str, list[dict[str, Any]]]) -> None:
    """Have promtool compare which alerts are on after half an hour; none that waits is on before it has waited."""
    series_of = [{"series": name, "values": values} for name, values in inputs.items()]
    alerts = [{"eval_time": "30m", "alertname": alert, "exp_alerts": on} for alert, on in expected.items()]
    alerts += [{"eval_time": early, "alertname": alert, "exp_alerts": []} for alert, early in TOO_EARLY.items()]
    test = {"interval": "1m", "input_series": series_of, "alert_rule_test": alerts}
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES_FILE)], "evaluation_interval": "15s", "tests": [test]}))
    promtool("test", "rules", str(file))


def goes_off(rule: dict[str, Any], cause: str, value: str) -> dict[str, Any]:
    """Return an alert as promtool expects it; `cause` is a series."""
    labels = dict(re.findall(r'(\w+)="([^"]*)"', cause)) if " by (" not in rule["expr"] else {"instance": "a"}
    told = {
        name: re.sub(r"\{\{ \$value[^}]*\}\}", value, text).replace("{{ $labels.instance }}", "a")
        for name, text in rule["annotations"].items()
    }
    return {"exp_labels": rule["labels"] | labels, "exp_annotations": told}


@needs_promtool
def test_no_alert_goes_off_while_all_is_well(tmp_path: Path) -> None:
    run_rules(tmp_path, QUIET, {rule["alert"]: [] for rule in RULES})


@needs_promtool
@pytest.mark.parametrize(("alert", "cause", "value"), CAUSES)
def test_an_alert_goes_off_and_no_other(tmp_path: Path, alert: str, cause: dict[str, str], value: str) -> None:
    (rule,) = (each for each in RULES if each["alert"] == alert)
    changed = {name.partition("{")[0] for name in cause if "_bucket" in name}
    rest = {name: values for name, values in QUIET.items() if name.partition("{")[0] not in changed}
    quiet: dict[str, list[dict[str, Any]]] = {each["alert"]: [] for each in RULES}
    expected = quiet | {alert: [goes_off(rule, next(iter(cause)), value)]}
    run_rules(tmp_path, rest | cause, expected)
