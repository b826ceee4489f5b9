"""What the notes of a release warn of."""

import shutil
import tempfile
from pathlib import Path

import yaml
from chart import CHART, VALUE_SETS, expect, finish, template

UNTRUSTED = "no proxy is trusted, so every request seems to come from your Ingress controller or Gateway"
ANYONE = "anyone who can connect from a trusted network can claim any client address"
NO_ORIGIN = "the session web has no origin"
JOB = "HawkgateAbsent expects the samples of the job edge-hawkgate-admin, but serviceMonitor.enabled is false"
CLEARTEXT = "bearer tokens are sent in clear text"
UNSHARED = "The pods share nothing"
EVERY_WARNING = [UNTRUSTED, ANYONE, NO_ORIGIN, JOB, CLEARTEXT, UNSHARED]

TRUSTED = {"trustedProxies": ["10.0.0.0/8"]}
LISTENER = """[server]
listen = [{ address = "0.0.0.0:8080", trusted_proxies = ["10.0.0.0/8"] }]
admin  = "0.0.0.0:9090"
"""
# Value set, values over it, warnings.
CASES = [
    ("02-map", {}, [CLEARTEXT, UNSHARED]),
    ("03-tls", {}, [UNSHARED]),
    ("04-ingress", {}, [CLEARTEXT, UNSHARED, UNTRUSTED]),
    ("04-ingress", {"config": LISTENER}, [CLEARTEXT, UNSHARED, ANYONE]),
    ("13-web", {}, [CLEARTEXT, UNSHARED, UNTRUSTED]),
    ("13-web", {"config": {"session": [{"name": "web"}]}}, [CLEARTEXT, UNSHARED, UNTRUSTED, NO_ORIGIN]),
    ("13-web", {**TRUSTED, "config": {"session": [{"name": "web"}]}}, [CLEARTEXT, UNSHARED, ANYONE]),
    ("14-exposed", {}, [CLEARTEXT, UNSHARED]),
    ("14-exposed", {"networkPolicy": {"enabled": False}}, [CLEARTEXT, UNSHARED, ANYONE]),
    ("02-map", {"prometheusRule": {"enabled": True}}, [CLEARTEXT, UNSHARED, JOB]),
    ("02-map", {"prometheusRule": {"enabled": True, "job": "edge"}}, [CLEARTEXT, UNSHARED]),
    ("15-monitored", {}, [CLEARTEXT]),
    ("16-sidecar-monitored", {}, []),
    ("02-map", {"replicaCount": 1}, [CLEARTEXT]),
    ("17-fleet", {}, [CLEARTEXT]),
]


def notes(chart, *files):
    """Only an installation renders NOTES.txt, and it needs a cluster; so this renders it as a template."""
    rendered = template(*files, chart=chart)
    expect(rendered.returncode == 0, f"{files}: {rendered.stderr}")
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    return next((document["notes"] for document in documents if "notes" in document), "")


with tempfile.TemporaryDirectory() as folder:
    chart = Path(folder) / "hawkgate"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + text + "{{- end -}}")
    (chart / "templates/notes.yaml").write_text('---\nnotes: {{ include "notes" . | toJson }}\n')
    over = Path(folder) / "values.yaml"
    for name, values, expected in CASES:
        over.write_text(yaml.safe_dump(values))
        said = " ".join(notes(chart, CHART / f"ci/{name}.yaml", over).split())
        warnings = {warning for warning in EVERY_WARNING if warning in said}
        expect(warnings == set(expected), f"{name} with {values}: warns of {warnings}")
    for file in VALUE_SETS:
        expect(notes(chart, file), f"{file.stem}: no notes")
finish(f"the notes warn of what they should in {len(CASES)} cases")
