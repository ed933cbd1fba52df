{{/* What tells the pods of a component from others. Takes (list context component). */}}
{{- define "examples.selector" -}}
app.kubernetes.io/name: highwater-examples
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Name, namespace and labels of an object. Takes (list context component). */}}
{{- define "examples.metadata" -}}
{{- $context := index . 0 -}}
name: {{ $context.Release.Name }}-{{ index . 1 }}
namespace: {{ $context.Release.Namespace }}
labels:
  {{- include "examples.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
{{- end -}}

{{- define "examples.image" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* The secret that holds API keys. */}}
{{- define "examples.apiKeysSecret" -}}
{{ .Values.school.apiKeysSecret | default (printf "%s-school-api-keys" .Release.Name) }}
{{- end -}}

{{/* What every pod may not do, and the volumes by which it is a client of the cluster. Takes (list context tenant/client). */}}
{{- define "examples.pod" -}}
{{- $context := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $context.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $context.Values.security.user }}
  runAsGroup: {{ $context.Values.security.group }}
  fsGroup: {{ $context.Values.security.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: profile
    configMap:
      name: {{ $context.Values.cluster.name }}-profile
  - name: tls
    secret:
      secretName: {{ $context.Values.cluster.name }}-client-{{ index . 1 | replace "/" "-" | replace "_" "-" }}
      defaultMode: 0400
{{- end -}}

{{/* What every container may not do, and where the volumes of "examples.pod" are: where the profile says that they are. */}}
{{- define "examples.container" -}}
{{ include "examples.image" . }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: profile
    mountPath: /etc/highwater/profile
    readOnly: true
  - name: tls
    mountPath: /etc/highwater/tls
    readOnly: true
{{- end -}}
