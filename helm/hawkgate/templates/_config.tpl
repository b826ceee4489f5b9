{{/*
The configuration as JSON, whichever way it was given; "{}" with existingConfig, whose text
is not known here.
*/}}
{{- define "hawkgate.config" -}}
{{- if kindIs "string" .Values.config -}}
{{- fromToml .Values.config | toJson -}}
{{- else if .Values.config -}}
{{- include "hawkgate.config.withDefaults" . -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* The configuration with defaults that depend on the chart's values. */}}
{{- define "hawkgate.config.withDefaults" -}}
{{- $any := include "hawkgate.anyAddress" . -}}
{{- $address := printf "%s:%d" (ternary "127.0.0.1" $any (eq .Values.mode "sidecar")) (int .Values.ports.http) -}}
{{- $listener := dict "address" $address -}}
{{- if .Values.tls.existingSecret -}}
  {{- $files := dict "cert" "/run/secrets/hawkgate-tls/tls.crt" "key" "/run/secrets/hawkgate-tls/tls.key" -}}
  {{- if .Values.tls.clientCA -}}
    {{- $_ := set $files "client_ca" "/run/secrets/hawkgate-tls/ca.crt" -}}
  {{- end -}}
  {{- $_ := set $listener "tls" $files -}}
{{- end -}}
{{- with .Values.trustedProxies -}}
  {{- $_ := set $listener "trusted_proxies" . -}}
{{- end -}}
{{- $listen := ternary $address $listener (eq (len $listener) 1) -}}
{{- $server := dict "listen" (list $listen) "admin" (printf "%s:%d" $any (int .Values.ports.admin)) -}}
{{- if eq .Values.mode "gateway" -}}
  {{- $_ := set $server "drain_delay" "5s" -}}
{{- end -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "server" (mergeOverwrite $server ($config.server | default dict)) -}}
{{- toJson $config -}}
{{- end -}}

{{/* "true" if a listener of the configuration trusts proxies. */}}
{{- define "hawkgate.trustsProxies" -}}
{{- $found := false -}}
{{- range ((include "hawkgate.config" . | fromJson).server | default dict).listen -}}
  {{- if kindIs "map" . -}}
    {{- if .trusted_proxies -}}{{- $found = true -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{/* The configuration file: a text as it is, a map as TOML. */}}
{{- define "hawkgate.config.text" -}}
{{- if kindIs "string" .Values.config -}}
{{- .Values.config -}}
{{- else -}}
{{- include "hawkgate.toml" (include "hawkgate.config" . | fromJson) -}}
{{- end -}}
{{- end -}}

{{/*
A map as TOML, in the form that hawkgate's documentation uses: [table], [[table]], and everything
below inline. Helm's toToml would write 2.0 for 2, because numbers in values are floats.
*/}}
{{- define "hawkgate.toml" -}}
{{- range $name, $value := . -}}
{{- if kindIs "map" $value }}
[{{ include "hawkgate.toml.key" $name }}]
{{ include "hawkgate.toml.pairs" $value }}
{{- else if kindIs "slice" $value }}
{{- range $value }}
[[{{ include "hawkgate.toml.key" $name }}]]
{{ include "hawkgate.toml.pairs" . }}
{{- end }}
{{- else if not (kindIs "invalid" $value) }}
{{- fail (printf "config.%s must be a table or a list of tables, as in the file" $name) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "hawkgate.toml.pairs" -}}
{{- if not (kindIs "map" .) -}}
{{- fail (printf "config: expected a table instead of %s" (toJson .)) -}}
{{- end -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{ include "hawkgate.toml.key" $key }} = {{ include "hawkgate.toml.value" $value }}
{{ end -}}
{{- end -}}
{{- end -}}

{{- define "hawkgate.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{/* Every JSON string and number is valid TOML. */}}
{{- define "hawkgate.toml.value" -}}
{{- $parts := list -}}
{{- if kindIs "map" . -}}
  {{- range $key, $value := . -}}
    {{- $parts = append $parts (printf "%s = %s" (include "hawkgate.toml.key" $key) (include "hawkgate.toml.value" $value)) -}}
  {{- end -}}
  {{- printf "{ %s }" (join ", " $parts) -}}
{{- else if kindIs "slice" . -}}
  {{- range . -}}
    {{- $parts = append $parts (include "hawkgate.toml.value" .) -}}
  {{- end -}}
  {{- printf "[%s]" (join ", " $parts) -}}
{{- else -}}
  {{- toJson . -}}
{{- end -}}
{{- end -}}
