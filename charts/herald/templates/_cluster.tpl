{{/*
What can be seen in the cluster that will keep Herald from working, or make it fight somebody. Each prints one warning
or nothing. `lookup` finds nothing in `helm template`, so nothing is printed there.
*/}}

{{/*
The command that changes one value. Without its last flag helm forgets all values of the install, the pools among them;
with --reuse-values it would lack the defaults of a newer chart's values.
*/}}
{{- define "herald.upgrade" -}}
helm upgrade {{ .Release.Name }} CHART --namespace {{ .Release.Namespace }} --reset-then-reuse-values
{{- end }}

{{/* k3s' own load balancer serves the same Services. */}}
{{- define "herald.warnServicelb" -}}
{{- if not .Values.loadBalancerClass }}
{{- $servers := list }}
{{- range (lookup "v1" "Node" "" "").items }}
{{- $args := dig "annotations" "k3s.io/node-args" "" .metadata }}
{{- if and (hasPrefix "[\"server\"" $args) (not (regexMatch "\"--disable(=|\",\")[^\"]*servicelb" $args)) }}
{{- $servers = append $servers .metadata.name }}
{{- end }}
{{- end }}
{{- $pods := list }}
{{- range (lookup "apps/v1" "DaemonSet" "kube-system" "").items }}
{{- if hasPrefix "svclb-" .metadata.name }}
{{- $pods = append $pods .metadata.name }}
{{- end }}
{{- end }}
{{- if or $servers $pods }}
k3s' own load balancer (servicelb) is on{{ with $servers }}, on {{ join ", " . }}{{ end }}{{ with $pods }}, with the DaemonSets {{ join ", " . }} in kube-system{{ end }}.
It writes the nodes' addresses into the same Services. Switch it off on every server:
    sudo mkdir -p /etc/rancher/k3s/config.yaml.d
    echo "disable+: [servicelb]" | sudo tee /etc/rancher/k3s/config.yaml.d/herald.yaml && sudo systemctl restart k3s
or let Herald serve one class only:
    {{ include "herald.upgrade" . }} --set loadBalancerClass=heraldlb.io/l2
Services that servicelb has written to say so in their condition heraldlb.io/Allocated (reason AdoptionRefused, or
AnotherController where Herald had given an address before).
{{- end }}
{{- end }}
{{- end }}

{{/* MetalLB serves the same Services. */}}
{{- define "herald.warnMetallb" -}}
{{- if and (not .Values.loadBalancerClass) (.Capabilities.APIVersions.Has "metallb.io/v1beta1/IPAddressPool") }}
{{- $controllers := list }}
{{- range (lookup "apps/v1" "Deployment" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (or (eq (get $labels "app") "metallb") (eq (get $labels "app.kubernetes.io/name") "metallb")) (gt (int .spec.replicas) 0) }}
{{- if not (contains "--lb-class" (toJson .spec.template.spec.containers)) }}
{{- $controllers = append $controllers (printf "%s/%s" .metadata.namespace .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $controllers }}
MetalLB ({{ join ", " $controllers }}) serves the Services without a loadBalancerClass, and so does Herald. Which of them
gives a new Service its address is a matter of chance. What one has written, the other leaves alone: such Services say so
in their condition heraldlb.io/Allocated (reason AdoptionRefused or AnotherController). Never give both the same addresses.
To try Herald beside MetalLB, let it serve one class only:
    {{ include "herald.upgrade" . }} --set loadBalancerClass=heraldlb.io/l2
{{- end }}
{{- end }}
{{- end }}

{{/* kube-proxy in IPVS mode makes every node's kernel answer ARP. */}}
{{- define "herald.warnStrictArp" -}}
{{- $config := dig "data" "config.conf" "" (lookup "v1" "ConfigMap" "kube-system" "kube-proxy") }}
{{- if and (regexMatch "(?m)^mode: *\"?ipvs\"? *$" $config) (not (regexMatch "(?m)^ *strictARP: *true *$" $config)) }}
kube-proxy is in IPVS mode without strictARP: every node's kernel answers ARP for every address, so clients reach a
node at random and failover does not work. Set ipvs.strictARP: true in the ConfigMap kube-system/kube-proxy, then
    kubectl -n kube-system rollout restart daemonset/kube-proxy
{{- end }}
{{- end }}

{{/* No node for a speaker, or none that may announce. */}}
{{- define "herald.warnNodes" -}}
{{- $nodes := (lookup "v1" "Node" "" "").items }}
{{- $selected := list }}
{{- $excluded := list }}
{{- range $node := $nodes }}
{{- $labels := $node.metadata.labels | default dict }}
{{- $matches := true }}
{{- range $key, $value := $.Values.speaker.nodeSelector }}
{{- if ne (get $labels $key) $value }}{{ $matches = false }}{{ end }}
{{- end }}
{{- if $matches }}
{{- $selected = append $selected $node.metadata.name }}
{{- if hasKey $labels "node.kubernetes.io/exclude-from-external-load-balancers" }}
{{- $excluded = append $excluded $node.metadata.name }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $nodes (not $selected) }}
No node has the labels of speaker.nodeSelector ({{ toJson .Values.speaker.nodeSelector }}): no speaker runs, and nobody
answers for an address.
{{- else if and $selected (eq (len $selected) (len $excluded)) }}
Every node that runs a speaker ({{ join ", " $excluded }}) has the label
node.kubernetes.io/exclude-from-external-load-balancers, which kubeadm puts on control planes. Herald ignores it then;
take it away where it is not meant:
    kubectl label node {{ join " " $excluded }} node.kubernetes.io/exclude-from-external-load-balancers-
{{- end }}
{{- end }}

{{/*
Pods of the speaker that Pod Security may refuse. Whether a cluster enforces it where the namespace says nothing can't be
seen, so this is no warning; after the first install it has shown. Of a namespace that helm is about to create nothing is
there yet. kube-system is everywhere: without it there is no cluster to ask.
*/}}
{{- define "herald.hintPodSecurity" -}}
{{- if and .Release.IsInstall (lookup "v1" "Namespace" "" "kube-system") }}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- if not (dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" $namespace) }}
The speaker uses the node's network. A cluster that enforces Pod Security everywhere (Talos does) lets none of its pods
start, and its DaemonSet stays empty, until the namespace allows it:
    kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
{{- end }}
{{- end }}
{{- end }}

{{/*
What an upgrade is about to delete, because the values do not name it: one line each. Helm forgets the values of the install
unless it is told not to.
*/}}
{{- define "herald.removedObjects" -}}
{{- if and .Release.IsUpgrade (.Capabilities.APIVersions.Has "heraldlb.io/v1beta1/IPAddressPool") }}
{{- range $kind, $entries := dict "IPAddressPool" .Values.pools "L2Advertisement" .Values.l2Advertisements }}
{{- $named := list }}
{{- range $entries }}{{ $named = append $named (include "herald.objectName" .) }}{{ end }}
{{- range (lookup "heraldlb.io/v1beta1" $kind "" "").items }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $release := get $annotations "meta.helm.sh/release-name" }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- if and (eq $release $.Release.Name) (eq $namespace $.Release.Namespace) (not (has .metadata.name $named)) }}
  {{ $kind }} {{ .metadata.name }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Pools of the install are gone when an upgrade does not name them. */}}
{{- define "herald.warnRemoved" -}}
{{- with include "herald.removedObjects" . | trim }}
The values of this upgrade do not name what an earlier one had made, so it is deleted:
  {{ . }}
Services keep the addresses that they have; new ones get none of a pool that is gone. If that is not what you want: helm
forgets the values of the install unless it is told to reuse them. Go back, and upgrade this way:
    helm rollback {{ $.Release.Name }} --namespace {{ $.Release.Namespace }}
    {{ include "herald.upgrade" $ }} ...
{{- end }}
{{- end }}

{{/* Addresses that clients and nodes would fight for. */}}
{{- define "herald.warnOverlap" -}}
{{- with include "herald.nodesInPools" . | trim }}
Pools contain addresses that nodes have themselves. Within a range no Service gets one of them; one that stands as an entry
of its own is given, and the Service takes its ports from that node. Take them out (a pool's `excluded`, or another range).
  {{ . }}
{{- end }}
{{- end }}
