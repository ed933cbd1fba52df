{{- define "highwater.clientSelector" -}}
app.kubernetes.io/name: highwater
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: client
{{- end -}}

{{/* A pod whose containers act as the first client of certificates.clients. */}}
{{- define "highwater.clientPod" -}}
serviceAccountName: {{ include "highwater.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "highwater.pullSecrets" . }}
{{ . }}
{{- end }}
securityContext:
  {{- include "highwater.podSecurity" . | nindent 2 }}
volumes:
  - name: profile
    configMap:
      name: {{ include "highwater.fullname" . }}-profile
  - name: tls
    secret:
      secretName: {{ include "highwater.clientSecret" (list . (first .Values.certificates.clients)) }}
      defaultMode: 0400
{{- end -}}

{{- define "highwater.clientContainer" -}}
image: {{ include "highwater.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: HIGHWATER_CONFIG
    value: /etc/highwater/profile/profile.toml
securityContext:
  {{- include "highwater.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: profile
    mountPath: /etc/highwater/profile
    readOnly: true
  - name: tls
    mountPath: /etc/highwater/tls
    readOnly: true
{{- end -}}
