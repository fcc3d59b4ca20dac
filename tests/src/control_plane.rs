//! A real control plane: etcd, kube-apiserver and kube-controller-manager in the namespace of one host.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    lan::Host,
    pki,
    process::Process,
    programs::{Kubernetes, Program},
    progress::Progress,
};

/// Services get their ClusterIPs from here.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Pods get theirs from here; a node has a /24 and a /64 of it.
pub(crate) const POD_RANGES: &str = "10.244.0.0/16,fd00:244::/32";
/// The server's own name in the first service range.
const KUBERNETES_SERVICE: &str = "10.96.0.1";

/// A fixed token, its user and group: as good as any secret inside a lab that nobody outside can reach.
struct Account {
    token: &'static str,
    user: &'static str,
    group: &'static str,
}

const ADMIN: Account = Account { token: "lab-admin", user: "admin", group: "system:masters" };
const MANAGER: Account = Account { token: "lab-manager", user: "system:kube-controller-manager", group: "" };
const PROXY: Account = Account { token: "lab-proxy", user: "system:kube-proxy", group: "" };

/// etcd, API server and controller manager of one lab.
#[derive(Debug)]
pub struct ControlPlane {
    host: Host,
    dir: PathBuf,
    kubernetes: Kubernetes,
    etcd: Process,
    api_server: Mutex<Process>,
    manager: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts everything, without waiting for it; `dir` gets the keys, the data and the logs.
    pub(crate) fn start(host: Host, dir: &Path, kubernetes: Kubernetes) -> Result<Self> {
        let dir = dir.to_owned();
        let address = host.v4.to_string();
        pki::write(
            &dir,
            &[
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "localhost",
                &address,
                KUBERNETES_SERVICE,
                "127.0.0.1",
            ],
        )?;
        let mut tokens = String::new();
        for account in [ADMIN, MANAGER, PROXY] {
            writeln!(tokens, "{},{},{},\"{}\"", account.token, account.user, account.user, account.group)?;
        }
        std::fs::write(dir.join("tokens.csv"), tokens)?;
        for (name, account) in [("admin", &ADMIN), ("manager", &MANAGER), ("proxy", &PROXY)] {
            write_kubeconfig(&dir, &address, name, account.token)?;
        }
        let etcd = start_etcd(&host, &dir, &kubernetes)?;
        let api_server = Mutex::new(start_api_server(&host, &dir, &kubernetes)?);
        Ok(Self { host, dir, kubernetes, etcd, api_server, manager: Mutex::default() })
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The administrator's kubeconfig, valid inside the lab's namespaces.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("admin")
    }

    pub(crate) fn proxy_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("proxy")
    }

    /// Writes a kubeconfig for somebody with a token and gives its path.
    pub(crate) fn add_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        write_kubeconfig(&self.dir, &self.host.v4.to_string(), name, token)
    }

    /// A client with all rights. Its connections must be made by threads inside the host's namespace.
    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.admin_kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Waits until the API server says it is ready, or says why it never will be.
    pub(crate) async fn wait_ready(&self, client: &Client, progress: &Progress) -> Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for round in 0_u32.. {
            tick.tick().await;
            let request = http_get("/readyz")?;
            let attempt = tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await;
            if matches!(attempt, Ok(Ok(_))) {
                break;
            }
            self.check_alive()?;
            if round > 0 && round % 200 == 0 {
                progress.say("still waiting for the API server");
            }
        }
        Ok(())
    }

    /// Starts the controller manager; it wants a ready API server.
    pub(crate) fn start_manager(&self) -> Result<()> {
        let manager = start_manager(&self.host, &self.dir, &self.kubernetes)?;
        *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = Some(manager);
        Ok(())
    }

    /// Freezes the API server: connections stay open, nothing is answered.
    pub fn pause_api(&self) -> Result<()> {
        self.with_api_server(Process::pause)
    }

    /// Lets a frozen API server go on.
    pub fn resume_api(&self) -> Result<()> {
        self.with_api_server(Process::resume)
    }

    /// Kills the API server.
    pub fn kill_api(&self) -> Result<()> {
        self.with_api_server(Process::kill)
    }

    /// Starts it again after [`Self::kill_api`].
    pub(crate) fn restart_api(&self) -> Result<()> {
        let started = start_api_server(&self.host, &self.dir, &self.kubernetes)?;
        *self.api_server.lock().unwrap_or_else(PoisonError::into_inner) = started;
        Ok(())
    }

    fn with_api_server<T>(&self, act: impl FnOnce(&Process) -> T) -> T {
        act(&self.api_server.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check_alive(&self) -> Result<()> {
        let dead = |process: &Process| {
            process.exited().map(|status| status.map(|code| (code, process.last_words())))
        };
        if let Some((status, words)) = dead(&self.etcd)? {
            bail!("etcd ended ({status}):\n{words}");
        }
        if let Some((status, words)) = self.with_api_server(dead)? {
            bail!("kube-apiserver ended ({status}):\n{words}");
        }
        Ok(())
    }

    pub(crate) fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).context("a request for a fixed path")
}

fn start_etcd(host: &Host, dir: &Path, kubernetes: &Kubernetes) -> Result<Process> {
    let data = format!("--data-dir={}", dir.join("etcd").display());
    start(
        host,
        dir,
        kubernetes,
        Program::Etcd,
        &[
            &data,
            // The data lives in memory and dies with the lab.
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=error",
        ],
    )
}

fn start_api_server(host: &Host, dir: &Path, kubernetes: &Kubernetes) -> Result<Process> {
    let file = |name: &str| dir.join(name).display().to_string();
    start(
        host,
        dir,
        kubernetes,
        Program::ApiServer,
        &[
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--bind-address={}", host.v4),
            &format!("--advertise-address={}", host.v4),
            "--secure-port=6443",
            &format!("--tls-cert-file={}", file("apiserver.crt")),
            &format!("--tls-private-key-file={}", file("apiserver.key")),
            &format!("--cert-dir={}", dir.display()),
            &format!("--service-account-key-file={}", file("sa.pub")),
            &format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            &format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            "--allow-privileged=true",
            // Restarts under test should not wait a minute for open watches.
            "--shutdown-delay-duration=0s",
        ],
    )
}

fn start_manager(host: &Host, dir: &Path, kubernetes: &Kubernetes) -> Result<Process> {
    start(
        host,
        dir,
        kubernetes,
        Program::ControllerManager,
        &[
            &format!("--kubeconfig={}", dir.join("manager.kubeconfig").display()),
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            &format!("--service-account-private-key-file={}", dir.join("sa.key").display()),
            &format!("--root-ca-file={}", dir.join("ca.crt").display()),
            &format!("--cluster-cidr={POD_RANGES}"),
            "--allocate-node-cidrs=false",
            "--controllers=*,-cloud-node-lifecycle-controller",
        ],
    )
}

fn start(
    host: &Host,
    dir: &Path,
    kubernetes: &Kubernetes,
    program: Program,
    args: &[&str],
) -> Result<Process> {
    let (binary, first) = kubernetes.program(program);
    let args = first.iter().map(String::as_str).chain(args.iter().copied());
    Process::start(&host.netns, program.name(), &binary, args, &dir.join(format!("{}.log", program.name())))
}

fn write_kubeconfig(dir: &Path, address: &str, name: &str, token: &str) -> Result<PathBuf> {
    let file = dir.join(format!("{name}.kubeconfig"));
    let authority = dir.join("ca.crt");
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: lab, cluster: {{server: 'https://{address}:6443', certificate-authority: {}}}}}]\n\
         users: [{{name: {name}, user: {{token: {token}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: {name}}}}}]\n\
         current-context: lab\n",
        authority.display()
    );
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
