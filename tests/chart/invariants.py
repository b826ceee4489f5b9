"""Invariants of everything that the chart renders."""

from chart import at, expect, label


def hardened(container, where):
    context = container.get("securityContext", {})
    expect(context.get("runAsNonRoot") is True, f"{where}: may run as root")
    expect(context.get("readOnlyRootFilesystem") is True, f"{where}: root filesystem is writable")
    expect(context.get("allowPrivilegeEscalation") is False, f"{where}: may gain privileges")
    expect(context.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: keeps capabilities")
    expect(at(context, "seccompProfile.type") == "RuntimeDefault", f"{where}: no seccomp profile")


def mounts_exist(spec, where):
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    expect(len(volumes) == len(set(volumes)), f"{where}: duplicate volumes: {volumes}")
    containers = spec["containers"] + spec.get("initContainers", [])
    mounts = {mount["name"] for c in containers for mount in c.get("volumeMounts", [])}
    expect(mounts == set(volumes), f"{where}: volumes {volumes}, but mounts {sorted(mounts)}")
    for container in containers:
        for mount in container.get("volumeMounts", []):
            # Files mounted with subPath are never updated.
            expect("subPath" not in mount, f"{where}: {mount['mountPath']} is mounted with subPath")


def probes_reach(container, where):
    ports = {port["name"] for port in container["ports"]}
    paths = {"livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/startupz"}
    for probe, path in paths.items():
        get = at(container, f"{probe}.httpGet") or {}
        expect(get.get("path") == path and get.get("port") in ports, f"{where}: {probe}: {get}")


def included(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def gateway(resources, where):
    """Names and selectors that must match."""
    by_kind = {}
    for resource in resources:
        by_kind.setdefault(resource["kind"], []).append(resource)
    names = [label(resource) for resource in resources]
    expect(len(names) == len(set(names)), f"{where}: duplicate names: {names}")
    deployment = by_kind["Deployment"][0]
    template = deployment["spec"]["template"]
    labels, spec = template["metadata"]["labels"], template["spec"]
    ours = next(c for c in spec["containers"] if c["name"] == "hawkgate")
    ports = {port["name"]: port["containerPort"] for port in ours["ports"]}

    hardened(ours, where)
    probes_reach(ours, where)
    mounts_exist(spec, where)
    expect(spec["automountServiceAccountToken"] is False, f"{where}: mounts the API's token")
    expect(at(spec, "securityContext.runAsNonRoot") is True, f"{where}: the pod may run as root")
    expect(included(at(deployment, "spec.selector.matchLabels"), labels), f"{where}: the Deployment does not select its pods")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for resource in by_kind.get(kind, []):
            selector = at(resource, "spec.selector.matchLabels") or at(resource, "spec.podSelector.matchLabels")
            expect(included(selector, labels), f"{where}: {kind} does not select the pods: {selector}")
    for constraint in spec.get("topologySpreadConstraints", []):
        expect("labelSelector" in constraint, f"{where}: a topology spread constraint without a labelSelector")
    for resource in by_kind.get("HorizontalPodAutoscaler", []):
        target = at(resource, "spec.scaleTargetRef.name")
        expect(target == deployment["metadata"]["name"], f"{where}: the autoscaler scales {target}")
        expect("replicas" not in deployment["spec"], f"{where}: replicas are set despite an autoscaler")
    for policy in by_kind.get("NetworkPolicy", []):
        for rule in policy["spec"]["ingress"]:
            named = [port["port"] for port in rule["ports"]]
            expect(set(named) <= set(ports), f"{where}: NetworkPolicy opens {named} of {ports}")
    services(by_kind, labels, ports, where)
    for pod in by_kind.get("Pod", []):
        expect("helm.sh/hook" in pod["metadata"]["annotations"], f"{where}: a Pod that is not a hook")
        hardened(pod["spec"]["containers"][0], f"{where}: test pod")
        for service in by_kind["Service"]:
            hit = included(service["spec"]["selector"], pod["metadata"]["labels"])
            expect(not hit, f"{where}: {label(service)} selects the test pod")


def services(by_kind, labels, ports, where):
    offered = {}
    for service in by_kind["Service"]:
        expect(included(service["spec"]["selector"], labels), f"{where}: {label(service)} does not select the pods")
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, f"{where}: {label(service)} has an unknown target port {port['targetPort']}")
            offered[service["metadata"]["name"]] = port
            if not service["metadata"]["name"].endswith("-admin"):
                expect(port["targetPort"] == "http", f"{where}: the admin listener is exposed to callers")
    for ingress in by_kind.get("Ingress", []):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                to = path["backend"]["service"]
                port = offered.get(to["name"], {})
                expect(port.get("name") == to["port"]["name"], f"{where}: the Ingress has an unknown backend {to}")
    for route in by_kind.get("HTTPRoute", []):
        for to in route["spec"]["rules"][0]["backendRefs"]:
            port = offered.get(to["name"], {})
            expect(port.get("port") == to["port"], f"{where}: the HTTPRoute has an unknown backend {to}")
    for monitor in by_kind.get("ServiceMonitor", []):
        selector = monitor["spec"]["selector"]["matchLabels"]
        hits = [s for s in by_kind["Service"] if included(selector, s["metadata"]["labels"])]
        expect(len(hits) == 1, f"{where}: the ServiceMonitor selects {[label(s) for s in hits]}")
        names = [port["name"] for service in hits for port in service["spec"]["ports"]]
        expect(monitor["spec"]["endpoints"][0]["port"] in names, f"{where}: ServiceMonitor's port")
