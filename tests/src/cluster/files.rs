//! The configuration of a node's programs: containerd, CNI, kubelet, kube-proxy.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    cluster::image::POD_IMAGE,
    node::{ProxyMode, proxy_configuration},
};

/// Where distributions put the CNI plugins: Debian's package, upstream's archives.
const CNI_PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// What the files of one node depend on.
pub(crate) struct Settings<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: u8,
    /// The node's directory.
    pub(crate) dir: &'a Path,
    /// The lab's directory.
    pub(crate) top: &'a Path,
    pub(crate) proxy: ProxyMode,
    pub(crate) lease_seconds: u32,
}

/// Writes them all.
pub(crate) fn write(settings: &Settings<'_>) -> Result<()> {
    let dir = settings.dir;
    for made in ["cni", "containerd", "kubelet"] {
        fs::create_dir_all(dir.join(made))?;
    }
    fs::write(dir.join("containerd.toml"), containerd(dir)?)?;
    fs::write(dir.join("cni/10-lab.conflist"), cni(settings.index))?;
    fs::write(dir.join("kubelet.yaml"), kubelet(settings))?;
    let proxy = proxy_configuration(settings.name, &settings.top.join("proxy.kubeconfig"), settings.proxy);
    fs::write(dir.join("kube-proxy.yaml"), proxy)?;
    Ok(())
}

/// containerd 1.6, 1.7 and 2 all read configuration version 2.
fn containerd(dir: &Path) -> Result<String> {
    let plugins = CNI_PLUGINS.iter().find(|dir| Path::new(dir).join("bridge").is_file());
    let plugins = plugins.context(
        "no CNI plugin `bridge` in /usr/lib/cni or /opt/cni/bin: `hack/deps.sh cluster` installs containernetworking-plugins",
    )?;
    let dir = dir.display();
    // `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc may not lower it and would fail. AppArmor profiles would have
    // to be loaded into the machine's kernel, which is not the lab's to change. The disabled plugins want file systems
    // and directories of the machine.
    Ok(format!(
        r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{POD_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "runc"
  SystemdCgroup = false
"#
    ))
}

/// A bridge per node with a /24 and a /64 of the pod ranges, routed to, never masqueraded.
fn cni(index: u8) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false, "ipam": {{
    "type": "host-local", "dataDir": "/run/cni-addresses",
    "ranges": [[{{"subnet": "10.244.{index}.0/24"}}], [{{"subnet": "fd00:244:{index}::/64"}}]],
    "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}

fn kubelet(settings: &Settings<'_>) -> String {
    let authority = settings.top.join("ca.crt");
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         failCgroupV1: false\n\
         failSwapOn: false\n\
         cgroupDriver: cgroupfs\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {authority}}}}}\n\
         authorization: {{mode: Webhook}}\n\
         volumePluginDir: /var/lib/kubelet/volume-plugins\n\
         clusterDomain: cluster.local\n\
         resolvConf: ''\n\
         # The machine's memory and disk are not the lab's to judge.\n\
         imageGCHighThresholdPercent: 100\n\
         evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}\n\
         nodeLeaseDurationSeconds: {lease}\n\
         nodeStatusUpdateFrequency: 4s\n",
        authority = authority.display(),
        lease = settings.lease_seconds,
    )
}
