"""Every value set of helm/hawkgate/ci renders manifests that Kubernetes and hawkgate accept."""

import tomllib

import yaml
from chart import (CHART, KUBERNETES, ROOT, VALUE_SETS, at, documents, expect, failures, finish, hawkgate_check, helm, label,
                   template, validate)
import invariants

EXPECTED = yaml.safe_load((ROOT / "tests/chart/expected.yaml").read_text())


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(v) for key, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def contains(whole, part):
    """Whether `whole` contains everything in `part`, at the same path."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and contains(whole[k], v) for k, v in part.items())
    return whole == part


def configuration(resources, values, where):
    for resource in resources:
        text = at(resource, "data.hawkgate~toml")
        if text is None:
            continue
        hawkgate_check(text, where)
        if isinstance(values["config"], dict):
            given = without_nulls(values["config"])
            expect(contains(tomllib.loads(text), given), f"{where}: the rendered file differs from `config`")
        else:
            expect(text.strip() == values["config"].strip(), f"{where}: the text of `config` was changed")
        return
    expect("existingConfig" in values, f"{where}: no configuration")


def one(file):
    where, values = file.stem, yaml.safe_load(file.read_text())
    lint = helm("lint", CHART, "--strict", "--quiet", "--kube-version", KUBERNETES[0], "-f", file)
    expect(lint.returncode == 0, f"{where}: helm lint: {lint.stdout}{lint.stderr}")
    rendered = template(file)
    if not expect(rendered.returncode == 0, f"{where}: {rendered.stderr}"):
        return 0
    again = template(file, kubernetes=KUBERNETES[-1])
    expect(again.stdout == rendered.stdout, f"{where}: the result depends on the Kubernetes version")
    resources, before = documents(rendered.stdout), len(failures)
    for resource in resources:
        validate(resource, where)
        allowed = {"builds", EXPECTED[where].get("elsewhere", {}).get(resource["kind"])}
        expect(resource["metadata"]["namespace"] in allowed, f"{where}: {label(resource)}: not in the release's namespace")
    configuration(resources, values, where)
    if values.get("mode") != "sidecar" and len(failures) == before:
        invariants.gateway(resources, where)

    expected = EXPECTED[where]
    kinds = sorted(resource["kind"] for resource in resources)
    expect(kinds == sorted(expected["kinds"].split()), f"{where}: rendered {' '.join(kinds)}")
    for place, value in expected.get("has", {}).items():
        kind, path = place.split(" ")
        found = [at(resource, path) for resource in resources if resource["kind"] == kind]
        expect(value in found, f"{where}: {place} is {found}, not {value!r}")
    for kind, namespace in expected.get("elsewhere", {}).items():
        found = [resource["metadata"]["namespace"] for resource in resources if resource["kind"] == kind]
        expect(namespace in found, f"{where}: {kind} is in {found}, not {namespace}")
    if "listener" in expected:
        texts = [at(resource, "data.hawkgate~toml") for resource in resources]
        listen = tomllib.loads(next(text for text in texts if text))["server"]["listen"]
        expect(listen == [expected["listener"]], f"{where}: server.listen is {listen}")
    return len(resources)


lint = helm("lint", CHART, "--strict", "--quiet", "--kube-version", KUBERNETES[0])
expect(lint.returncode == 0, f"defaults: helm lint: {lint.stdout}{lint.stderr}")
expect(set(EXPECTED) == {file.stem for file in VALUE_SETS}, "expected.yaml and ci/ have different value sets")
count = sum(one(file) for file in VALUE_SETS)
finish(f"{len(VALUE_SETS)} value sets: {count} manifests valid at Kubernetes {' and '.join(KUBERNETES)}")
