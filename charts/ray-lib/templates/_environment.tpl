{{/* Where things are, for jobs, gateway and operations alike. Credentials come from the pod's identity or a Secret. */}}
{{- define "ray-lib.environment" -}}
{{- $values := .Values -}}
- {name: HAETSAL_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- with $values.storage.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
- {name: AWS_REGION, value: us-east-1}
{{- end }}
{{- with $values.storage.credentialsSecret }}
- {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}}
- {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}}
{{- end }}
{{- range $name, $value := $values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
