{{/* Rejects values that cannot work before anything is installed; the errors say what to do instead. */}}
{{- define "hawkgate.refuse" -}}
{{- include "hawkgate.refuse.source" . -}}
{{- include "hawkgate.refuse.mode" . -}}
{{- include "hawkgate.refuse.availability" . -}}
{{- include "hawkgate.refuse.monitoring" . -}}
{{- include "hawkgate.refuse.service" . -}}
{{- if and .Values.trustedProxies (or .Values.existingConfig (not (kindIs "map" .Values.config))) -}}
{{- fail "trustedProxies needs config as a map: write trusted_proxies at the listener in your own file instead, listen = [{ address = \"0.0.0.0:8080\", trusted_proxies = [\"10.1.2.0/24\"] }]" -}}
{{- end -}}
{{- if and .Values.trustedProxies (dig "server" "listen" list .Values.config) -}}
{{- fail "trustedProxies and config.server.listen are both set: write trusted_proxies at the listener, [{ address: …, trusted_proxies: […] }]" -}}
{{- end -}}
{{- if and .Values.ca.key (not .Values.ca.existingConfigMap) (ne .Values.ca.key "ca.crt") -}}
{{- fail "ca.key is set without ca.existingConfigMap: name the ConfigMap that has it" -}}
{{- end -}}
{{- if and .Values.tls.clientCA (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCA needs tls.existingSecret: callers can present certificates over TLS only" -}}
{{- end -}}
{{- if not .Values.existingConfig -}}
{{- include "hawkgate.refuse.literals" . -}}
{{- include "hawkgate.refuse.missing" . -}}
{{- include "hawkgate.refuse.addresses" . -}}
{{- include "hawkgate.refuse.shutdown" . -}}
{{- include "hawkgate.refuse.startup" . -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.source" -}}
{{- if and .Values.config .Values.existingConfig -}}
{{- fail "config and existingConfig are both set: keep one" -}}
{{- end -}}
{{- if not (or .Values.config .Values.existingConfig) -}}
{{- fail "no configuration: hawkgate cannot serve requests without one. Set config to its TOML (or the same as a map), or existingConfig to a ConfigMap with the key hawkgate.toml; the chart's README has an example" -}}
{{- end -}}
{{- $config := include "hawkgate.config" . | fromJson -}}
{{- if and (kindIs "string" .Values.config) (hasKey $config "Error") -}}
{{- fail (printf "config is not valid TOML: %s" $config.Error) -}}
{{- end -}}
{{- range $name := list "issuer" "source" "route" "rule" -}}
  {{- $tables := get $config $name | default list -}}
  {{- if not (kindIs "slice" $tables) -}}
    {{- fail (printf "config.%s must be a list, in TOML [[%s]]" $name $name) -}}
  {{- end -}}
  {{- range $tables -}}
    {{- if not (kindIs "map" .) -}}
      {{- fail (printf "config.%s must be a list of tables, but has %s" $name (toJson .)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.mode" -}}
{{- $values := .Values -}}
{{- if eq .Values.mode "sidecar" -}}
{{- range $what := list "ingress" "httpRoute" "autoscaling" "serviceMonitor" -}}
  {{- if (get $values $what).enabled -}}
    {{- $instead := ternary "use podMonitor" "it belongs to mode: gateway" (eq $what "serviceMonitor") -}}
    {{- fail (printf "%s.enabled with mode: sidecar: the chart then creates no pods and no Service; %s" $what $instead) -}}
  {{- end -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
{{- fail "tls with mode: sidecar: the sidecar listens on the pod's loopback only, where TLS protects nothing" -}}
{{- end -}}
{{- if or .Values.extraContainers .Values.extraInitContainers -}}
{{- fail "extraContainers and extraInitContainers with mode: sidecar: put them into the pod that has the sidecar" -}}
{{- end -}}
{{- range $what := list "hostAliases" "dnsPolicy" "dnsConfig" -}}
  {{- if get $values $what -}}
    {{- fail (printf "%s with mode: sidecar: put it into the pod that has the sidecar" $what) -}}
  {{- end -}}
{{- end -}}
{{- if .Values.trustedProxies -}}
{{- fail "trustedProxies with mode: sidecar: only the pod's own containers call the sidecar" -}}
{{- end -}}
{{- else -}}
{{- if .Values.podMonitor.enabled -}}
{{- fail "podMonitor.enabled with mode: gateway: use serviceMonitor" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled without ingress.hosts: name the hosts, [{host: tc.example.com, paths: [/]}]" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled without httpRoute.parentRefs: name the Gateway, [{name: …, namespace: …}]" -}}
{{- end -}}
{{- range (include "hawkgate.config" . | fromJson).route | default list -}}
  {{- if or .workload_token .anonymous -}}
    {{- fail (printf "route %q has %s: anyone who reaches the Service would act as this workload. Use it with mode: sidecar" (toString .name) (ternary "workload_token" "anonymous" (not (empty .workload_token)))) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys that a Service of this type cannot have. */}}
{{- define "hawkgate.refuse.service" -}}
{{- $service := .Values.service -}}
{{- $type := $service.type -}}
{{- if eq $type "ClusterIP" -}}
  {{- range $key := list "nodePort" "externalTrafficPolicy" -}}
    {{- if get $service $key -}}
      {{- fail (printf "service.%s with service.type: ClusterIP: set service.type to NodePort or LoadBalancer" $key) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if ne $type "LoadBalancer" -}}
  {{- range $key := list "loadBalancerIP" "loadBalancerClass" "loadBalancerSourceRanges" "healthCheckNodePort" -}}
    {{- if get $service $key -}}
      {{- fail (printf "service.%s with service.type: %s: set service.type to LoadBalancer" $key $type) -}}
    {{- end -}}
  {{- end -}}
  {{- if not (kindIs "invalid" $service.allocateLoadBalancerNodePorts) -}}
    {{- fail (printf "service.allocateLoadBalancerNodePorts with service.type: %s: set service.type to LoadBalancer" $type) -}}
  {{- end -}}
{{- end -}}
{{- if and $service.healthCheckNodePort (ne $service.externalTrafficPolicy "Local") -}}
{{- fail "service.healthCheckNodePort without service.externalTrafficPolicy: Local: Kubernetes checks nodes only then" -}}
{{- end -}}
{{- if and $service.sessionAffinityConfig (ne $service.sessionAffinity "ClientIP") -}}
{{- fail "service.sessionAffinityConfig without service.sessionAffinity: ClientIP has no effect" -}}
{{- end -}}
{{- if and (eq (len $service.ipFamilies) 2) (not (has $service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack"))) -}}
{{- fail "service.ipFamilies has two families: set service.ipFamilyPolicy to PreferDualStack or RequireDualStack" -}}
{{- end -}}
{{- if and (eq .Values.dnsPolicy "None") (not .Values.dnsConfig.nameservers) -}}
{{- fail "dnsPolicy: None without dnsConfig.nameservers: the pods could resolve no name" -}}
{{- end -}}
{{- end -}}

{{/* Each document of an entry of extraObjects. Values are stored in the release, where many can read them. */}}
{{- define "hawkgate.refuse.object" -}}
{{- $number := .number -}}
{{- range regexSplit "(?m)^---.*$" .text -1 -}}
  {{- $object := fromYaml . -}}
  {{- if hasKey $object "Error" -}}
    {{- fail (printf "extraObjects[%d] is not a YAML map: %s" $number $object.Error) -}}
  {{- end -}}
  {{- if and $object (not (and $object.apiVersion $object.kind (dig "metadata" "name" "" $object))) -}}
    {{- fail (printf "extraObjects[%d] is not a manifest: it needs apiVersion, kind and metadata.name" $number) -}}
  {{- end -}}
  {{- if and (eq (toString $object.kind) "Secret") (or $object.data $object.stringData) -}}
    {{- fail (printf "extraObjects[%d] is the Secret %q with its content: secrets are no values. Create it with kubectl, or with an ExternalSecret or a SealedSecret" $number (toString $object.metadata.name)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.availability" -}}
{{- if eq .Values.mode "gateway" -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetCPUUtilizationPercentage) (not .Values.autoscaling.metrics) -}}
{{- fail "autoscaling.enabled without a metric: set autoscaling.targetCPUUtilizationPercentage or autoscaling.metrics" -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget.minAvailable and maxUnavailable are both set: Kubernetes accepts only one of them" -}}
{{- end -}}
{{- $replicas := ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled | int -}}
{{- if and $budget.enabled (gt $replicas 1) -}}
  {{- if and (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "string" $budget.minAvailable)) (ge (int $budget.minAvailable) $replicas) -}}
    {{- fail (printf "podDisruptionBudget.minAvailable is %d of %d pods: no node could ever be drained" (int $budget.minAvailable) $replicas) -}}
  {{- end -}}
  {{- if or (eq (toString $budget.minAvailable) "100%") (has (toString $budget.maxUnavailable) (list "0" "0%")) -}}
    {{- fail "podDisruptionBudget allows no disruption: no node could ever be drained" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.monitoring" -}}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "serviceMonitor.enabled, but networkPolicy lets only this namespace read metrics: set networkPolicy.metricsFrom, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled (not .Values.podMonitor.matchLabels) -}}
{{- fail "podMonitor.enabled without podMonitor.matchLabels: it would watch every pod of the namespace" -}}
{{- end -}}
{{- $known := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
  {{- range .rules -}}{{- $known = append $known .alert -}}{{- end -}}
{{- end -}}
{{- range .Values.prometheusRule.disabled -}}
  {{- if not (has . $known) -}}
    {{- fail (printf "prometheusRule.disabled names %s, which is not an alert; the alerts are %s" . (join ", " $known)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* hawkgate rejects them too, but by then they would be in a ConfigMap that many can read. */}}
{{- define "hawkgate.refuse.literals" -}}
{{- $config := include "hawkgate.config" . | fromJson -}}
{{- range $table := list "issuer" "source" "session" "route" -}}
  {{- range get $config $table | default list -}}
    {{- $entry := . -}}
    {{- range $key := list "access_token" "client_secret" "private_key" "certificate" "secret" "password" "token" "workload_token" "keys_token" "cookie_key" "previous_cookie_key" -}}
      {{- if kindIs "string" (get $entry $key | default dict) -}}
        {{- fail (printf "%s %q: %s is in the configuration itself, where secrets do not belong. Put it into a Secret, set existingSecret to its name, and write { file = \"/run/secrets/hawkgate/<its key>\" }" $table (toString $entry.name) $key) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $shared := get $config "shared" | default dict -}}
{{- if kindIs "map" $shared -}}
  {{- range $key := list "password" "key" "previous_key" -}}
    {{- if kindIs "string" (get $shared $key | default dict) -}}
      {{- fail (printf "shared: %s is in the configuration itself, where secrets do not belong. Put it into a Secret, set existingSecret to its name, and write { file = \"/run/secrets/hawkgate/<its key>\" }" $key) -}}
    {{- end -}}
  {{- end -}}
  {{- if contains "@" (toString $shared.url) -}}
    {{- fail "shared: the password of the store is in its url, where secrets do not belong. Put it into a Secret, set existingSecret to its name, and write username, and password = { file = \"/run/secrets/hawkgate/<its key>\" }" -}}
  {{- end -}}
{{- end -}}
{{- $network := get $config "network" | default dict -}}
{{- if kindIs "map" $network -}}
  {{- if or (kindIs "string" (get $network "proxy_password" | default dict)) (regexMatch "://[^/]*@" (toString $network.proxy)) -}}
    {{- fail "network: the proxy's password is in the configuration itself, where secrets do not belong. Put it into a Secret, set existingSecret to its name, and write proxy_username, and proxy_password = { file = \"/run/secrets/hawkgate/<its key>\" }" -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Secrets that the configuration reads but no value provides. */}}
{{- define "hawkgate.refuse.missing" -}}
{{- $text := include "hawkgate.config" . -}}
{{- $mounted := list -}}
{{- range .Values.extraVolumeMounts -}}{{- $mounted = append $mounted .mountPath -}}{{- end -}}
{{- range $needs := list (list "/run/secrets/hawkgate/" .Values.existingSecret "existingSecret") (list "/run/secrets/hawkgate-tls/" .Values.tls.existingSecret "tls.existingSecret") (list "/etc/hawkgate-ca/" .Values.ca.existingConfigMap "ca.existingConfigMap") (list "/run/secrets/hawkgate-identity/" (and (eq .Values.mode "sidecar") .Values.sidecar.identity.enabled) "mode: sidecar and sidecar.identity.enabled") -}}
  {{- $folder := index $needs 0 -}}
  {{- if and (contains (printf "\"%s" $folder) $text) (not (index $needs 1)) (not (has (trimSuffix "/" $folder) $mounted)) -}}
    {{- fail (printf "config reads files below %s, which do not exist: set %s" $folder (index $needs 2)) -}}
  {{- end -}}
{{- end -}}
{{- $variables := list -}}
{{- range .Values.extraEnv -}}{{- $variables = append $variables .name -}}{{- end -}}
{{- $envFrom := .Values.envFrom -}}
{{- range regexFindAll "\\{\"env\":\"[A-Za-z0-9_]+\"\\}" $text -1 -}}
  {{- $name := (fromJson .).env -}}
  {{- if not (or $envFrom (has $name $variables)) -}}
    {{- fail (printf "config reads the variable %s, which is not set: give it in extraEnv with valueFrom.secretKeyRef, or in envFrom" $name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The listeners must be where the Service, the probes and the pod's other containers expect them. */}}
{{- define "hawkgate.refuse.addresses" -}}
{{- $server := (include "hawkgate.config" . | fromJson).server | default dict -}}
{{- $admin := $server.admin | default "127.0.0.1:9090" | toString -}}
{{- $wanted := printf ":%d" (int .Values.ports.admin) -}}
{{- if or (hasPrefix "127." $admin) (hasPrefix "[::1]" $admin) (hasPrefix "unix:" $admin) (not (hasSuffix $wanted $admin)) -}}
{{- fail (printf "config: server.admin is %q, where the kubelet's probes cannot reach it: write admin = \"0.0.0.0%s\", or change ports.admin" $admin $wanted) -}}
{{- end -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- $port := printf ":%d" (int .Values.ports.http) -}}
{{- $found := false -}}
{{- $listen := $server.listen | default (list "127.0.0.1:8080") -}}
{{- range $listen -}}
  {{- $address := ternary . (get (ternary . dict (kindIs "map" .)) "address") (kindIs "string" .) | toString -}}
  {{- $local := or (hasPrefix "127." $address) (hasPrefix "[::1]" $address) (hasPrefix "unix:" $address) -}}
  {{- if and (hasSuffix $port $address) (not (and $local (not $sidecar))) -}}{{- $found = true -}}{{- end -}}
  {{- if and $sidecar (not $local) -}}
    {{- fail (printf "config: server.listen has %q: a sidecar serves its own pod only. Write \"127.0.0.1%s\"" $address $port) -}}
  {{- end -}}
{{- end -}}
{{- if not (or $found $sidecar) -}}
{{- fail (printf "config: server.listen has no address that the Service can reach at ports.http: write \"0.0.0.0%s\"" $port) -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.shutdown" -}}
{{- $needed := include "hawkgate.shutdownSeconds" . | int -}}
{{- $given := include "hawkgate.terminationGracePeriodSeconds" . | int -}}
{{- if lt $given $needed -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but preStopSleepSeconds, server.drain_delay and server.drain take %d together: requests would be aborted" $given $needed) -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.refuse.startup" -}}
{{- $server := (include "hawkgate.config" . | fromJson).server | default dict -}}
{{- $grace := include "hawkgate.seconds" ($server.startup_grace | default "60s") | int -}}
{{- $probe := mul .Values.startupProbe.periodSeconds .Values.startupProbe.failureThreshold | int -}}
{{- if le $probe $grace -}}
{{- fail (printf "startupProbe gives up after %d seconds, server.startup_grace is %d: pods would be killed while they wait for an issuer. Raise startupProbe.failureThreshold" $probe $grace) -}}
{{- end -}}
{{- end -}}
