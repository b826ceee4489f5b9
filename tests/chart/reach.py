"""Runs the script of `helm test` in busybox's shell, with curl, against a local hawkgate."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from chart import CHART, ROOT, at, documents, expect, finish, template

# The public key of RFC 8037 §A.2.
KEYS = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
CONFIG = """
[server]
listen = [{ address = "127.0.0.1:0" TLS }]
admin  = "127.0.0.1:0"
[[issuer]]
name      = "i"
url       = "https://issuer.example.com"
KEYS
audiences = ["hawkgate"]
[[source]]
name         = "s"
kind         = "taskcluster-static"
client_id    = "c"
access_token = { file = "secret" }
[[route]]
name     = "r"
upstream = "http://127.0.0.1:9"
issuers  = ["i"]
source   = "s"
"""


def run_script(script, folder, keys, tls=""):
    """Runs it against a hawkgate whose issuer has these keys."""
    (folder / "hawkgate.toml").write_text(CONFIG.replace("KEYS", keys).replace("TLS", tls))
    (folder / "jwks.json").write_text(KEYS)
    (folder / "secret").write_text("x" * 44)
    command = [os.environ["HAWKGATE"], "run", "--config", folder / "hawkgate.toml"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            seen = {}
            for line in process.stderr:
                if match := re.search(r'"(admin|address)":"([0-9.:]+)"', line):
                    scheme = "https" if tls and match[1] == "address" else "http"
                    seen[match[1]] = f"{scheme}://{match[2]}"
                if len(seen) == 2:
                    break
            env = {"PATH": str(folder), "ADMIN": seen["admin"], "CALLERS": seen["address"]}
            shell = [shutil.which("busybox"), "sh", "-euc", script]
            return subprocess.run(shell, env=env, capture_output=True, text=True, timeout=60)
        finally:
            process.terminate()


rendered = template(CHART / "ci/01-minimal.yaml")
pod = next(d for d in documents(rendered.stdout) if d["kind"] == "Pod")
expect(at(pod, "spec.containers.0.command") == ["sh", "-euc"], "the pod runs a different command than this test")
script = at(pod, "spec.containers.0.args.0")
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for tool, program in (("curl", "curl"), ("grep", "busybox")):
        (folder / tool).symlink_to(shutil.which(program))
    good = run_script(script, folder, 'jwks_file = "jwks.json"')
    expect(good.returncode == 0, f"fails against a working hawkgate: {good.stdout}{good.stderr}")
    expect("hawkgate_build_info" in good.stdout, f"no metrics: {good.stdout}")
    expect("401" in good.stdout.splitlines(), f"no refusal: {good.stdout}")
    key, cert = folder / "tls.key", folder / "tls.crt"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=edge", "-keyout", key, "-out", cert]
    subprocess.run(make, check=True, capture_output=True)
    tls = run_script(script, folder, 'jwks_file = "jwks.json"', ', tls = { cert = "tls.crt", key = "tls.key" }')
    expect(tls.returncode == 0, f"fails against a working hawkgate with TLS: {tls.stdout}{tls.stderr}")
    expect("401" in tls.stdout.splitlines(), f"no refusal with TLS: {tls.stdout}")
    unready = run_script(script, folder, 'jwks_url = "http://127.0.0.1:9/"')
    expect(unready.returncode != 0, f"passes against a hawkgate that is not ready: {unready.stdout}")
finish("the script of helm test passes against a working hawkgate and fails against one that is not ready")
