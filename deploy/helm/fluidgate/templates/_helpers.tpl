{{- define "fluidgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "fluidgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fluidgate.labels" -}}
{{ include "fluidgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "fluidgate.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "fluidgate.name" . }}
{{- else }}default
{{- end }}
{{- end }}

{{- /* Seconds that a pod gets to leave: drain_seconds is read out of the gateway file. */ -}}
{{- define "fluidgate.leave" -}}
{{- if .Values.terminationGracePeriodSeconds }}{{ int .Values.terminationGracePeriodSeconds }}
{{- else }}
{{- $line := regexFind `(?m)^\s*drain_seconds\s*=\s*[0-9_.]+` .Values.gatewayToml }}
{{- $drain := 60 }}
{{- if $line }}{{ $drain = regexFind `[0-9_.]+$` $line | replace "_" "" | float64 | ceil | int }}{{ end }}
{{- add (int .Values.preStopSeconds) $drain 10 }}
{{- end }}
{{- end }}
