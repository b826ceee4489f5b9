"""Alerts and dashboard use only metrics, labels and label values that exist."""

import json
import os
import re
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import yaml
from chart import CHART, ROOT, expect, finish

# Added by Prometheus itself, or part of every histogram.
SCRAPED = {"job", "instance", "namespace", "le"}
WORDS = {"and", "or", "unless", "on", "by", "ignoring", "without", "group_left", "group_right", "bool", "offset"}
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
admin  = "127.0.0.1:0"
[[route]]
name      = "r"
upstream  = "http://127.0.0.1:9"
anonymous = true
"""


def exported():
    """The metrics that hawkgate exports before it has served any request."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hawkgate.toml"
        file.write_text(CONFIG)
        command = [os.environ["HAWKGATE"], "run", "--config", file]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            try:
                addresses = (re.search(r'"admin":"([0-9.:]+)"', line) for line in process.stderr)
                admin = next(match[1] for match in addresses if match)
                text = urllib.request.urlopen(f"http://{admin}/metrics", timeout=10).read().decode()
            finally:
                process.terminate()
    return set(re.findall(r"^# TYPE (\S+)", text, re.M))


def table(page, columns):
    """The rows of a page's tables with this number of columns."""
    lines = (ROOT / page).read_text().splitlines()
    rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines if re.match(r"\| `\w+` \|", line))
    return [row for row in rows if len(row) == columns]


def documented():
    """Name → labels. tests/it/docs/metrics.rs checks that the table matches the program."""
    rows = table("docs/observability.md", 4)
    return {name.strip("`"): set(labels.replace(",", " ").split()) for name, labels, *_ in rows}


def documented_values():
    """(name, label) → values of each label with a closed set of values; checked by the same test."""
    rows = table("docs/observability.md", 3)
    values = {(name.strip("`"), label): set(re.findall(r"`(\w+)`", text)) for name, label, text in rows}
    reasons = {name.strip("`") for name, *_ in table("docs/errors.md", 3)}
    return values | {("hawkgate_rejections_total", "reason"): reasons}


def queries():
    """(where, expression) of every alert and panel, with Grafana's variables substituted."""
    for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((CHART / "files/dashboard.json").read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval", "__all"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    expect(used <= variables, f"the dashboard uses {used - variables}, which are not declared")
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            expect(panel["targets"], f"panel {panel['title']} has no query")
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", fill(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", fill(annotation["expr"])
    for variable in dashboard["templating"]["list"]:
        if match := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", "")):
            yield f"variable {variable['name']}", f"count by ({match[2]}) ({fill(match[1])})"


def fill(expression):
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m"))


def selectors(expression):
    """(metric, matchers) of each selector; any word that is neither function nor keyword is a metric."""
    bare = re.sub(r"\b(by|on|ignoring|without) \([^)]*\)", "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare_of_text = re.sub(r'"[^"]*"', lambda m: '"' + "_" * (len(m[0]) - 2) + '"', bare)
    for match in re.finditer(r"\b([a-zA-Z_]\w*)\b(?!\s*\()(\{[^}]*\})?", re.sub(r"(?<=\{)[^}]*", blank, bare_of_text)):
        if match[1] not in WORDS:
            yield match[1], bare[match.start() : match.end()]


def blank(match):
    return " " * len(match[0])


def check(where, expression, names, labels_of, values_of):
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    labels = {label for group in grouped for label in group.replace(" ", "").split(",")}
    metrics = [(metric, text) for metric, text in selectors(expression)]
    expect(metrics, f"{where} queries no metric")
    known = set(SCRAPED)
    for metric, text in metrics:
        name = re.sub(r"_(bucket|sum|count)$", "", metric)
        name = name if name in names else metric
        if not expect(name in names, f"{where} queries {metric}, which hawkgate does not export"):
            continue
        known |= labels_of.get(name, set())
        for label, value in re.findall(r'(\w+)\s*[!=~]+\s*"([^"]*)"', text):
            expect(label in labels_of.get(name, set()) | SCRAPED, f"{where}: {name} has no label {label}")
            for word in value.split("|"):
                closed = values_of.get((name, label))
                expect(closed is None or word in closed, f"{where}: {label} of {name} is never {word}")
    expect(labels <= known, f"{where}: no metric has {labels - known}")


def syntax(all_queries):
    rules = [{"record": f"q:{n}", "expr": expression} for n, (_, expression) in enumerate(all_queries)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}, file)
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    expect(done.returncode == 0, f"promtool: {done.stdout}{done.stderr}")


def runbook():
    sections = set(re.findall(r"^## (Hawkgate\w+)$", (ROOT / "docs/runbook.md").read_text(), re.M))
    rules = [r for g in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"] for r in g["rules"]]
    alerts = {rule["alert"] for rule in rules}
    expect(sections == alerts, f"runbook and alerts differ in {sections ^ alerts}")
    tested = yaml.safe_load((ROOT / "tests/chart/alerts_test.yaml").read_text())["tests"]
    for fires in (True, False):
        seen = {t["alertname"] for one in tested for t in one["alert_rule_test"] if bool(t["exp_alerts"]) == fires}
        expect(seen == alerts, f"no test that these {'fire' if fires else 'stay silent'}: {alerts - seen}")
    page = yaml.safe_load((CHART / "values.yaml").read_text())["prometheusRule"]["runbookURL"]
    expect(re.match("https://", page), f"runbookURL {page} is not absolute")
    for rule in rules:
        name = rule["alert"]
        expect(rule["annotations"]["runbook_url"] == f"{page}#{name.lower()}", f"{name}: runbook_url")
        expect(rule["labels"]["severity"] in ("critical", "warning"), f"{name}: severity")
        for selector in re.findall(r"absent\(([^)]*)\)", rule["expr"]):
            expect("job=" in selector and "namespace=" in selector, f"{name}: absent() matches any job")


def dashboard():
    """Variables select in every panel, headline figures have thresholds, and exemplars are shown."""
    panels = json.loads((CHART / "files/dashboard.json").read_text())["panels"]
    queries = [(panel["title"], target) for panel in panels for target in panel.get("targets", [])]
    for title, target in queries:
        for selector in re.findall(r"(?:hawkgate|process)_\w+\{([^}]*)\}", target["expr"]):
            for variable in ("namespace", "job", "instance"):
                expect(f'{variable}=~"${variable}"' in selector, f"panel {title} ignores the variable {variable}")
    exemplars = {target["expr"] for _, target in queries if target.get("exemplar")}
    expect(exemplars, "no panel shows exemplars")
    for query in exemplars:
        expect("hawkgate_request_duration_seconds_bucket" in query, f"{query} has no exemplars")
    limited = [panel["title"] for panel in panels if "thresholds" in panel.get("fieldConfig", {}).get("defaults", {})]
    for title in ("Refused", "Upstream failed", "Age of issuers' keys", "Replay memory", "Certificates expire in"):
        expect(title in limited, f"panel {title} has no thresholds")
    ids = [panel["id"] for panel in panels]
    expect(len(ids) == len(set(ids)), "two panels have the same id")
    for one in panels:
        for other in panels:
            expect(one is other or not overlap(one["gridPos"], other["gridPos"]), f"{one['title']} covers {other['title']}")


def overlap(a, b):
    return a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


labels_of, values_of, running = documented(), documented_values(), exported()
undocumented = {name for name in running if name.startswith("hawkgate_")} - set(labels_of)
expect(not undocumented, f"docs/observability.md lacks {undocumented}")
everything = list(queries())
for where, expression in everything:
    check(where, expression, running | set(labels_of), labels_of, values_of)
syntax(everything)
runbook()
dashboard()
finish(f"{len(everything)} queries use metrics that hawkgate exports; every alert is tested and has a runbook section")
