"""kube-score finds nothing in what the value sets render, except what is listed here with the reason."""

import os
import subprocess

from chart import VALUE_SETS, at, documents, expect, finish, label, template

# Ignored by an annotation of the manifest itself, so that users who run kube-score see the same.
ANNOTATED = {
    "container-resources": "no CPU limit, which throttles a proxy exactly under load; other limits are checked below",
    "container-image-pull-policy": "a tag is a version: pods start while the registry is down",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints spread the pods",
    "pod-networkpolicy": "egress is open until networkPolicy.egress names the issuers, sources and upstreams",
}
# Value sets that show what somebody may want although kube-score advises against it.
CHOSEN = {"08-extended": ["deployment-replicas", "deployment-strategy"]}


def limits(resource, where):
    """What ignoring container-resources must not hide."""
    spec = at(resource, "spec.template.spec") or resource["spec"]
    for container in spec["containers"] + spec.get("initContainers", []):
        for place in ("requests.cpu", "requests.memory", "limits.memory"):
            found = at(container, f"resources.{place}")
            expect(found, f"{where} {label(resource)}: container {container['name']} has no {place}")


def one(file):
    where = file.stem
    rendered = template(file)
    if not expect(rendered.returncode == 0, f"{where}: {rendered.stderr}"):
        return
    for resource in documents(rendered.stdout):
        annotation = resource["metadata"].get("annotations", {}).get("kube-score/ignore", "")
        unknown = set(filter(None, annotation.split(","))) - set(ANNOTATED)
        expect(not unknown, f"{where} {label(resource)}: ignores {unknown} without a reason")
        if resource["kind"] in ("Deployment", "Pod"):
            limits(resource, where)
    ignored = [part for check in CHOSEN.get(where, []) for part in ("--ignore-test", check)]
    command = [os.environ["KUBE_SCORE"], "score", "--exit-one-on-warning", "--output-format", "ci", *ignored, "-"]
    done = subprocess.run(command, input=rendered.stdout, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    expect(done.returncode == 0 and not found, f"{where}: kube-score: {found} {done.stderr}")
    # Of a sidecar's release it knows no kind.
    gateway = "kind: Deployment" in rendered.stdout
    expect("[OK]" in done.stdout or not gateway, f"{where}: kube-score checked nothing")


for value_set in VALUE_SETS:
    one(value_set)
finish(f"kube-score has no objection to the manifests of {len(VALUE_SETS)} value sets")
