{{/*
Addresses of both families, enough to compare pools with the nodes' own. What a pool means is the controller's to say; this
is only for a warning, or a refusal of what can't be meant, before anything is installed.

An address is text here, 8 or 32 hexadecimal digits: templates count in 64 bits, and such texts sort as the addresses do.
*/}}

{{/* An address as digits; nothing where it is none. */}}
{{- define "herald.address" -}}
{{- if contains ":" . }}{{ include "herald.ipv6" (lower .) }}{{ else }}{{ include "herald.ipv4" . }}{{ end }}
{{- end }}

{{- define "herald.ipv4" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" }}
{{- if regexMatch (printf "^(%s\\.){3}%s$" $octet $octet) . }}
{{- range splitList "." . }}{{ printf "%02x" (int64 .) }}{{ end }}
{{- end }}
{{- end }}

{{- define "herald.ipv6" -}}
{{- $text := . }}
{{- if contains "." $text }}
{{- /* Its last four octets written as IPv4. */}}
{{- $last := include "herald.ipv4" (regexFind "[0-9.]*$" $text) | default "gggggggg" }}
{{- $text = printf "%s%s:%s" (regexReplaceAll "[0-9.]*$" $text "") (substr 0 4 $last) (substr 4 8 $last) }}
{{- end }}
{{- $halves := splitList "::" $text }}
{{- $groups := list }}
{{- range $i, $half := $halves }}
{{- if $i }}
{{- $missing := sub (sub 8 (len $groups)) (len (without (splitList ":" $half) "")) | int }}
{{- range until (max 0 $missing | int) }}{{ $groups = append $groups "0" }}{{ end }}
{{- end }}
{{- if $half }}{{ $groups = concat $groups (splitList ":" $half) }}{{ end }}
{{- end }}
{{- $digits := "" }}
{{- range $groups }}
{{- if regexMatch "^[0-9a-f]{1,4}$" . }}{{ $digits = printf "%s%s" $digits (printf "000%s" . | trunc -4) }}{{ end }}
{{- end }}
{{- if and (le (len $halves) 2) (eq (len $groups) 8) (eq (len $digits) 32) }}{{ $digits }}{{ end }}
{{- end }}

{{/* A pool's entry as "LOWEST HIGHEST"; nothing where it is none. */}}
{{- define "herald.range" -}}
{{- $entry := . | toString | nospace }}
{{- if contains "/" $entry }}
  {{- $parts := splitList "/" $entry }}
  {{- $address := include "herald.address" (first $parts) }}
  {{- $length := last $parts }}
  {{- if and $address (eq (len $parts) 2) (regexMatch "^(0|[1-9][0-9]{0,2})$" $length) (le (int $length) (mul 4 (len $address) | int)) }}
    {{- $whole := substr 0 (div (int $length) 4 | int) $address }}
    {{- $low := $whole }}
    {{- $high := $whole }}
    {{- with mod (int $length) 4 | int }}
    {{- /* A digit that is within the prefix in part only. */}}
    {{- $step := get (dict "1" 8 "2" 4 "3" 2) (toString .) }}
    {{- $digit := printf "0x%s" (substr (len $whole) (add (len $whole) 1 | int) $address) | int64 }}
    {{- $first := mul (div $digit $step) $step }}
    {{- $low = printf "%s%x" $whole $first }}
    {{- $high = printf "%s%x" $whole (sub (add $first $step) 1) }}
    {{- end }}
    {{- $rest := sub (len $address) (len $low) | int }}
    {{- printf "%s%s %s%s" $low (repeat $rest "0") $high (repeat $rest "f") }}
  {{- end }}
{{- else if contains "-" $entry }}
  {{- $parts := splitList "-" $entry }}
  {{- $low := include "herald.address" (first $parts) }}
  {{- $high := include "herald.address" (last $parts) }}
  {{- if and $low (eq (len $parts) 2) (eq (len $low) (len $high)) }}{{ printf "%s %s" $low $high }}{{ end }}
{{- else }}
  {{- with include "herald.address" $entry }}{{ printf "%s %s" . . }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether an entry can be an address, a CIDR or a range: "true" or nothing. */}}
{{- define "herald.isEntry" -}}
{{- with include "herald.range" . }}
{{- $bounds := splitList " " . }}
{{- if le (first $bounds) (last $bounds) }}true{{ end }}
{{- end }}
{{- end }}

{{/*
Nodes' own addresses that lie in a pool of the values: one line each. Asks the cluster; nothing without one. Each address
and each entry is read once: a cluster may have thousands of nodes.
*/}}
{{- define "herald.nodesInPools" -}}
{{- $own := list }}
{{- range $node := (lookup "v1" "Node" "" "").items }}
{{- range $address := dig "status" "addresses" list $node }}
{{- if has $address.type (list "InternalIP" "ExternalIP") }}
{{- with include "herald.address" ($address.address | toString) }}
{{- $own = append $own (list . $address.address $node.metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $pool := .Values.pools }}
{{- $excluded := list }}
{{- range $pool.excluded }}
{{- with include "herald.range" . }}{{ $excluded = append $excluded (splitList " " .) }}{{ end }}
{{- end }}
{{- range $entry := $pool.addresses }}
{{- with include "herald.range" $entry }}
{{- $low := first (splitList " " .) }}
{{- $high := last (splitList " " .) }}
{{- range $node := $own }}
{{- $address := first $node }}
{{- if and (eq (len $address) (len $low)) (le $low $address) (ge $high $address) }}
{{- $out := false }}
{{- range $excluded }}
{{- if and (eq (len $address) (len (first .))) (le (first .) $address) (ge (last .) $address) }}{{ $out = true }}{{ end }}
{{- end }}
{{- if not $out }}
  {{ index $node 1 }} of node {{ index $node 2 }} lies in {{ $entry }} of pool {{ include "herald.objectName" $pool }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
