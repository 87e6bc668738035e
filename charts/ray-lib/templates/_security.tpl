{{/* Pod Security "restricted", for every pod of the platform. Volumes belong to the group of the images' user. */}}
{{- define "ray-lib.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ray-lib.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The writable places of a read-only root. */}}
{{- define "ray-lib.scratchMounts" -}}
- {name: scratch, mountPath: /tmp, subPath: tmp}
- {name: scratch, mountPath: /scratch, subPath: home}
{{- end }}

{{- define "ray-lib.scratchEnv" -}}
- {name: HOME, value: /scratch}
- {name: XDG_CACHE_HOME, value: /scratch/.cache}
{{- end }}
