{{/*
For charts that have this one as a dependency with `mode: sidecar`. In a pod's template:

  metadata:
    annotations:
      {{- include "hawkgate.sidecar.annotations" .Subcharts.hawkgate | nindent 6 }}
  spec:
    initContainers:
      {{- include "hawkgate.sidecar" .Subcharts.hawkgate | nindent 6 }}
    volumes:
      {{- include "hawkgate.sidecar.volumes" .Subcharts.hawkgate | nindent 6 }}

An init container with `restartPolicy: Always` runs alongside the other containers, starts before them
and ends after them. A Job completes as if it were not there.
*/}}
{{- define "hawkgate.sidecar" -}}
{{- include "hawkgate.sidecar.only" . -}}
-
{{- include "hawkgate.container" . | nindent 2 }}
{{- end -}}

{{- define "hawkgate.sidecar.volumes" -}}
{{- include "hawkgate.sidecar.only" . -}}
{{- include "hawkgate.volumes" . -}}
{{- end -}}

{{- define "hawkgate.sidecar.annotations" -}}
{{- include "hawkgate.sidecar.only" . -}}
{{- include "hawkgate.annotations" . -}}
{{- end -}}

{{- define "hawkgate.sidecar.only" -}}
{{- if ne .Values.mode "sidecar" -}}
{{- fail "hawkgate.sidecar was included with mode: gateway: set hawkgate.mode to sidecar in the chart that includes it" -}}
{{- end -}}
{{- end -}}
