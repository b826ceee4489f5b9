{{/* What ServiceMonitor and PodMonitor have in common, above their selector. */}}
{{- define "hawkgate.monitor" }}
  {{- with .monitor.namespace }}
  namespaceSelector:
    matchNames: [{{ $.root.Release.Namespace }}]
  {{- end }}
  {{- with .monitor.jobLabel }}
  jobLabel: {{ . }}
  {{- end }}
  {{- with .monitor.podTargetLabels }}
  podTargetLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* What their endpoints have in common, below port and path. */}}
{{- define "hawkgate.monitor.endpoint" -}}
{{- range $key := list "interval" "scrapeTimeout" "honorLabels" "relabelings" "metricRelabelings" }}
{{- with get $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
The label `job` of the gateway's samples: the value of jobLabel on the Service, or the Service's name,
as the Prometheus Operator chooses it.
*/}}
{{- define "hawkgate.job" -}}
{{- $labels := merge (dict "app.kubernetes.io/component" "admin") (include "hawkgate.labels" . | fromYaml) -}}
{{- $own := printf "%s-admin" (include "hawkgate.fullname" .) -}}
{{- .Values.prometheusRule.job | default (get $labels .Values.serviceMonitor.jobLabel) | default $own -}}
{{- end -}}

{{/*
One alert of files/alerts.yaml for this release, as YAML, or nothing if it is omitted. absent() has
to name the release's own job and namespace: otherwise any other hawkgate would hide that this one
is gone.
*/}}
{{- define "hawkgate.alert" -}}
{{- $root := .root -}}
{{- $rule := .rule -}}
{{- /* A sidecar is there only while a Job runs: absence is normal. */ -}}
{{- $normal := and (eq $root.Values.mode "sidecar") (eq $rule.alert "HawkgateAbsent") -}}
{{- if not (or $normal (has $rule.alert $root.Values.prometheusRule.disabled)) -}}
  {{- $own := printf "{job=%s, namespace=%s}" (include "hawkgate.job" $root | quote) (quote $root.Release.Namespace) -}}
  {{- $_ := set $rule "expr" (regexReplaceAllLiteral "\\{job=~\"[^\"]*\", namespace=~\"[^\"]*\"\\}" $rule.expr $own) -}}
  {{- $_ := set $rule "labels" (mergeOverwrite $rule.labels $root.Values.prometheusRule.alertLabels) -}}
  {{- $url := regexReplaceAllLiteral "^[^#]*" $rule.annotations.runbook_url $root.Values.prometheusRule.runbookURL -}}
  {{- $_ := set $rule.annotations "runbook_url" $url -}}
  {{- toYaml $rule -}}
{{- end -}}
{{- end -}}
