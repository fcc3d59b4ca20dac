//! A real control plane: etcd, kube-apiserver, kube-controller-manager and, for real kubelets, kube-scheduler in the namespace of one host.

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

const AUDIT_LOG: &str = "audit.log";
/// Requests of ServiceAccounts outside kube-system, without their bodies.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ['system:serviceaccounts:kube-system']}
- {level: Metadata, userGroups: ['system:serviceaccounts']}
- {level: None}
";

/// A fixed token, its user and group: as good as any secret inside a lab that nobody outside can reach.
struct Account {
    token: &'static str,
    user: &'static str,
    group: &'static str,
}

const ADMIN: Account = Account { token: "lab-admin", user: "admin", group: "system:masters" };
const MANAGER: Account = Account { token: "lab-manager", user: "system:kube-controller-manager", group: "" };
const SCHEDULER: Account = Account { token: "lab-scheduler", user: "system:kube-scheduler", group: "" };
const PROXY: Account = Account { token: "lab-proxy", user: "system:kube-proxy", group: "" };

/// What a control plane is for, beyond what every lab needs.
#[derive(Debug, Default)]
pub(crate) struct Purpose {
    /// The nodes whose kubelets will come; with any, pods are scheduled, too.
    pub(crate) kubelets: Vec<String>,
    /// How long a node may be silent before it is NotReady; Kubernetes' default otherwise.
    pub(crate) node_grace: Option<Duration>,
    /// Whether every request of a ServiceAccount is written to `audit.log`.
    pub(crate) audit: bool,
    /// Whether the API server is to be alone, with room for tens of thousands of objects.
    pub(crate) api_only: bool,
}

/// etcd, API server, controller manager and, where kubelets run pods, the scheduler of one lab.
#[derive(Debug)]
pub struct ControlPlane {
    host: Host,
    dir: PathBuf,
    kubernetes: Kubernetes,
    etcd: Process,
    api_server: Mutex<Process>,
    /// Flags of the API server and the controller manager beyond the usual.
    api_flags: Vec<String>,
    manager_flags: Vec<String>,
    schedules: bool,
    alone: bool,
    /// Controller manager and scheduler.
    clients: Mutex<Vec<Process>>,
}

impl ControlPlane {
    /// Starts everything, without waiting for it; `dir` gets the keys, the data and the logs.
    pub(crate) fn start(host: Host, dir: &Path, kubernetes: Kubernetes, purpose: &Purpose) -> Result<Self> {
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
        for (name, Account { token, user, group }) in
            [("admin", ADMIN), ("manager", MANAGER), ("scheduler", SCHEDULER), ("proxy", PROXY)]
        {
            writeln!(tokens, "{token},{user},{user},\"{group}\"")?;
            write_kubeconfig(&dir, &address, name, token)?;
        }
        for node in &purpose.kubelets {
            writeln!(tokens, "lab-{node},system:node:{node},{node},\"system:nodes\"")?;
            write_kubeconfig(&dir, &address, node, &format!("lab-{node}"))?;
        }
        std::fs::write(dir.join("tokens.csv"), tokens)?;
        let mut api_flags = Vec::new();
        if purpose.audit {
            let policy = dir.join("audit-policy.yaml");
            std::fs::write(&policy, AUDIT_POLICY)?;
            api_flags.push(format!("--audit-policy-file={}", policy.display()));
            api_flags.push(format!("--audit-log-path={}", dir.join(AUDIT_LOG).display()));
        }
        let grace =
            purpose.node_grace.map(|grace| format!("--node-monitor-grace-period={}s", grace.as_secs()));
        let manager_flags = grace.into_iter().collect();
        let etcd = start_etcd(&host, &dir, &kubernetes)?;
        let api_server = Mutex::new(start_api_server(&host, &dir, &kubernetes, &api_flags)?);
        Ok(Self {
            host,
            dir,
            kubernetes,
            etcd,
            api_server,
            api_flags,
            manager_flags,
            schedules: !purpose.kubelets.is_empty(),
            alone: purpose.api_only,
            clients: Mutex::default(),
        })
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether there is to be nothing beside the API server.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
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

    /// Starts the controller manager and the scheduler; they want a ready API server.
    pub(crate) fn start_clients(&self) -> Result<()> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(start_manager(&self.host, &self.dir, &self.kubernetes, &self.manager_flags)?);
        if self.schedules {
            clients.push(start_scheduler(&self.host, &self.dir, &self.kubernetes)?);
        }
        Ok(())
    }

    /// What ServiceAccounts asked the API server, one JSON object a line, where the lab was told to write it down.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join(AUDIT_LOG)
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
        let started = start_api_server(&self.host, &self.dir, &self.kubernetes, &self.api_flags)?;
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
        &[],
    )
}

fn start_api_server(host: &Host, dir: &Path, kubernetes: &Kubernetes, more: &[String]) -> Result<Process> {
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
            // The API server as the kubelets' client: logs, exec, port-forward.
            &format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            &format!("--kubelet-client-key={}", file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP",
        ],
        more,
    )
}

fn start_scheduler(host: &Host, dir: &Path, kubernetes: &Kubernetes) -> Result<Process> {
    let kubeconfig = format!("--kubeconfig={}", dir.join("scheduler.kubeconfig").display());
    start(host, dir, kubernetes, Program::Scheduler, &[&kubeconfig, "--leader-elect=false"], &[])
}

fn start_manager(host: &Host, dir: &Path, kubernetes: &Kubernetes, more: &[String]) -> Result<Process> {
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
        more,
    )
}

fn start(
    host: &Host,
    dir: &Path,
    kubernetes: &Kubernetes,
    program: Program,
    args: &[&str],
    more: &[String],
) -> Result<Process> {
    let (binary, first) = kubernetes.program(program);
    let more = more.iter().map(String::as_str);
    let args = first.iter().map(String::as_str).chain(args.iter().copied()).chain(more);
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
