# Process 1 of a node of the full cluster, in new mount, PID, UTS, cgroup and IPC namespaces and the node's network
# namespace. Everything it mounts and starts is gone with it.
#   $NODE the node's name, $DIR its directory, $TOP the lab's, $HIERARCHIES the cgroup v1 hierarchies (none: v2)
set -eu

hostname "$NODE"
mount --make-rshared /
# The one of this network namespace.
mount -t sysfs sysfs /sys
if [ -n "$HIERARCHIES" ]; then
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for hierarchy in $HIERARCHIES; do
        mkdir "/sys/fs/cgroup/${hierarchy#name=}"
        case $hierarchy in name=*) options=none,$hierarchy ;; *) options=$hierarchy ;; esac
        mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${hierarchy#name=}"
        # Where a hierarchy has several controllers, each is looked for under its own name.
        case $hierarchy in *,*)
            for controller in $(echo "$hierarchy" | tr , ' '); do
                ln -s "$hierarchy" "/sys/fs/cgroup/$controller"
            done ;;
        esac
    done
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A cgroup with processes can't hand its controllers down.
    mkdir -p /sys/fs/cgroup/init
    while read -r process; do echo "$process" >/sys/fs/cgroup/init/cgroup.procs || :; done </sys/fs/cgroup/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
fi
# /var is the machine's to read and the node's to write; /run and /tmp are the node's own.
mkdir -p "$DIR/var" "$DIR/var-work" "$DIR/tmp"
mount -t overlay -o "lowerdir=/var,upperdir=$DIR/var,workdir=$DIR/var-work" overlay /var
export TMPDIR="$DIR/tmp"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/containerd /run/netns /run/lock /var/lib/kubelet /var/log/pods /var/log/containers
mount --bind "$DIR/kubelet" /var/lib/kubelet

# A node that loses its power later must not find the socket of an earlier life: /run is new each time.
containerd -c "$DIR/containerd.toml" >>"$DIR/containerd.log" 2>&1 &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.02; done
"$TOP/bin/kube-proxy" --config="$DIR/kube-proxy.yaml" >>"$DIR/kube-proxy.log" 2>&1 &
# Started again when it ends, as a service manager does: it ends at once if a mount that it has just seen is gone, and
# containerd mounts and unmounts while images come in.
while :; do
    "$TOP/bin/kubelet" --config="$DIR/kubelet.yaml" --kubeconfig="$TOP/$NODE.kubeconfig" --hostname-override="$NODE" \
        --node-ip="$ADDRESSES" --root-dir=/var/lib/kubelet --cert-dir=/var/lib/kubelet/pki \
        >>"$DIR/kubelet.log" 2>&1 || :
    sleep 1
done &
# Reaps orphans for as long as any of the three runs.
wait
