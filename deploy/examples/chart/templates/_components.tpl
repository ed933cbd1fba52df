{{/*
The services, a row each: everything else loops over them.

name      behind the release's name, of all its objects
command   the program and its subcommand
client    which client of the cluster it is, tenant/client; only `init` is an operator
replicas  1 if not said
ports     where it listens; names are those of the Service's ports. None: nobody asks it
env       its settings beside those that all have
keeps     the variable, and the name of the file that stays: it is a StatefulSet with a volume then
apiKeys   whether it gets the secret of API keys
prompt    whether somebody talks to it (`kubectl attach`)
*/}}
{{- define "examples.components" -}}
{{- $name := .Release.Name -}}
{{- with .Values.users }}{{ if .enabled }}
- name: users
  command: [users, serve]
  client: users/server
  replicas: {{ .replicas }}
  ports: { grpc: 8080, metrics: 9090 }
  env: { SAMPLES: "{{ .samples }}" }
- name: users-metrics
  command: [users, metrics]
  client: users/metrics
  ports: { http: 8080, metrics: 9090 }
- name: users-email
  command: [users, email]
  client: users/email
  ports: { grpc: 8080, metrics: 9090 }
  keeps: { OUTBOX: outbox.mbox }
{{- end }}{{ end }}
{{- with .Values.activity }}{{ if .enabled }}
- name: activity
  command: [activity, serve]
  client: activity/server
  replicas: {{ .replicas }}
  ports: { grpc: 8080, http: 8090, metrics: 9090 }
{{- end }}{{ end }}
{{- with .Values.calc }}{{ if .enabled }}
- name: calc-backend
  command: [calc, backend]
  client: calc/backend
  replicas: {{ .replicas }}
  ports: { grpc: 8080, metrics: 9090 }
- name: calc-log
  command: [calc, log]
  client: calc/log
  ports: { grpc: 8080, metrics: 9090 }
  keeps: { CALC_LOG: calc.jsonl }
- name: calc-prompt
  command: [calc, connect]
  client: calc/prompt
  prompt: true
{{- end }}{{ end }}
{{- with .Values.school }}{{ if .enabled }}
- name: school-courses
  command: [school, courses]
  client: school/courses
  ports: { grpc: 8080, metrics: 9090 }
  keeps: { DATABASE: courses.sqlite }
- name: school-students
  command: [school, students]
  client: school/students
  ports: { grpc: 8080, metrics: 9090 }
  env: { COURSES: "http://{{ $name }}-school-courses:8080" }
  keeps: { DATABASE: students.sqlite }
- name: school-gateway
  command: [school, gateway]
  client: school/gateway
  replicas: {{ .replicas }}
  ports: { http: 8080, metrics: 9090 }
  env:
    STUDENTS: "http://{{ $name }}-school-students:8080"
    COURSES: "http://{{ $name }}-school-courses:8080"
    API_KEYS: /etc/highwater/api-keys/api-keys
  apiKeys: true
{{- end }}{{ end }}
{{- end -}}
