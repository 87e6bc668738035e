{{/*
A RayClusterSpec. Takes:
  root            the chart's root; reads .Values.{ray,images,storage,environment}
  cluster         value of the label `haetsal/cluster`, by which budgets and network policies find the pods
  groups          worker groups: list of {name, min, max}, names in ray.workerGroups
  autoscaling     whether Ray adds and removes workers between min and max
  serving         whether Ray Serve runs on it: behind HAProxy, and workers are ready only when that is
  serviceAccount, priorityClass, tokenSecret, config   as in ray-lib.pod
*/}}
{{- define "ray-lib.cluster" -}}
{{- $ray := .root.Values.ray -}}
{{- /* A run's driver is on the head, where no GPU is: the CPU image has all that it imports. */ -}}
{{- $common := merge (dict "headImage" "cpu") . -}}
rayVersion: {{ $ray.version | quote }}
authOptions:
  mode: token
  {{- with .tokenSecret }}
  secretName: {{ . }}
  {{- end }}
enableInTreeAutoscaling: {{ .autoscaling }}
{{- if .autoscaling }}
autoscalerOptions:
  version: v2
  upscalingMode: {{ $ray.autoscaler.upscalingMode }}
  idleTimeoutSeconds: {{ $ray.autoscaler.idleSeconds }}
  imagePullPolicy: IfNotPresent
  securityContext:
    {{- include "ray-lib.containerSecurity" . | nindent 4 }}
  resources:
    {{- $resources := dict "cpu" $ray.autoscaler.cpu "memory" $ray.autoscaler.memory }}
    requests: {{ toJson $resources }}
    limits: {{ toJson $resources }}
  env:
    {{- include "ray-lib.scratchEnv" . | nindent 4 }}
  volumeMounts:
    {{- include "ray-lib.scratchMounts" . | nindent 4 }}
{{- end }}
headGroupSpec:
  {{- include "ray-lib.head" $common | nindent 2 }}
workerGroupSpecs:
  {{- range .groups }}
  {{- $group := index $ray.workerGroups .name }}
  -
    {{- include "ray-lib.worker" (merge (dict "name" .name "group" $group "min" .min "max" .max) $common) | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Contradictions that a schema cannot tell. Takes root. */}}
{{- define "ray-lib.check" -}}
{{- range $name, $group := .Values.ray.workerGroups }}
{{- $where := printf "ray.workerGroups.%s" $name }}
{{- if gt (int $group.min) (int $group.max) }}
{{- fail (printf "%s: min %v is above max %v; raise max or lower min" $where $group.min $group.max) }}
{{- end }}
{{- if and (eq $group.image "gpu") (lt (int $group.gpus) 1) }}
{{- fail (printf "%s: image gpu needs gpus of at least 1, or set image: cpu" $where) }}
{{- end }}
{{- if and (eq $group.image "cpu") (gt (int $group.gpus) 0) }}
{{- fail (printf "%s: gpus %v would be idle under image cpu; set image: gpu or gpus: 0" $where $group.gpus) }}
{{- end }}
{{- if and (hasPrefix "gpu-" $group.pool) (lt (int $group.gpus) 1) }}
{{- fail (printf "%s: pool %s has GPU nodes, but the group asks for none; set gpus or another pool" $where $group.pool) }}
{{- end }}
{{- end }}
{{- end }}
