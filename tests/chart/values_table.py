"""Checks that the table of values in the chart's README is up to date, or writes it with --write.

A comment beginning with "# --" describes the key below it. Every key must have a description, or be
part of one that has.
"""

import json
import re
import sys

import yaml
from chart import CHART, at, expect, finish

START, END = "<!-- values: made by tests/chart/values_table.py --write -->\n", "<!-- end of values -->"


def described(text):
    """Key path → description, in the order of the file."""
    found, path, comment = {}, [], None
    for line in text.splitlines():
        if match := re.match(r" *# -- (.*)", line):
            comment = match[1]
        elif match := re.match(r"( *)([A-Za-z_]+):", line):
            path = path[: len(match[1]) // 2] + [match[2]]
            if comment:
                found[".".join(path)] = comment
            comment = None
    return found


def leaves(values, prefix=()):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key)


def table(values, found):
    rows = ["| key | default | |", "|---|---|---|"]
    for path, description in found.items():
        value = at(values, path)
        nested = isinstance(value, (dict, list)) and value
        default = "see values.yaml" if nested and len(json.dumps(value)) > 30 else f"`{json.dumps(value)}`"
        rows.append(f"| `{path}` | {default} | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


text = (CHART / "values.yaml").read_text()
values, found = yaml.safe_load(text), described(text)
for leaf in leaves(values):
    known = any(".".join(leaf[: end + 1]) in found for end in range(len(leaf)))
    expect(known, f"values.yaml does not describe {'.'.join(leaf)}")

readme = CHART / "README.md"
before, rest = readme.read_text().split(START)
_, after = rest.split(END)
fresh = before + START + table(values, found) + END + after
if "--write" in sys.argv:
    readme.write_text(fresh)
expect(readme.read_text() == fresh, "the chart's README is out of date: run tests/chart/values_table.py --write")

schema = json.loads((CHART / "values.schema.json").read_text())
known = set(schema["properties"]) - {"global", "enabled"}
expect(known == set(values), f"schema and values.yaml differ in {known ^ set(values)}")
finish(f"{len(found)} values described, the README is up to date")
