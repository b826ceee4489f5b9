"""helm/examples/job: a chart of others that includes the sidecar."""

import shutil
import tempfile
from pathlib import Path

import invariants
from chart import ROOT, at, documents, expect, finish, hawkgate_check, helm, label, template, validate

with tempfile.TemporaryDirectory() as folder:
    # Building dependencies writes into the chart.
    shutil.copytree(ROOT / "helm", folder, dirs_exist_ok=True)
    job = Path(folder) / "examples/job"
    built = helm("dependency", "build", job)
    expect(built.returncode == 0, f"helm dependency build: {built.stderr}")
    lint = helm("lint", job, "--strict", "--quiet", "--kube-version", "1.29.0")
    expect(lint.returncode == 0, f"helm lint: {lint.stdout}{lint.stderr}")
    rendered = template(chart=job, release="nightly")
    expect(rendered.returncode == 0, rendered.stderr)
    gateway = Path(folder) / "gateway.yaml"
    gateway.write_text("hawkgate: {mode: gateway, config: {route: []}}")
    refused = template(gateway, chart=job)
    expect("hawkgate.sidecar was included with mode: gateway" in refused.stderr, f"gateway: {refused.stderr}")

resources = {label(resource): resource for resource in documents(rendered.stdout)}
known = {"ConfigMap/nightly-hawkgate", "Job/nightly", "ServiceAccount/nightly"}
expect(set(resources) == known, f"rendered {sorted(resources)}")
for resource in resources.values():
    validate(resource, "job")
hawkgate_check(at(resources["ConfigMap/nightly-hawkgate"], "data.hawkgate~toml"), "job")

pod = at(resources["Job/nightly"], "spec.template")
spec = pod["spec"]
expect(f"ServiceAccount/{spec['serviceAccountName']}" in resources, "an account that nobody makes: no pod would start")
sidecar = spec["initContainers"][0]
expect(len(spec["containers"]) == 1, "the sidecar is a container like others: the Job would never end")
expect(sidecar["restartPolicy"] == "Always", "an init container that must end before the Job's own begins")
invariants.hardened(sidecar, "sidecar")
invariants.probes_reach(sidecar, "sidecar")
invariants.mounts_exist(spec, "sidecar")
expect("checksum/hawkgate" in pod["metadata"]["annotations"], "the pod does not follow its configuration")
volumes = {volume["name"]: volume for volume in spec["volumes"]}
expect(at(volumes, "hawkgate-config.configMap.name") == "nightly-hawkgate", "another ConfigMap's configuration")
token = at(volumes, "hawkgate-identity.projected.sources.0.serviceAccountToken")
expect(token == {"audience": "hawkgate", "expirationSeconds": 3600, "path": "token"}, f"token {token}")
# There may be no fsGroup in the pod of others: files must be readable without.
expect(at(volumes, "hawkgate-secrets.secret.defaultMode") == 0o444, "secrets that the sidecar cannot read")
finish("the example's Job has the sidecar, and ends")
