"""Checks of the Dockerfile that need no container engine."""

import re

import yaml
from chart import CHART, ROOT, expect, finish

text = (ROOT / "Dockerfile").read_text()
lines = re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", text, flags=re.M)).splitlines()
steps = [line.split(None, 1) for line in lines if line.strip()]
values = yaml.safe_load((CHART / "values.yaml").read_text())
cargo = (ROOT / "Cargo.toml").read_text()


def arguments(instruction, after=0):
    return [rest for name, rest in steps[after:] if name == instruction]


last = max(n for n, (name, _) in enumerate(steps) if name == "FROM")
expect(steps[last][1] == "scratch", "the final stage is not FROM scratch")
user = values["securityContext"]["runAsUser"]
expect(arguments("USER", last) == [f"{user}:{user}"], "the image and the chart use different users")
expect(arguments("ENTRYPOINT", last) == ['["/hawkgate"]'], "the entry point is not hawkgate")
container = (CHART / "templates/_container.tpl").read_text()
for word in re.findall(r'"([^"]+)"', arguments("CMD", last)[0]):
    expect(f"  - {word}\n" in container, f"the image runs with {word}, the chart does not")
expect(arguments("HEALTHCHECK") == [], "a HEALTHCHECK, but the image has no shell to run it")

# Statically linked, with the C library that the tests use, for every target whose licences are checked.
build = next(rest for rest in arguments("RUN") if "cargo build" in rest)
expect("target-feature=+crt-static" in build, "the binary would need a C library that the image lacks")
[target] = set(re.findall(r'"?\$\(uname -m\)(-[a-z-]+)', build)) or {""}
checked = set(re.findall(r'"\w+?(-unknown-[a-z-]+)"', (ROOT / "deny.toml").read_text()))
expect({target} == checked, f"the image is built for *{target}, licences are checked for {sorted(checked)}")

# The base image has the pinned toolchain, and the versions agree.
pinned = re.search(r'channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text())[1]
expect(f"rust:{pinned}-" in arguments("ARG")[0], f"the base image does not have Rust {pinned}")
version = re.search(r'^version = "(.*)"', cargo, re.M)[1]
expect(f'image.version="{version}"' in text, "the label's version differs from Cargo.toml's")
chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
expect(chart["appVersion"] == version, "Chart.yaml's appVersion differs from Cargo.toml's version")

# What the build copies exists, is allowed by .dockerignore, and is all that cargo needs.
allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
copied = set()
for rest in arguments("COPY"):
    words = rest.split()
    if not words[0].startswith("--from"):
        copied |= {word.removeprefix("./") for word in words[:-1]}
expect(copied == allowed, f"the Dockerfile and .dockerignore differ in {copied ^ allowed}")
for name in copied:
    expect((ROOT / name).exists(), f"the Dockerfile copies {name}, which does not exist")
expect(not (ROOT / "build.rs").exists(), "build.rs is not copied")
for file in (ROOT / "src").rglob("*.rs"):
    if "tests" in file.relative_to(ROOT).as_posix():
        continue
    for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
        inside = (file.parent / included).resolve().is_relative_to(ROOT / "src")
        expect(inside, f"{file.relative_to(ROOT)} includes {included}, which is not copied into the image's build")
finish("the Dockerfile agrees with the chart, the toolchain and the sources")
