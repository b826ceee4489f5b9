"""Invalid value sets are refused with a message that says what to do."""

import re
import tempfile

import yaml
from chart import CHART, ROOT, expect, finish, template

cases = yaml.safe_load((ROOT / "tests/chart/refused.yaml").read_text())
for case in cases:
    base = case.get("base", "02-map")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(case["values"], file)
        file.flush()
        files = [CHART / f"ci/{base}.yaml"] if base != "none" else []
        done = template(*files, file.name)
    where = f"{case['values']}"
    if expect(done.returncode != 0, f"rendered instead of being refused: {where}"):
        stderr = " ".join(done.stderr.split())
        expect(case["says"] in stderr, f"{where}: expected {case['says']!r}, got: {stderr}")
# The template that keeps secrets out of the ConfigMap knows every key that holds one.
template_text = (CHART / "templates/_refuse.tpl").read_text()
keys = set()
for file in (ROOT / "src/config").rglob("*.rs"):
    keys |= set(re.findall(r"^ *(?:pub\(super\) )?(\w+): (?:List<)?SecretRef>? = \[", file.read_text(), re.M))
expect({"access_token", "client_secret"} <= keys, f"the secret keys were not found in src/config: {keys}")
for key in keys:
    expect(f'"{key}"' in template_text, f"_refuse.tpl does not know that {key} is a secret")
finish(f"{len(cases)} value sets refused with the expected message")
