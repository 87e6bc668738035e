{{/*
A cluster's headGroupSpec: no task is scheduled on the head, and its pool's nodes are not taken away.
Takes what ray-lib.cluster takes.
*/}}
{{- define "ray-lib.head" -}}
{{- $ray := .root.Values.ray -}}
{{- $pod := dict "root" .root "role" "head" "group" $ray.head "image" .headImage "serviceAccount" .serviceAccount
      "cluster" .cluster "priorityClass" .priorityClass "config" .config "mountToken" .autoscaling "serving" .serving
      "graceSeconds" 90 "preStop" "ray stop --grace-period 60"
      "ready" (dict "path" "/api/healthz" "port" 52365 "failures" 10) -}}
rayStartParams:
  num-cpus: "0"
  dashboard-host: 0.0.0.0
template:
  {{- include "ray-lib.pod" $pod | nindent 2 }}
{{- end }}

{{/*
One workerGroupSpec. Takes what ray-lib.cluster takes, and name, group (its values), min and max.
A worker that is told to go first drains: Ray gives it no more work, and it ends as soon as it is idle, at the latest
when its time is over. Until then training can write its checkpoint.
*/}}
{{- define "ray-lib.worker" -}}
{{- $ray := .root.Values.ray -}}
{{- $drain := printf "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'pod is being removed' --deadline-remaining-seconds %v && exec tail --pid=1 -f /dev/null" $ray.checkpointSeconds -}}
{{- $ready := ternary (dict "path" "/-/healthz" "port" 8000 "failures" 1) (dict "path" "/api/healthz" "port" 52365 "failures" 10) .serving -}}
{{- $pod := dict "root" .root "role" "worker" "group" .group "image" .group.image "serviceAccount" .serviceAccount
      "cluster" .cluster "priorityClass" .priorityClass "config" .config "mountToken" false "serving" .serving
      "graceSeconds" (add $ray.checkpointSeconds 60) "preStop" $drain "ready" $ready -}}
groupName: {{ .name }}
replicas: {{ .min }}
minReplicas: {{ .min }}
maxReplicas: {{ .max }}
{{- if .autoscaling }}
idleTimeoutSeconds: {{ kindIs "invalid" .group.idleSeconds | ternary $ray.autoscaler.idleSeconds .group.idleSeconds }}
{{- end }}
rayStartParams: {}
{{- with .group.rayResources }}
resources: {{ range $name, $amount := . }}
  {{ $name }}: {{ $amount | quote }}
{{- end }}
{{- end }}
template:
  {{- include "ray-lib.pod" $pod | nindent 2 }}
{{- end }}
