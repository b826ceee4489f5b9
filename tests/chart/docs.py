"""The manifests and values in the documentation are valid."""

import re
import subprocess
import tempfile
import textwrap
from pathlib import Path

import invariants
import yaml
from chart import CHART, ROOT, at, documents, expect, finish, hawkgate_check, template, validate

EVERY_PAGE = [ROOT / "README.md", CHART / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [CHART / "README.md", ROOT / "docs/deploy-kubernetes.md"]


def blocks(page, language):
    """The fenced blocks of one language, without the indentation of an enclosing list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.M | re.S)
    return [textwrap.dedent(text) for _, text in found]


def values(text, where):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(text)
        rendered = template(file)
        if not expect(rendered.returncode == 0, f"{where}: {rendered.stderr}"):
            return
        resources = documents(rendered.stdout)
        for resource in resources:
            validate(resource, where)
        invariants.gateway(resources, where)
        only = Path(folder) / "configmap.yaml"
        only.write_text("".join(part for part in rendered.stdout.split("---\n") if "hawkgate.toml: |" in part))
        # The command on the page that extracts the configuration from the manifest.
        command = re.search(r"sed '(1,/hawkgate[^']*)'", PAGES[1].read_text())[1]
        text = subprocess.run(["sed", command, only], capture_output=True, text=True, check=True).stdout
    if text:
        hawkgate_check(text, where)


def manifest(text, where):
    job = yaml.safe_load(text)
    validate(job, where)
    spec = at(job, "spec.template.spec")
    invariants.mounts_exist(spec, where)
    invariants.hardened(spec["initContainers"][0], where)
    expect(spec["initContainers"][0]["restartPolicy"] == "Always", f"{where}: its Job would never start")


def includes(text, where):
    """The includes that the page documents are those of the example chart."""
    used = (ROOT / "helm/examples/job/templates/job.yaml").read_text()
    for line in re.findall(r"\{\{- include .*\}\}", text):
        expect(line in used, f"{where}: the example chart lacks {line}")


def steps(value):
    """The commands of GitHub (`run`) and GitLab (`script`) jobs."""
    if isinstance(value, list):
        for item in value:
            yield from steps(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (item if key == "script" else [item] if key == "run" else steps(item))


# YAML parses a command that contains `: ` as a mapping unless it is quoted or a block.
jobs = 0
for page in EVERY_PAGE:
    for text in blocks(page, "yaml"):
        if "{{-" not in text:
            for step in steps(yaml.safe_load(text)):
                expect(isinstance(step, str), f"{page.name}: not a command: {step}")
                jobs += 1
expect(jobs == 2, f"{jobs} job steps in the documentation, expected 2")

kinds = []
for page in PAGES:
    for text in blocks(page, "yaml"):
        kind = includes if "{{-" in text else manifest if text.startswith("apiVersion") else values
        kind(text, f"{page.name}, the block starting with {text.splitlines()[0]!r}")
        kinds.append(kind.__name__)
expect(sorted(kinds) == ["includes", "manifest", *["values"] * 5], f"examples in the documentation: {kinds}")
finish(f"{len(kinds)} examples in the documentation are valid")
