"""Shared by the tests of the chart: rendering, validation and reporting."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/hawkgate"
VALUE_SETS = sorted((CHART / "ci").glob("*.yaml"))
# The oldest version that Chart.yaml allows, and the newest for which there are schemas.
KUBERNETES = ["1.29", "1.37"]

failures: list[str] = []


def expect(holds, what):
    """Records the failure `what` unless `holds`."""
    if not holds:
        failures.append(what)
    return bool(holds)


def finish(summary):
    """Prints every failure, or the summary, and exits."""
    for failure in failures:
        print(f"FAILED {failure}")
    if failures:
        sys.exit(1)
    print(summary)


def helm(*arguments):
    return subprocess.run([os.environ["HELM"], *map(str, arguments)], capture_output=True, text=True)


def template(*value_files, chart=CHART, release="edge", kubernetes=KUBERNETES[0]):
    values = [part for file in value_files for part in ("-f", file)]
    return helm("template", release, chart, "-n", "builds", "--kube-version", kubernetes, *values)


# YAML 1.1 gives "=" a type of its own, which PyYAML cannot load; the definitions use it as a string.
yaml.CSafeLoader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


class StrictLoader(yaml.CSafeLoader):
    """YAML in which a duplicate key is an error, as in Kubernetes."""


def strict_mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.YAMLError(f"duplicate keys: {twice}{node.start_mark}")
    return yaml.CSafeLoader.construct_mapping(loader, node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, strict_mapping)


def documents(text):
    return [document for document in yaml.load_all(text, StrictLoader) if document]


def label(resource):
    return f"{resource['kind']}/{resource['metadata']['name']}"


def closed(schema):
    """The same schema, but refusing unknown fields, which the API server would drop silently."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    return schema


# The custom resources that the chart renders.
CUSTOM = ["httproutes", "podmonitors", "prometheusrules", "servicemonitors"]


@cache
def custom_resources():
    """(apiVersion, kind) → schema, from the definitions that ship with the projects."""
    schemas = {}
    for folder in os.environ["CRDS"].split(":"):
        files = [file for file in Path(folder).glob("*_*.yaml") if file.stem.split("_")[1] in CUSTOM]
        for file in files:
            for crd in yaml.load_all(file.read_text(), yaml.CSafeLoader):
                if not crd or crd["kind"] != "CustomResourceDefinition":
                    continue
                spec = crd["spec"]
                for version in spec["versions"]:
                    key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    schemas[key] = closed(version["schema"]["openAPIV3Schema"])
    return schemas


def validate(resource, where):
    """Validates one manifest against the schema of its kind, for every Kubernetes version."""
    key = (resource["apiVersion"], resource["kind"])
    if key in custom_resources():
        errors = jsonschema.Draft7Validator(custom_resources()[key]).iter_errors(resource)
        for error in errors:
            expect(False, f"{where} {label(resource)}: {error.json_path}: {error.message}")
        return
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            expect(False, f"{where} {label(resource)} at {version}: {error}")


def hawkgate_check(text, where):
    """Checks a rendered configuration with hawkgate itself."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [os.environ["HAWKGATE"], "check", "--skip-secrets", "--config", file.name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    output = done.stdout + done.stderr
    expect(done.returncode == 0, f"{where}: hawkgate check: {output}")
    expect("valid:" in output or done.returncode, f"{where}: hawkgate check printed {output!r}")
    # The one expected warning: a gateway without TLS.
    others = [l for l in output.splitlines() if "warning" in l and "bearer tokens in cleartext" not in l]
    expect(not others, f"{where}: unexpected warnings: {others}")


def at(resource, path):
    """The value at a path like spec.containers.0.name, or None."""
    value = resource
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part.replace("~", "."))
        else:
            return None
    return value
