{{/* Where pods of nodes may run. */}}
{{- define "highwater.placement" -}}
{{- if ne .Values.spread.hosts "none" -}}
affinity:
  podAntiAffinity:
    {{- if eq .Values.spread.hosts "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "highwater.selector" . | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "highwater.selector" . | nindent 14 }}
    {{- end }}
{{ end -}}
{{- if ne .Values.spread.zones "none" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .Values.spread.zones }}
    labelSelector:
      matchLabels:
        {{- include "highwater.selector" . | nindent 8 }}
{{ end -}}
{{- with .Values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
