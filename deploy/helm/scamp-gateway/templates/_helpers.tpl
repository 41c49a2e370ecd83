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

{{/* All texts are quoted: a release may be called 1e5, and a Secret "on". */}}
{{- define "scamp-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "scamp-gateway.labels" -}}
{{ include "scamp-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "scamp-gateway.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* Values that are good one by one and not together: a schema cannot say why. */}}
{{- define "scamp-gateway.check" -}}
{{- $listens := eq .Values.config.discovery_source "multicast" -}}
{{- if not (regexMatch "^[a-z]" (include "scamp-gateway.name" .)) -}}
{{- fail "names of Services begin with a letter: this release needs nameOverride" -}}
{{- end -}}
{{- if ne $listens (eq .Values.discovery.source "none") -}}
{{- fail "discovery.source none and config.discovery_source multicast need each other" -}}
{{- end -}}
{{- if and (eq .Values.discovery.source "claim") (not .Values.discovery.claim) -}}
{{- fail "discovery.claim has to name a claim" -}}
{{- end -}}
{{- with .Values.service -}}
{{- if and .externalTrafficPolicy (eq .type "ClusterIP") -}}
{{- fail "service.externalTrafficPolicy is for NodePort and LoadBalancer" -}}
{{- end -}}
{{- if and (or .loadBalancerClass .loadBalancerSourceRanges) (ne .type "LoadBalancer") -}}
{{- fail "service.loadBalancerClass and loadBalancerSourceRanges are for LoadBalancer" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts has to name a host" -}}
{{- end -}}
{{- range .Values.config.ticket_keys -}}
{{- if and (not $.Values.ticketKeys.secret) (hasPrefix "/etc/scamp/ticket-keys/" .) -}}
{{- fail "config.ticket_keys names files of ticketKeys.secret, which is empty" -}}
{{- end -}}
{{- end -}}
{{- if gt (int .Values.networkPolicy.meshPorts.first) (int .Values.networkPolicy.meshPorts.last) -}}
{{- fail "networkPolicy.meshPorts.first is above last" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" .Values.resources) -}}
{{- fail "autoscaling.cpuUtilization is a share of resources.requests.cpu, which is missing" -}}
{{- end -}}
{{- end -}}
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
