{{/* Contradictions among values, each as one sentence. */}}
{{- define "haetsal.check" -}}
{{- include "ray-lib.check" . -}}
{{- include "ray-lib.checkName" (dict "kind" "release" "name" .Release.Name "most" 37) -}}
{{- $values := .Values -}}
{{- range $section := list "serving" "gateway" }}
{{- $it := index $values $section }}
{{- if gt (int $it.min) (int $it.max) }}
{{- fail (printf "%s: min %v is above max %v; raise max or lower min" $section $it.min $it.max) }}
{{- end }}
{{- end }}
{{- range $name, $backend := $values.gateway.backends }}
{{- if and $values.gateway.enabled (not $values.serving.enabled) (not $backend.urls) }}
{{- fail (printf "gateway.backends.%s: has nothing to forward to; set serving.enabled: true, or urls" $name) }}
{{- end }}
{{- end }}
{{- if and $values.objectStore.enabled (eq $values.profile "aws") }}
{{- fail "objectStore: is for kind, where one lost volume loses nothing of value; on AWS set storage.root to a bucket" }}
{{- end }}
{{- if and $values.objectStore.enabled (ne $values.storage.credentialsSecret "object-store") }}
{{- fail "objectStore: its keys are in the Secret object-store; set storage.credentialsSecret: object-store" }}
{{- end }}
{{- range $name, $job := $values.operations.jobs }}
{{- if and $job.enabled (not $values.storage.backups) }}
{{- fail (printf "operations.jobs.%s: needs storage.backups, an s3:// address" $name) }}
{{- end }}
{{- end }}
{{- if ne (empty $values.tracking.database) (empty $values.tracking.databaseSecret) }}
{{- fail "tracking: database and databaseSecret belong together; set both, or neither" }}
{{- end }}
{{- if eq $values.operations.drillNamespace .Release.Namespace }}
{{- fail "operations.drillNamespace: the drill deletes what it restored; choose another namespace than the platform's" }}
{{- end }}
{{- range $name, $quota := $values.queues.quotas }}
{{- if not (hasKey $values.ray.workerGroups $name) }}
{{- fail (printf "queues.quotas.%s: there is no such worker group; ray.workerGroups has %s" $name (keys $values.ray.workerGroups | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The gateway's file: what the values say, and what follows from where it runs. */}}
{{- define "haetsal.routes" -}}
{{- $gateway := .Values.gateway -}}
{{- $backends := deepCopy $gateway.backends -}}
{{- range $name, $backend := $backends }}
{{- $urls := $backend.urls | default (list (printf "http://%s-serve-svc:8000" (include "haetsal.serve" $))) }}
{{- $_ := set $backend "urls" $urls }}
{{- end -}}
{{- $models := deepCopy $gateway.models -}}
{{- range $name, $model := $models }}
{{- if not $model.shadow }}{{ $_ := unset $model "shadow" }}{{ end }}
{{- end -}}
backends: {{ toJson $backends }}
models: {{ toJson $models }}
limits: {{ toJson $gateway.limits }}
keys_file: ../keys/keys.yaml
# Limits of a key are shared out among as many replicas as there may be: never more than was granted.
replicas: {{ $gateway.max }}
{{- with $gateway.feedback }}
feedback: {address: {{ . | quote }}}
{{- end }}
# Nothing tells a pod that every node has taken it out of the Service; until then it goes on accepting.
drain: {announce_s: 10, finish_s: {{ $gateway.drainSeconds }}}
{{- end }}

{{- define "haetsal.serve" -}}
{{ .Release.Name }}-serve
{{- end }}

{{/* Name of a priority class, if the chart makes them. Takes root and name. */}}
{{- define "haetsal.priority" -}}
{{- if .root.Values.priorities.enabled -}}haetsal-{{ .name }}{{- end -}}
{{- end }}

{{/* Worker groups of the shared cluster, as ray-lib.cluster takes them. */}}
{{- define "haetsal.groups" -}}
{{- $groups := list -}}
{{- range $name, $group := .Values.ray.workerGroups }}
{{- $groups = append $groups (dict "name" $name "min" $group.min "max" $group.max) }}
{{- end }}
{{- toJson $groups }}
{{- end }}
