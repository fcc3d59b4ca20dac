{{/*
IPv4 arithmetic, enough to compare pools with the nodes' own addresses. What a pool means is the controller's to say;
this is only for a warning, or a refusal of what can't be meant, before anything is installed.
*/}}

{{/* An IPv4 address as a number; nothing where it is none. */}}
{{- define "herald.ipv4" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" }}
{{- if regexMatch (printf "^(%s\\.){3}%s$" $octet $octet) . }}
{{- $sum := 0 }}
{{- range splitList "." . }}
{{- $sum = add (mul $sum 256) (int64 .) }}
{{- end }}
{{- $sum }}
{{- end }}
{{- end }}

{{/* A pool's entry as "LOWEST HIGHEST"; nothing where it is no IPv4 entry. */}}
{{- define "herald.ipv4Range" -}}
{{- $entry := . | toString | nospace }}
{{- if contains "/" $entry }}
  {{- $parts := splitList "/" $entry }}
  {{- $low := include "herald.ipv4" (first $parts) }}
  {{- if and $low (regexMatch "^([0-9]|[12][0-9]|3[0-2])$" (last $parts)) }}
    {{- $size := 1 }}
    {{- range until (sub 32 (int64 (last $parts)) | int) }}{{ $size = mul $size 2 }}{{ end }}
    {{- $start := mul (div (int64 $low) $size) $size }}
    {{- printf "%d %d" $start (sub (add $start $size) 1) }}
  {{- end }}
{{- else if contains "-" $entry }}
  {{- $parts := splitList "-" $entry }}
  {{- $low := include "herald.ipv4" (first $parts) }}
  {{- $high := include "herald.ipv4" (last $parts) }}
  {{- if and $low $high }}{{ printf "%s %s" $low $high }}{{ end }}
{{- else }}
  {{- with include "herald.ipv4" $entry }}{{ printf "%s %s" . . }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether an entry can be an address, a CIDR or a range of either family: "true" or nothing. */}}
{{- define "herald.isEntry" -}}
{{- $entry := . | toString | nospace }}
{{- if contains ":" $entry }}
  {{- if regexMatch "^[0-9a-fA-F:.]+(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])|-[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)?$" $entry }}true{{ end }}
{{- else if include "herald.ipv4Range" $entry }}
  {{- $bounds := include "herald.ipv4Range" $entry | splitList " " }}
  {{- if le (int64 (first $bounds)) (int64 (last $bounds)) }}true{{ end }}
{{- end }}
{{- end }}

{{/* Whether an IPv4 address, as a number, lies in one of some entries: "true" or nothing. Takes a list of both. */}}
{{- define "herald.ipv4In" -}}
{{- $address := int64 (index . 0) }}
{{- $found := false }}
{{- range index . 1 }}
{{- with include "herald.ipv4Range" . }}
{{- $bounds := splitList " " . }}
{{- if and (le (int64 (first $bounds)) $address) (ge (int64 (last $bounds)) $address) }}{{ $found = true }}{{ end }}
{{- end }}
{{- end }}
{{- if $found }}true{{ end }}
{{- end }}

{{/*
Nodes whose own IPv4 addresses a pool of the values could give out: one line each. Asks the cluster; nothing without one.
IPv6 is not looked at: templates count in 64 bits.
*/}}
{{- define "herald.nodesInPools" -}}
{{- $nodes := (lookup "v1" "Node" "" "").items }}
{{- range $pool := .Values.pools }}
{{- range $entry := $pool.addresses }}
{{- range $node := $nodes }}
{{- range $address := dig "status" "addresses" list $node }}
{{- with include "herald.ipv4" ($address.address | toString) }}
{{- if and (include "herald.ipv4In" (list . (list $entry))) (not (include "herald.ipv4In" (list . ($pool.excluded | default list)))) }}
  {{ $address.address }} of node {{ $node.metadata.name }} lies in {{ $entry }} of pool {{ include "herald.objectName" $pool }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
