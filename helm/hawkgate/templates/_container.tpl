{{/* hawkgate's container, for the gateway and for the sidecar. */}}
{{- define "hawkgate.container" -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
name: {{ ternary .Values.sidecar.name "hawkgate" $sidecar }}
image: {{ include "hawkgate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if $sidecar }}
restartPolicy: Always
{{- end }}
args:
  - run
  - --config
  - /etc/hawkgate/hawkgate.toml
  {{- with .Values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .Values.ca.existingConfigMap .Values.extraEnv }}
env:
  {{- if .Values.ca.existingConfigMap }}
  - name: SSL_CERT_FILE
    value: /etc/ssl/certs/ca-certificates.crt
  - name: SSL_CERT_DIR
    value: /etc/hawkgate-ca
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if not $sidecar }}
  - name: http
    containerPort: {{ .Values.ports.http }}
    protocol: TCP
  {{- end }}
  - name: {{ ternary "hawkgate-admin" "admin" $sidecar }}
    containerPort: {{ .Values.ports.admin }}
    protocol: TCP
{{- range $probe, $path := dict "startupProbe" "/startupz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet:
    path: {{ $path }}
    port: {{ ternary "hawkgate-admin" "admin" $sidecar }}
  {{- toYaml (get $.Values $probe) | nindent 2 }}
{{- end }}
{{- if gt (int .Values.preStopSleepSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSleepSeconds }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- range include "hawkgate.mounts" . | fromJsonArray }}
  - name: {{ .name }}
    mountPath: {{ .path }}
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The chart's own volumes and where they are mounted, as JSON. */}}
{{- define "hawkgate.mounts" -}}
{{- $prefix := ternary .Values.sidecar.name "hawkgate" (eq .Values.mode "sidecar") -}}
{{- $mounts := list (dict "name" (printf "%s-config" $prefix) "path" "/etc/hawkgate") -}}
{{- if .Values.existingSecret -}}
  {{- $mounts = append $mounts (dict "name" (printf "%s-secrets" $prefix) "path" "/run/secrets/hawkgate") -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
  {{- $mounts = append $mounts (dict "name" (printf "%s-tls" $prefix) "path" "/run/secrets/hawkgate-tls") -}}
{{- end -}}
{{- if .Values.ca.existingConfigMap -}}
  {{- $mounts = append $mounts (dict "name" (printf "%s-ca" $prefix) "path" "/etc/hawkgate-ca") -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar") .Values.sidecar.identity.enabled -}}
  {{- $mounts = append $mounts (dict "name" (printf "%s-identity" $prefix) "path" "/run/secrets/hawkgate-identity") -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{/* The volumes of these mounts. Never with subPath: such files would not be updated. */}}
{{- define "hawkgate.volumes" -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- $prefix := ternary .Values.sidecar.name "hawkgate" $sidecar -}}
{{- /* A sidecar's pod belongs to another chart and may have no fsGroup that would allow mode 0440. */ -}}
{{- $mode := ternary 0o444 0o440 $sidecar -}}
- name: {{ $prefix }}-config
  configMap:
    name: {{ include "hawkgate.configMapName" . }}
{{- with .Values.existingSecret }}
- name: {{ $prefix }}-secrets
  secret:
    secretName: {{ . }}
    defaultMode: {{ $mode }}
{{- end }}
{{- with .Values.tls.existingSecret }}
- name: {{ $prefix }}-tls
  secret:
    secretName: {{ . }}
    defaultMode: {{ $mode }}
{{- end }}
{{- if .Values.ca.existingConfigMap }}
- name: {{ $prefix }}-ca
  configMap:
    name: {{ .Values.ca.existingConfigMap }}
    items:
      - key: {{ .Values.ca.key }}
        path: ca.crt
      # Only files with such names are read from SSL_CERT_DIR.
      - key: {{ .Values.ca.key }}
        path: "00000000.0"
{{- end }}
{{- if and $sidecar .Values.sidecar.identity.enabled }}
- name: {{ $prefix }}-identity
  projected:
    sources:
      - serviceAccountToken:
          audience: {{ .Values.sidecar.identity.audience | quote }}
          expirationSeconds: {{ .Values.sidecar.identity.expirationSeconds }}
          path: token
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Replaces the pods when the file changes. */}}
{{- define "hawkgate.annotations" -}}
{{- if and .Values.rollOnConfigChange (not .Values.existingConfig) -}}
checksum/{{ ternary .Values.sidecar.name "config" (eq .Values.mode "sidecar") }}: {{ include "hawkgate.config.text" . | sha256sum }}
{{- end -}}
{{- end -}}
