{{/* The chart's name. */}}
{{- define "herald.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What names of objects begin with: the release's name, with the chart's unless it holds it. */}}
{{- define "herald.fullname" -}}
{{- $name := include "herald.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What pods are selected by: never changes. Takes a list of the root and the component. */}}
{{- define "herald.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "herald.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of every object. Takes a list of the root and the component. */}}
{{- define "herald.labels" -}}
{{- $root := index . 0 -}}
{{ include "herald.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: herald
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image. Takes a list of the root and the component's `image`. */}}
{{- define "herald.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The Secret with the hello key: the controller's own, or the user's. */}}
{{- define "herald.helloSecret" -}}
{{- .Values.helloKey.existingSecret | default "herald-hello" }}
{{- end }}

{{/* A pool's or an advertisement's name: one of each kind may go without. */}}
{{- define "herald.objectName" -}}
{{- .name | default "default" }}
{{- end }}

{{/* One IPAddressPool or L2Advertisement. Takes a list of the root, the kind and the entry in values. */}}
{{- define "herald.object" -}}
{{- $root := index . 0 }}
{{- $entry := index . 2 -}}
apiVersion: heraldlb.io/v1beta1
kind: {{ index . 1 }}
metadata:
  name: {{ include "herald.objectName" $entry | quote }}
  labels:
    {{- merge (include "herald.labels" (list $root "config") | fromYaml) ($entry.labels | default dict) | toYaml | nindent 4 }}
  {{- with $entry.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- omit $entry "name" "labels" "annotations" | toYaml | nindent 2 }}
{{- end }}

{{/* The security context of every container: `restricted` Pod Security but for the capabilities a caller adds. */}}
{{- define "herald.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
