{{/* What the schema can't see: values that contradict each other or the cluster. Each refusal says what to do. */}}
{{- define "herald.checks" -}}
{{- include "herald.checkObjects" (list "pools" .Values.pools) }}
{{- include "herald.checkObjects" (list "l2Advertisements" .Values.l2Advertisements) }}
{{- range $i, $pool := .Values.pools }}
{{- range $j, $entry := $pool.addresses }}
{{- if not (include "herald.isEntry" $entry) }}
{{- fail (printf "pools[%d].addresses[%d]: %q is neither an address, nor a CIDR, nor a range START-END with START first. For example: 192.168.1.240-192.168.1.250, 192.168.1.240/28, fd00::f0/124" $i $j $entry) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true: everything would be scraped twice. Choose one." }}
{{- end }}
{{- if and (or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled) (ne .Values.speaker.adminListen "NodeIP") }}
{{- fail "Prometheus can't reach the speakers' metrics on loopback: with metrics.podMonitor.enabled or metrics.serviceMonitor.enabled, set speaker.adminListen to NodeIP as well." }}
{{- end }}
{{- if eq (int .Values.controller.adminPort) (int .Values.speaker.adminPort) }}
{{- fail (printf "controller.adminPort and speaker.adminPort are both %d: choose two." (int .Values.speaker.adminPort)) }}
{{- end }}
{{- range $component := list "controller" "speaker" }}
{{- if and $.Values.image.tag (index $.Values $component).image.digest }}
{{- fail (printf "image.tag is %q, and %s.image.digest is set, for which the tag would mean nothing. To run the tag, clear the digests: --set controller.image.digest=,speaker.image.digest=" $.Values.image.tag $component) }}
{{- end }}
{{- end }}
{{- include "herald.checkOnlyOne" . }}
{{- include "herald.checkPodSecurity" . }}
{{- end }}

{{/* No two entries of a list with one name. Takes a list of the value's name and the entries. */}}
{{- define "herald.checkObjects" -}}
{{- $seen := dict }}
{{- range $i, $entry := index . 1 }}
{{- $name := include "herald.objectName" $entry }}
{{- if hasKey $seen $name }}
{{- fail (printf "%s[%d] is called %q, as %s[%d] is: give each a `name` of its own." (index $ 0) $i $name (index $ 0) (get $seen $name)) }}
{{- end }}
{{- $_ := set $seen $name $i }}
{{- end }}
{{- end }}

{{/* A second release would announce the same addresses from the same nodes. */}}
{{- define "herald.checkOnlyOne" -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "herald") (eq (get $labels "app.kubernetes.io/component") "speaker") }}
{{- $release := dig "annotations" "meta.helm.sh/release-name" "" .metadata }}
{{- $namespace := dig "annotations" "meta.helm.sh/release-namespace" "" .metadata }}
{{- if and $release (or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace)) }}
{{- fail (printf "Herald is installed in this cluster already, as release %q in namespace %q. A cluster has room for one: it serves every namespace. Upgrade that one (helm upgrade %s --namespace %s ...), or uninstall it first: no Service loses its address by that." $release $namespace $release $namespace) }}
{{- end }}
{{- if not $release }}
{{- fail (printf "Herald is installed in this cluster already, from plain manifests (ClusterRole %s is not Helm's). Remove those first, and keep the CRDs, the namespace and its Secret herald-hello: docs/install says how." .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A namespace that refuses the speaker's pods shows nothing but a DaemonSet without pods. */}}
{{- define "herald.checkPodSecurity" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $enforced := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" $namespace }}
{{- if and $enforced (ne $enforced "privileged") }}
{{- fail (printf "namespace %s enforces the Pod Security level %q, which refuses the speaker's pods: they use the node's network. Allow it: kubectl label namespace %s pod-security.kubernetes.io/enforce=privileged --overwrite" .Release.Namespace $enforced .Release.Namespace) }}
{{- end }}
{{- end }}
