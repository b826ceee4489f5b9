"""helm/examples/job: an application chart that includes the sidecar."""

import shutil
import tempfile
from pathlib import Path

import invariants
from chart import ROOT, at, documents, expect, finish, hawkgate_check, helm, label, template, validate

with tempfile.TemporaryDirectory() as folder:
    # `helm dependency build` writes into the chart.
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
expect(f"ServiceAccount/{spec['serviceAccountName']}" in resources, "the service account does not exist: no pod would start")
sidecar = spec["initContainers"][0]
expect(len(spec["containers"]) == 1, "the sidecar is an ordinary container: the Job would never complete")
expect(sidecar["restartPolicy"] == "Always", "the sidecar is an ordinary init container: the Job would never start")
invariants.hardened(sidecar, "sidecar")
invariants.probes_reach(sidecar, "sidecar")
invariants.mounts_exist(spec, "sidecar")
expect("checksum/hawkgate" in pod["metadata"]["annotations"], "the pod is not replaced when its configuration changes")
volumes = {volume["name"]: volume for volume in spec["volumes"]}
expect(at(volumes, "hawkgate-config.configMap.name") == "nightly-hawkgate", "the pod mounts another ConfigMap")
token = at(volumes, "hawkgate-identity.projected.sources.0.serviceAccountToken")
expect(token == {"audience": "hawkgate", "expirationSeconds": 3600, "path": "token"}, f"token {token}")
# An application's pod may have no fsGroup, so the files must be readable without one.
expect(at(volumes, "hawkgate-secrets.secret.defaultMode") == 0o444, "the sidecar cannot read its secrets")
finish("the example's Job has the sidecar and can complete")
