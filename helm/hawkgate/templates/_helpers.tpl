{{- define "hawkgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 53 bytes, because "-admin" and other suffixes are appended. */}}
{{- define "hawkgate.fullname" -}}
{{- $name := include "hawkgate.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hawkgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hawkgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "hawkgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with omit .Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hawkgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hawkgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.configMapName" -}}
{{- default (include "hawkgate.fullname" .) .Values.existingConfig -}}
{{- end -}}

{{- define "hawkgate.scheme" -}}
{{- ternary "https" "http" (not (empty .Values.tls.existingSecret)) -}}
{{- end -}}

{{/* The address families of both Services. */}}
{{- define "hawkgate.service.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
  ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* All addresses of the pod. `[::]` takes IPv4 as well, but needs a node with IPv6. */}}
{{- define "hawkgate.anyAddress" -}}
{{- $dual := has .Values.service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack") -}}
{{- ternary "[::]" "0.0.0.0" (or $dual (has "IPv6" .Values.service.ipFamilies)) -}}
{{- end -}}

{{/*
The Deployment's own annotations, and which of kube-score's checks it fails on purpose:
- there is no CPU limit, which would stop a proxy for parts of each period exactly under load; memory is limited;
- images are pulled if absent, because a tag is a version and pods must start while the registry is down;
- pods are spread by topologySpreadConstraints instead of anti-affinity;
- egress is open until networkPolicy.egress says where issuers, sources and upstreams are.
*/}}
{{- define "hawkgate.deploymentAnnotations" -}}
{{- $ignored := list -}}
{{- if not (dig "limits" "cpu" "" .Values.resources) -}}
  {{- $ignored = append $ignored "container-resources" -}}
{{- end -}}
{{- if ne .Values.image.pullPolicy "Always" -}}
  {{- $ignored = append $ignored "container-image-pull-policy" -}}
{{- end -}}
{{- if .Values.topologySpreadConstraints -}}
  {{- $ignored = append $ignored "deployment-has-host-podantiaffinity" -}}
{{- end -}}
{{- if not (and .Values.networkPolicy.enabled .Values.networkPolicy.egress) -}}
  {{- $ignored = append $ignored "pod-networkpolicy" -}}
{{- end -}}
{{- $own := empty $ignored | ternary (dict) (dict "kube-score/ignore" (join "," $ignored)) -}}
{{- with merge (deepCopy .Values.deploymentAnnotations) $own -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.servicePort" -}}
{{- default (ternary 443 80 (not (empty .Values.tls.existingSecret))) .Values.service.port -}}
{{- end -}}

{{/* A duration from the configuration ("1h30m", "250ms") in seconds, rounded up. */}}
{{- define "hawkgate.seconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
  {{- $number := regexFind "^[0-9]+" . | int -}}
  {{- $unit := trimPrefix (regexFind "^[0-9]+" .) . -}}
  {{- if eq $unit "ms" -}}
    {{- $total = add $total (div (add $number 999) 1000) -}}
  {{- else -}}
    {{- $total = add $total (mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit)) -}}
  {{- end -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* The longest shutdown that the configuration allows: before SIGTERM, drain_delay, drain. */}}
{{- define "hawkgate.shutdownSeconds" -}}
{{- $server := (include "hawkgate.config" . | fromJson).server | default dict -}}
{{- $delay := include "hawkgate.seconds" ($server.drain_delay | default "0s") | int -}}
{{- $drain := include "hawkgate.seconds" ($server.drain | default "30s") | int -}}
{{- add .Values.preStopSleepSeconds $delay $drain -}}
{{- end -}}

{{- define "hawkgate.terminationGracePeriodSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "hawkgate.shutdownSeconds" . | int) 5 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
{{- end -}}
