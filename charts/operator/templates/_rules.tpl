{{/* What the operator may do where it watches: in all namespaces, or in each that is listed. Secrets are apart. */}}
{{- define "operator.rules" -}}
# It reads what teams ask for, and adds and removes its finalizer.
- apiGroups: [messaging.dev]
  resources: [messagingclusters]
  verbs: [get, list, watch, patch]
# It answers in the status.
- apiGroups: [messaging.dev]
  resources: [messagingclusters/status]
  verbs: [get, patch, update]
# Owner references that hold up the owner's deletion need this where the API server asks for it.
- apiGroups: [messaging.dev]
  resources: [messagingclusters/finalizers]
  verbs: [update]
# It runs the four services.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Their addresses, identities and settings. ServiceAccounts are made, but bound to no Role.
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Drains of nodes leave enough pods.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Who may talk to whom, and the way in.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs: [get, list, watch, create, patch, delete]
# A cluster may leave the number of its pods to an autoscaler.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# The way in where the Gateway API is installed.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
# Prometheus finds the services where its operator is installed.
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, watch, create, patch, delete]
# It names the image that can't be pulled; a Deployment's status doesn't.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list]
# It tells of what became different.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Secrets are read one by one, by the names in a MessagingCluster: no list, no watch, no change. */}}
{{- define "operator.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end -}}

{{- define "operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "operator.account" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
