{{/* The beginning of all names. Nodes are called <fullname>-<ordinal>, as their pods. */}}
{{- define "highwater.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "highwater" .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-highwater" .Release.Name -}}
{{- end -}}
{{- end -}}

{{- define "highwater.headless" -}}{{ include "highwater.fullname" . }}-nodes{{- end -}}

{{/* What tells the pods of nodes from others; never changed, since a StatefulSet cannot change it. */}}
{{- define "highwater.selector" -}}
app.kubernetes.io/name: highwater
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{/* Labels of an object. Takes (list context component). */}}
{{- define "highwater.metadata" -}}
{{- $context := index . 0 -}}
namespace: {{ $context.Release.Namespace }}
labels:
  app.kubernetes.io/name: highwater
  app.kubernetes.io/instance: {{ $context.Release.Name }}
  app.kubernetes.io/component: {{ index . 1 }}
  app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
{{- end -}}

{{- define "highwater.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The domain below which every node has its pod's name. */}}
{{- define "highwater.domain" -}}
{{ include "highwater.headless" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* The client Service's whole name. */}}
{{- define "highwater.serviceName" -}}
{{ include "highwater.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* Names of the founding nodes, separated by commas. */}}
{{- define "highwater.bootstrap" -}}
{{- $names := list -}}
{{- range $ordinal := until (int .Values.foundingNodes) -}}
{{- $names = append $names (printf "%s-%d" (include "highwater.fullname" $) $ordinal) -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Addresses of the founding nodes inside the cluster, where each of them is found before it is ready. */}}
{{- define "highwater.seeds" -}}
{{- $addresses := list -}}
{{- range $name := splitList "," (include "highwater.bootstrap" .) -}}
{{- $addresses = append $addresses (printf "%s.%s:7400" $name (include "highwater.domain" $)) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{/* What a node calls itself to others. Kubernetes puts the pod's name and index in. */}}
{{- define "highwater.advertise" -}}
{{- if not .Values.external.enabled -}}
$(POD_NAME).{{ include "highwater.domain" . }}:7400
{{- else if eq .Values.external.type "LoadBalancer" -}}
{{ .Values.external.host }}:{{ .Values.external.port }}
{{- else -}}
{{ .Values.external.host }}:{{ div (int .Values.external.nodePortBase) 10 }}$(POD_INDEX)
{{- end -}}
{{- end -}}

{{/* The secret of a client's certificate. Takes (list context tenant/client). */}}
{{- define "highwater.clientSecret" -}}
{{ include "highwater.fullname" (index . 0) }}-client-{{ index . 1 | replace "/" "-" | replace "_" "-" }}
{{- end -}}

{{/* What every container may not do. */}}
{{- define "highwater.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "highwater.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.user }}
runAsGroup: {{ .Values.security.group }}
fsGroup: {{ .Values.security.group }}
# A large volume is gone through once, and not at each start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "highwater.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* One setting of `highwater serve` as a line of TOML. Helm reads all numbers as floating ones. Takes (list name value). */}}
{{- define "highwater.setting" -}}
{{- $value := index . 1 -}}
{{ index . 0 }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end -}}

{{/* What the schema cannot say: values that do not fit each other. */}}
{{- define "highwater.check" -}}
{{- $fullname := include "highwater.fullname" . -}}
{{- if gt (len $fullname) 40 -}}
{{- fail (printf "the name %q is longer than 40 characters: give a shorter release name, or fullnameOverride" $fullname) -}}
{{- end -}}
{{- if gt (int .Values.replicas) (int .Values.nodesMax) -}}
{{- fail (printf "replicas is %d and nodesMax %d: raise nodesMax (restarts all nodes, one by one)" (int .Values.replicas) (int .Values.nodesMax)) -}}
{{- end -}}
{{- if and .Release.IsInstall (gt (int .Values.foundingNodes) (int .Values.replicas)) -}}
{{- fail (printf "foundingNodes is %d and replicas %d: nobody founds the cluster before all founding nodes run" (int .Values.foundingNodes) (int .Values.replicas)) -}}
{{- end -}}
{{- if ge (int .Values.probes.livenessSeconds) (int .Values.probes.startupSeconds) -}}
{{- fail "probes.startupSeconds must be more than probes.livenessSeconds: a start takes longer than an answer" -}}
{{- end -}}
{{- with .Values.external -}}
{{- if and .enabled (not .host) -}}
{{- fail "external.enabled needs external.host: what nodes are called from outside, such as $(POD_NAME).highwater.example" -}}
{{- end -}}
{{- if and .enabled (eq .type "LoadBalancer") (gt (int $.Values.replicas) 1) (not (contains "$(POD_NAME)" .host)) -}}
{{- fail "external.host must contain $(POD_NAME) with LoadBalancer: each node has an address of its own" -}}
{{- end -}}
{{- if and .enabled (eq .type "NodePort") (gt (int $.Values.nodesMax) 10) -}}
{{- fail "external.type NodePort has ports for ten nodes: nodesMax must be at most 10" -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.certificates.mode "certManager") (not .Values.certificates.certManager.issuer) -}}
{{- fail "certificates.mode certManager needs certificates.certManager.issuer: the issuer with the authority of this cluster" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.metrics.enabled) -}}
{{- fail "serviceMonitor.enabled needs metrics.enabled: there is nothing to fetch otherwise" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.external.enabled (not .Values.networkPolicy.clients) -}}
{{- fail "networkPolicy.enabled with external.enabled needs networkPolicy.clients: nodes reach each other from outside then, from the addresses of load balancers and machines" -}}
{{- end -}}
{{- if and .Values.client.enabled (not .Values.certificates.clients) -}}
{{- fail "client.enabled needs a client in certificates.clients" -}}
{{- end -}}
{{- end -}}
