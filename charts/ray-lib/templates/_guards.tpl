{{/*
What protects one cluster's pods: budgets against voluntary eviction, and traffic among themselves only.
Takes root, name (of the objects), cluster (value of `haetsal/cluster`) and workers, the number that must stay.
`minAvailable`, because no other form works for pods whose owner has no scale subresource.
*/}}
{{- define "ray-lib.guards" -}}
{{- range $role, $least := dict "head" 1 "worker" (int .workers) }}
{{- if $least }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $.name }}-{{ $role }}
  labels:
    {{- include "ray-lib.labels" $.root | nindent 4 }}
spec:
  minAvailable: {{ $least }}
  selector:
    matchLabels: {haetsal/cluster: {{ $.cluster }}, ray.io/node-type: {{ $role }}}
{{- end }}
{{- end }}
---
# Ray's processes talk to each other on many ports, some chosen at random; only within one cluster.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}-within
  labels:
    {{- include "ray-lib.labels" .root | nindent 4 }}
spec:
  podSelector: &cluster
    matchLabels: {haetsal/cluster: {{ .cluster }}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: *cluster}]
  egress:
    - to: [{podSelector: *cluster}]
{{- end }}
