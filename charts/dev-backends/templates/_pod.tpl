{{/* What every object carries. Called with the chart's context and the system's name. */}}
{{- define "backends.selector" -}}
app.kubernetes.io/name: {{ .system }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "backends.metadata" -}}
name: {{ .system }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "backends.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: messaging-backends
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* One pod of a system, up to its containers. */}}
{{- define "backends.set" -}}
apiVersion: apps/v1
kind: StatefulSet
metadata: {{- include "backends.metadata" . | nindent 2 }}
spec:
  serviceName: {{ .system }}
  replicas: 1
  selector:
    matchLabels: {{- include "backends.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "backends.selector" . | nindent 8 }}
    spec:
      {{- include "backends.pod" .root | nindent 6 }}
{{- end -}}

{{- define "backends.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 10
securityContext:
  runAsNonRoot: true
  runAsUser: 65534
  runAsGroup: 65534
  fsGroup: 65534
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "backends.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
