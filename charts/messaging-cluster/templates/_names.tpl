{{- define "cluster.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end -}}

{{- define "cluster.labels" -}}
app.kubernetes.io/instance: {{ include "cluster.name" . }}
app.kubernetes.io/part-of: messaging
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The Secrets that the operator reads for this spec, as a JSON list of names. */}}
{{- define "cluster.secrets" -}}
{{- $spec := .Values.spec -}}
{{- $names := list
    (dig "kafka" "tls" "caSecretRef" "name" "" $spec)
    (dig "kafka" "authentication" "secretRef" "name" "" $spec)
    (dig "dynamodb" "credentialsSecretRef" "name" "" $spec)
    (dig "redis" "tls" "caSecretRef" "name" "" $spec)
    (dig "redis" "authentication" "secretRef" "name" "" $spec)
    (dig "auth" "secretRef" "name" "" $spec) -}}
{{- compact $names | uniq | sortAlpha | toJson -}}
{{- end -}}
