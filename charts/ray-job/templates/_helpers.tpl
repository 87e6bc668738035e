{{/* Whether Ray adds and removes workers: "true" or "false". */}}
{{- define "ray-job.autoscaling" -}}
{{- $any := false -}}
{{- range .Values.workers }}{{ if ne (int .min) (int .max) }}{{ $any = true }}{{ end }}{{ end -}}
{{- $any -}}
{{- end }}

{{/* Contradictions among values, each as one sentence. */}}
{{- define "ray-job.check" -}}
{{- include "ray-lib.check" . -}}
{{- include "ray-lib.checkName" (dict "kind" "run" "name" .Release.Name "most" 47) -}}
{{- $values := .Values -}}
{{- if not $values.config }}
{{- fail "config: is empty; pass the run's settings file with --set-file config=<file>" }}
{{- end }}
{{- if and $values.sharedCluster $values.workers }}
{{- fail (printf "workers: the run takes the workers of %s; leave workers empty or sharedCluster" $values.sharedCluster) }}
{{- end }}
{{- if not (or $values.sharedCluster $values.workers) }}
{{- fail "workers: names no worker group; for example workers.training.min=1 and workers.training.max=1" }}
{{- end }}
{{- if and $values.sharedCluster (gt (int $values.retries) 0) }}
{{- fail "retries: every retry is a new cluster, which a shared one cannot be; set retries: 0" }}
{{- end }}
{{- if and $values.sharedCluster $values.queue }}
{{- fail "queue: Kueue admits clusters, and the shared one runs already; leave queue or sharedCluster empty" }}
{{- end }}
{{- range $name, $count := $values.workers }}
{{- if not (hasKey $values.ray.workerGroups $name) }}
{{- fail (printf "workers.%s: there is no such group; ray.workerGroups has %s" $name (keys $values.ray.workerGroups | sortAlpha | join ", ")) }}
{{- end }}
{{- if gt (int $count.min) (int $count.max) }}
{{- fail (printf "workers.%s: min %v is above max %v; raise max or lower min" $name $count.min $count.max) }}
{{- end }}
{{- end }}
{{- if and $values.queue (eq (include "ray-job.autoscaling" .) "true") }}
{{- fail "workers: Kueue admits clusters of fixed size; set min equal to max, or leave queue empty" }}
{{- end }}
{{- if and (not (kindIs "invalid" $values.cleanup.ttlSeconds)) $values.cleanup.deletionRules }}
{{- fail "cleanup: ttlSeconds and deletionRules exclude each other; set one of them" }}
{{- end }}
{{- if and $values.queue $values.cleanup.deletionRules }}
{{- fail "cleanup.deletionRules: Kueue needs the ttl form; set cleanup.ttlSeconds instead" }}
{{- end }}
{{- if gt (int $values.cleanup.keepHeadSeconds) (int $values.cleanup.keepRecordSeconds) }}
{{- fail (printf "cleanup: the head cannot outlive the record; set keepRecordSeconds to %v or more" $values.cleanup.keepHeadSeconds) }}
{{- end }}
{{- if ge (int $values.deadlines.startSeconds) (int $values.deadlines.runSeconds) }}
{{- fail (printf "deadlines: runSeconds %v includes the wait; it must be above startSeconds %v" $values.deadlines.runSeconds $values.deadlines.startSeconds) }}
{{- end }}
{{- end }}

{{/* How the run ends: KubeRay's deletionRules, or its older ttl form. They exclude each other. */}}
{{- define "ray-job.cleanup" -}}
{{- $cleanup := .Values.cleanup -}}
{{- $ttl := $cleanup.ttlSeconds -}}
{{- if and (kindIs "invalid" $ttl) .Values.queue }}{{ $ttl = $cleanup.keepHeadSeconds }}{{ end -}}
{{- if not (kindIs "invalid" $ttl) -}}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $ttl }}
{{- else -}}
deletionStrategy:
  deletionRules:
  {{- if $cleanup.deletionRules }}
    {{- toYaml $cleanup.deletionRules | nindent 4 }}
  {{- else }}
    {{- range $condition := list (dict "jobStatus" "SUCCEEDED") (dict "jobStatus" "FAILED") (dict "jobDeploymentStatus" "Failed") }}
    {{- if not $.Values.sharedCluster }}
    {{- if eq (include "ray-job.autoscaling" $) "false" }}
    - {policy: DeleteWorkers, condition: {{ toJson (merge (dict "ttlSeconds" 0) $condition) }}}
    {{- end }}
    - {policy: DeleteCluster, condition: {{ toJson (merge (dict "ttlSeconds" $cleanup.keepHeadSeconds) $condition) }}}
    {{- end }}
    - {policy: DeleteSelf, condition: {{ toJson (merge (dict "ttlSeconds" $cleanup.keepRecordSeconds) $condition) }}}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
