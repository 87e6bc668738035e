{{/*
What head and workers have in common: one Ray container in a restricted pod.
Takes root, role (head, worker), group (its values), image, serviceAccount, cluster (value of the label
`haetsal/cluster`), priorityClass, graceSeconds, mountToken, serving, preStop, ready (port and path), and optionally
config, the name of a ConfigMap that is mounted at /etc/haetsal.
*/}}
{{- define "ray-lib.pod" -}}
metadata:
  labels:
    app.kubernetes.io/part-of: haetsal
    haetsal/cluster: {{ .cluster }}
  annotations:
    # Ray's autoscaler removes idle workers; the node autoscaler must not move busy ones.
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
spec:
  serviceAccountName: {{ .serviceAccount }}
  automountServiceAccountToken: {{ .mountToken }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .graceSeconds }}
  {{- with .priorityClass }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- include "ray-lib.podSecurity" . | nindent 4 }}
  {{- include "ray-lib.pullSecrets" .root | nindent 2 }}
  {{- include "ray-lib.nodes" .group | nindent 2 }}
  {{- include "ray-lib.placement" . | nindent 2 }}
  containers:
    - name: ray
      image: {{ include "ray-lib.image" (dict "root" .root "name" (printf "job-%s" .image)) }}
      imagePullPolicy: IfNotPresent
      securityContext:
        {{- include "ray-lib.containerSecurity" . | nindent 8 }}
      resources:
        # Equal requests and limits: Ray plans with the limits, and the pod is the last that a full node evicts.
        {{- $resources := dict "cpu" .group.cpu "memory" .group.memory }}
        {{- with .group.gpus }}{{ $_ := set $resources "nvidia.com/gpu" . }}{{ end }}
        requests: {{ toJson $resources }}
        limits: {{ toJson $resources }}
      ports:
        {{- if eq .role "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: as-metrics, containerPort: 44217}
        - {name: dash-metrics, containerPort: 44227}
        {{- end }}
        - {name: metrics, containerPort: 8080}
        - {name: serve, containerPort: 8000}
      env:
        {{- include "ray-lib.scratchEnv" . | nindent 8 }}
        # New with every retry of a run: what a job fences its predecessors by.
        - {name: HAETSAL_ATTEMPT, valueFrom: {fieldRef: {fieldPath: "metadata.labels['ray.io/cluster']"}}}
        {{- include "ray-lib.environment" .root | nindent 8 }}
        {{- if .serving }}
        # Six times the requests per second of Serve's own proxy. A request that a dying replica took and did not begin
        # to answer goes to another one.
        - {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
        - {name: RAY_SERVE_HAPROXY_RETRY_ON, value: conn-failure empty-response}
        {{- end }}
      volumeMounts:
        {{- include "ray-lib.scratchMounts" . | nindent 8 }}
        {{- with .config }}
        - {name: config, mountPath: /etc/haetsal, readOnly: true}
        {{- end }}
      lifecycle:
        preStop: {exec: {command: ["/bin/sh", "-c", {{ .preStop | quote }}]}}
      # KubeRay would add probes of its own, for serving ones that need wget in the image.
      startupProbe:
        httpGet: {path: /api/healthz, port: 52365}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /api/healthz, port: 52365}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 12
      readinessProbe:
        httpGet: {path: {{ .ready.path }}, port: {{ .ready.port }}}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ .ready.failures }}
  volumes:
    - {name: scratch, emptyDir: {sizeLimit: {{ .group.scratch }}}}
    {{- with .config }}
    - {name: config, configMap: {name: {{ . }}}}
    {{- end }}
{{- end }}

{{/* Near each other or apart. Takes group and cluster as ray-lib.pod does. A head is alone: it has no placement. */}}
{{- define "ray-lib.placement" -}}
{{- $selector := dict "matchLabels" (dict "haetsal/cluster" .cluster "ray.io/node-type" .role) -}}
{{- if eq (.group.placement | default "") "pack" }}
affinity:
  podAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {{ toJson $selector }}}
{{- else if eq (.group.placement | default "") "spread" }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - {maxSkew: 1, topologyKey: {{ . }}, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{ toJson $selector }}}
  {{- end }}
{{- end }}
{{- end }}
