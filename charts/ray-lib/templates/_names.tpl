{{/* Labels of every object of ours. Takes the chart's root. */}}
{{- define "ray-lib.labels" -}}
app.kubernetes.io/part-of: haetsal
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Image reference. Takes root and name (job-cpu, job-gpu, ops, gateway). */}}
{{- define "ray-lib.image" -}}
{{- $images := .root.Values.images -}}
{{- with $images.registry }}{{ . }}/{{ end }}{{ .name }}:{{ $images.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Pull secrets of a pod. Takes root. */}}
{{- define "ray-lib.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Placement on a node pool. Takes pool, a `node-type` label or nothing. Only pools of GPU nodes are tainted. */}}
{{- define "ray-lib.nodes" -}}
{{- with .pool }}
nodeSelector:
  node-type: {{ . }}
{{- if hasPrefix "gpu-" . }}
tolerations:
  - {key: {{ . }}, operator: Equal, value: "true", effect: NoSchedule}
{{- end }}
{{- end }}
{{- end }}

{{/* Name limit of Kubernetes and KubeRay. Takes kind, name and most characters. */}}
{{- define "ray-lib.checkName" -}}
{{- if or (gt (len .name) (int .most)) (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" .name)) -}}
{{- fail (printf "%s %q: a name has at most %v characters of a-z, 0-9 and -, begins with a letter and does not end with -; choose a shorter release name" .kind .name .most) -}}
{{- end -}}
{{- end }}
