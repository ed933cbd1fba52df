{{/* Names by which clients that are not ours may verify a node. Takes (list context node). */}}
{{- define "highwater.dnsNames" -}}
{{- $context := index . 0 -}}
{{- $node := index . 1 -}}
{{- $service := include "highwater.fullname" $context -}}
- {{ printf "%s.%s" $node (include "highwater.domain" $context) | quote }}
- {{ include "highwater.serviceName" $context | quote }}
- {{ printf "%s.%s.svc" $service $context.Release.Namespace | quote }}
- {{ printf "%s.%s" $service $context.Release.Namespace | quote }}
{{- $host := $context.Values.external.host | replace "$(POD_NAME)" $node }}
{{- if and $context.Values.external.enabled (regexMatch "[a-z]" $host) (not (contains ":" $host)) }}
- {{ $host | quote }}
{{- end }}
{{- end -}}

{{/* Names of all nodes that get certificates, separated by commas: those that run, and those that the pods' template waits for. */}}
{{- define "highwater.nodes" -}}
{{- $names := list -}}
{{- range $ordinal := until (int (max .Values.replicas .Values.foundingNodes)) -}}
{{- $names = append $names (printf "%s-%d" (include "highwater.fullname" $) $ordinal) -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}
