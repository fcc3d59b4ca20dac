//! One lab for all tests of a test binary, and a Kubernetes namespace for each test in it.
//!
//! The lab is a static: it is never dropped, and disappears with the process (`scratch.rs`).

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{Lab, Plan, programs};

/// Long enough for traffic to flow once everything is said: kube-proxy has to hear of it, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(20);

static LAB: LazyLock<Result<Lab, String>> = LazyLock::new(|| {
    let start = || {
        let lab = Plan::nodes(3).start()?;
        lab.kubectl_apply_file(&example("pool.yaml"))?;
        lab.kubectl_apply_file(&example("pool-on-request.yaml"))?;
        anyhow::Ok(lab)
    };
    start().map_err(|error| format!("{error:#}"))
});

/// Three nodes, Herald, and the pools of `examples/`.
pub fn lab() -> Result<&'static Lab> {
    LAB.as_ref().map_err(|error| anyhow::anyhow!("the shared lab did not start: {error}"))
}

/// The shared lab for one test alone: for tests that break things.
pub fn lab_alone() -> Result<(MutexGuard<'static, ()>, &'static Lab)> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it had the lab is no reason for the next not to try.
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((guard, lab()?))
}

/// The path of a file in `examples/`.
pub fn example(file: &str) -> PathBuf {
    programs::workspace().join("examples").join(file)
}

/// A namespace of one test in the shared lab. Its Services go when it is dropped, so that the next test finds the pool
/// as this one did.
#[derive(Debug)]
pub struct Case {
    lab: &'static Lab,
    namespace: String,
    /// Given back when the case is dropped, after its Services are gone.
    turn: Option<Turn>,
}

/// How many tests use the shared pool at a time. However many cores there are, the lowest addresses suffice for them, so
/// that those which examples ask for by name are free.
const TURNS: usize = 3;
static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

#[derive(Debug)]
struct Turn;

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = GIVEN_BACK.wait_while(taken, |taken| *taken >= TURNS);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}

impl Case {
    /// Makes the namespace; `name` is unique among the tests of the binary.
    pub fn new(name: &str) -> Result<Self> {
        let turn = Turn::take();
        let mut case = Self::in_lab(lab()?, name)?;
        case.turn = Some(turn);
        Ok(case)
    }

    /// Makes the namespace in a lab that the test has already.
    pub fn in_lab(lab: &'static Lab, name: &str) -> Result<Self> {
        lab.create_namespace(name)?;
        Ok(Self { lab, namespace: name.to_owned(), turn: None })
    }

    /// The lab.
    pub fn lab(&self) -> &'static Lab {
        self.lab
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// kubectl in the namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.lab.kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    /// Applies a file of `examples/`, unchanged, as a user would.
    pub fn apply_example(&self, file: &str) -> Result<String> {
        self.kubectl(&["apply", "-f", &example(file).display().to_string()])
    }

    /// Applies a Service of type LoadBalancer on port 80 (HTTP and echo) with more in its metadata and spec.
    pub fn apply_service(&self, name: &str, metadata: &str, spec: &str) -> Result<String> {
        self.lab.kubectl_apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: {}, name: {name}, {metadata}}}, spec: {{type: \
             LoadBalancer, ports: [{{name: http, port: 80}}, {{name: echo, port: 80, protocol: UDP}}], {spec}}}}}",
            self.namespace
        ))
    }

    /// Deletes a Service and waits until it is gone.
    pub fn delete_service(&self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "service", name]).map(drop)
    }

    /// The Service's EXTERNAL-IPs, once it has some.
    pub fn addresses(&self, service: &str) -> Result<Vec<IpAddr>> {
        self.lab.await_addresses(&self.namespace, service)
    }

    /// The Service's only EXTERNAL-IP, once it has it.
    pub fn address(&self, service: &str) -> Result<IpAddr> {
        let addresses = self.addresses(service)?;
        anyhow::ensure!(addresses.len() == 1, "{service} has {addresses:?}, not one address");
        addresses.first().copied().context("one address")
    }

    /// Gives the Service backends behind these nodes.
    pub fn serve(&self, service: &str, nodes: &[&str]) -> Result<()> {
        self.lab.set_endpoints(&self.namespace, service, nodes)
    }

    /// Fetches a page through the address, as soon as kube-proxy lets it.
    pub fn visit(&self, address: IpAddr) -> Result<crate::Page> {
        self.lab.client().http_get_until_ok(address, 80, PATIENCE)
    }

    /// Waits until the Service is refused for `reason`, and gives the message that says so.
    pub fn await_refusal(&self, service: &str, reason: &str) -> Result<String> {
        let refused = |service: &_| {
            crate::services::condition(service, "heraldlb.io/Allocated")
                .filter(|found| found.status == "False" && found.reason == reason)
        };
        let service =
            self.lab.await_service(&self.namespace, service, reason, |service| refused(service).is_some())?;
        Ok(refused(&service).context("a condition that was there and is not")?.message)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // A test that failed has said why; the next tests find less of the pool, and say so.
        let _ = self.kubectl(&["delete", "service", "--all"]);
    }
}
