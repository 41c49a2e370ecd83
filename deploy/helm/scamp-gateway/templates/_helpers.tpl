{{/* What everything is called: the release, or chart and release. */}}
{{- define "scamp-gateway.name" -}}
{{- if .Values.nameOverride -}}
{{ .Values.nameOverride }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "scamp-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scamp-gateway.labels" -}}
{{ include "scamp-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "scamp-gateway.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}

{{- define "scamp-gateway.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Settings: JSON values are TOML's, but for tables, which come last. */}}
{{- define "scamp-gateway.toml" -}}
bind = ":8080"
discovery_cache = "/run/scamp/discovery"
authorized_services = "/etc/scamp/mesh/authorized_services"
routes = "/etc/scamp-gateway/routes.toml"
{{- range $name, $value := .Values.config }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $name }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- range $name, $table := .Values.config }}
{{- if kindIs "map" $table }}

[{{ $name }}]
{{- range $key, $value := $table }}
{{ $key | toRawJson }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

{{/* Changes with what the pods read at their start, so that they are replaced. */}}
{{- define "scamp-gateway.checksum" -}}
{{ printf "%s\n%s" (include "scamp-gateway.toml" .) .Values.routes | sha256sum }}
{{- end -}}
