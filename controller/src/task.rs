//! The one task that owns all state: events in, jobs out, results back in.
//!
//! What must always hold: jobs are carried out only while this process leads; who leads no longer drops what it had in
//! mind.

use std::{collections::VecDeque, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use herald_runtime::lease::Leadership;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, Event, Now},
    job::{Done, Job},
    metrics::Metrics,
    watch::{EndpointsWatch, Newest, Present},
    writer::{Events, Writer},
};

/// Jobs under way at once: the API server's own fairness does the rest.
const PARALLEL: usize = 32;
/// How long jobs under way may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the core may take to say what it holds.
const STATE: Duration = Duration::from_secs(5);

/// Somebody asks what the core holds, and waits here for it.
pub type StateAsked = oneshot::Sender<Vec<u8>>;

/// What the core holds, as JSON; `None` when it does not answer in time.
pub fn state(ask: mpsc::Sender<StateAsked>) -> BoxFuture<'static, Option<Vec<u8>>> {
    Box::pin(async move {
        let (reply, answer) = oneshot::channel();
        timeout(STATE, async {
            ask.send(reply).await.ok()?;
            answer.await.ok()
        })
        .await
        .ok()?
    })
}

/// The task, put together.
#[derive(Debug)]
pub struct Task {
    /// What decides.
    pub core: Core,
    /// What the watches tell.
    pub events: mpsc::Receiver<Event>,
    /// The watch that is started once the core needs it.
    pub endpoints: EndpointsWatch,
    /// Who asks what the core holds.
    pub asked: mpsc::Receiver<StateAsked>,
    /// What carries jobs out.
    pub writer: Writer,
    /// Where events for people go.
    pub told: Events,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Reads what there is when it begins to lead.
    pub newest: Newest,
    /// The queue's depth goes here.
    pub metrics: Metrics,
}

/// Where this process is on its way to lead.
enum Role {
    Standby,
    /// It leads, but the first list of LoadBalancerIPs has not come, beside which another would be a second copy of all.
    Waits,
    /// It leads, but does not yet know what the former leader wrote last: its own watches may lag, and its revisions must
    /// exceed those (rule B18).
    Begins(BoxFuture<'static, Present>),
    Leads,
}

impl Task {
    /// Runs until `stop`, and then until what is under way has ended. Says whether it has: what has not may be written yet.
    pub async fn run(mut self, stop: CancellationToken) -> bool {
        let mut jobs = Jobs::default();
        let mut role = Role::Standby;
        let mut endpoints = Some(self.endpoints);
        let mut watching = JoinSet::new();
        loop {
            while let Some(job) = self.core.poll_job() {
                match job {
                    Job::Event(event) => self.told.tell(event, Timestamp::now()),
                    job => jobs.push(job),
                }
            }
            jobs.start(&self.writer);
            if matches!(role, Role::Waits)
                && let Some(known) = self.core.versions()
            {
                role = Role::Begins(self.newest.clone().read(known).boxed());
            }
            if self.core.needs_endpoints()
                && let Some(endpoints) = endpoints.take()
            {
                watching.spawn(endpoints.run());
            }
            self.metrics.queue(jobs.len());
            let timer = self.core.poll_timeout();
            tokio::select! {
                // Results first: they free what others wait for.
                biased;
                () = stop.cancelled() => break,
                Ok(()) = self.leadership.changed() => {
                    let leads = matches!(*self.leadership.borrow_and_update(), Leadership::Leading { .. });
                    match (leads, &role) {
                        (true, Role::Standby) => role = Role::Waits,
                        (true, _) | (false, Role::Standby) => {}
                        (false, _) => {
                            // Requests under way are conditional, and end before anybody else may write.
                            jobs.abandon().await;
                            self.newest.forget();
                            role = Role::Standby;
                            self.core.handle(now(), Event::StandsBy);
                        }
                    }
                }
                present = begun(&mut role) => {
                    role = Role::Leads;
                    self.core.handle(now(), Event::Present(present));
                    self.core.handle(now(), Event::Leads);
                }
                Some(ended) = jobs.running.join_next() => finish(&mut self.core, ended),
                Some(event) = self.events.recv() => self.core.handle(now(), event),
                // Who has stopped waiting for the answer needs none.
                Some(reply) = self.asked.recv() => drop(reply.send(self.core.state())),
                () = sleep_until(timer.map_or_else(Instant::now, Instant::from_std)), if timer.is_some() => {
                    self.core.handle_timeout(now());
                }
            }
        }
        // What was not begun is left to the next leader: it finds the same state and decides the same.
        let ended = async { while jobs.running.join_next().await.is_some() {} };
        let all = timeout(FAREWELL, ended).await.is_ok();
        if !all {
            tracing::warn!(
                jobs = jobs.running.len(),
                "ended with writes under way; they are conditional and may still arrive"
            );
        }
        all
    }
}

/// What a beginning leader waits for.
async fn begun(role: &mut Role) -> Present {
    match role {
        Role::Begins(newest) => newest.await,
        Role::Standby | Role::Waits | Role::Leads => std::future::pending().await,
    }
}

/// What is to be written, and what is being written.
#[derive(Debug, Default)]
struct Jobs {
    // What was begun is finished before more is begun: among ten thousand new Services the first ones are served soon,
    // instead of all of them at the end.
    begun: VecDeque<Job>,
    fresh: VecDeque<Job>,
    running: JoinSet<Option<Done>>,
}

impl Jobs {
    fn push(&mut self, job: Job) {
        let queue = if matches!(job, Job::Take(_)) { &mut self.fresh } else { &mut self.begun };
        queue.push_back(job);
    }

    fn start(&mut self, writer: &Writer) {
        while self.running.len() < PARALLEL
            && let Some(job) = self.begun.pop_front().or_else(|| self.fresh.pop_front())
        {
            self.running.spawn(writer.clone().run(job));
        }
        // The room for ten thousand jobs is not kept for the next one.
        for queue in [&mut self.begun, &mut self.fresh] {
            if queue.is_empty() {
                queue.shrink_to(PARALLEL);
            }
        }
    }

    async fn abandon(&mut self) {
        self.begun.clear();
        self.fresh.clear();
        self.running.shutdown().await;
    }

    fn len(&self) -> usize {
        self.begun.len() + self.fresh.len() + self.running.len()
    }
}

fn finish(core: &mut Core, ended: Result<Option<Done>, JoinError>) {
    match ended {
        Ok(Some(done)) => core.handle(now(), Event::Done(done)),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "a write ended without a result"),
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now().into_std(), wall: Timestamp::now() }
}

/// The time at which a core begins.
pub fn start() -> Now {
    now()
}

#[cfg(test)]
mod tests {
    use herald_runtime::{Readiness, watch::Change};
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fake_api::{Asked, FakeApi, refusal},
        objects::service::{Service, ServiceObject},
        writer::event_writer,
    };

    /// A task over an API server that takes every write, and the ends that its surroundings hold.
    struct Bench {
        api: FakeApi,
        events: mpsc::Sender<Event>,
        lead: watch::Sender<Leadership>,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<bool>,
        _asked: mpsc::Sender<StateAsked>,
    }

    fn answer(asked: &Asked) -> Value {
        let newest = json!({"kind": "LoadBalancerIPList", "apiVersion": "heraldlb.io/v1beta1",
            "metadata": {"resourceVersion": "4711"}, "items": []});
        match asked.method.as_str() {
            "GET" if asked.path.contains("loadbalancerips?") => newest,
            "GET" => refusal(404, "NotFound", "none"),
            _ => {
                let mut object = asked.body.clone();
                object["metadata"]["resourceVersion"] = json!("5000");
                object
            }
        }
    }

    fn bench() -> Bench {
        let api = FakeApi::new(answer);
        let (events, receiver) = mpsc::channel(64);
        let (lead, leadership) = watch::channel(Leadership::Standby { leader: None });
        let (ask, asked) = mpsc::channel(1);
        let readiness = Readiness::new();
        let metrics = Metrics::new(&mut Registry::default());
        let (told, _) = event_writer(api.client(), "test".to_owned(), metrics.clone());
        let limit = Duration::from_secs(5);
        let task = Task {
            core: Core::new(None, metrics.clone(), start()),
            events: receiver,
            endpoints: EndpointsWatch::new(api.client(), readiness.clone(), events.clone()),
            asked,
            writer: Writer::new(api.client(), None, leadership.clone(), limit, metrics.clone()),
            told,
            leadership,
            newest: Newest::new(api.client(), readiness),
            metrics,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(task.run(stop.clone()));
        Bench { api, events, lead, stop, running, _asked: ask }
    }

    fn service(name: &str) -> Service {
        let object: ServiceObject = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "7"},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]},
        }))
        .unwrap();
        object.into()
    }

    impl Bench {
        async fn tell(&self, event: Event) {
            self.events.send(event).await.unwrap();
        }

        /// All lists, with one pool and one Service without address.
        async fn list(&self) {
            self.list_all_but_services().await;
            self.tell(Event::Services(Change::Replaced(vec![service("web")]))).await;
        }

        async fn list_all_but_services(&self) {
            let pool = serde_json::from_value::<herald_crds::IPAddressPool>(json!({
                "metadata": {"name": "default", "uid": "p", "resourceVersion": "6"},
                "spec": {"addresses": ["10.0.0.0/24"]},
            }));
            self.tell(Event::Pools(Change::Replaced(vec![pool.unwrap().into()]))).await;
            self.tell(Event::Namespaces(Change::Replaced(Vec::new()))).await;
            self.tell(Event::Advertisements(Change::Replaced(Vec::new()))).await;
            self.tell(Event::Nodes(Change::Replaced(Vec::new()))).await;
            self.tell(Event::Addresses(Change::Replaced(Vec::new()))).await;
        }

        /// It leads, has read what there is, and lacks only Services.
        async fn begin(&self) {
            self.leads(1_000_000);
            self.list_all_but_services().await;
            self.api.await_asked(|asked| asked.path.contains("loadbalancerips?")).await;
        }

        fn leads(&self, seconds: u64) {
            let until = Instant::now().into_std() + Duration::from_secs(seconds);
            self.lead.send_replace(Leadership::Leading { until });
        }

        fn writes(&self) -> Vec<String> {
            let all = self.api.asked().into_iter().filter(|asked| asked.method != "GET");
            all.map(|asked| format!("{} {}", asked.method, asked.path)).collect()
        }

        async fn end(self) -> bool {
            self.stop.cancel();
            self.running.await.unwrap()
        }
    }

    fn creates(asked: &Asked) -> bool {
        asked.method == "POST"
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_writes_nothing_and_a_new_leader_first_reads_what_its_revisions_must_exceed() {
        let bench = bench();
        bench.list().await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert!(bench.api.asked().is_empty(), "{:?}", bench.api.asked());
        bench.leads(1_000_000);
        let create = bench.api.await_asked(creates).await;
        assert!(create.body["spec"]["revision"].as_i64().unwrap() >= 4711, "{:?}", create.body);
        assert_eq!(bench.api.asked()[0].method, "GET");
        let status = bench.api.await_asked(|asked| asked.path.contains("/web/status")).await;
        assert_eq!(status.body["status"]["loadBalancer"]["ingress"][0]["ip"], "10.0.0.0");
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_is_not_listed_a_second_time_beside_the_watchs_first_list() {
        let bench = bench();
        bench.leads(1_000_000);
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert!(bench.api.asked().is_empty(), "{:?}", bench.api.asked());
        bench.list().await;
        bench.api.await_asked(creates).await;
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_time_is_over_begins_no_write_until_its_lease_is_renewed() {
        let bench = bench();
        bench.leads(0);
        bench.list().await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(bench.writes(), Vec::<String>::new());
        bench.leads(1_000_000);
        bench.api.await_asked(creates).await;
        bench.end().await;
    }

    /// A leader whose first create the API server has, and does not answer.
    async fn with_a_create_under_way() -> Bench {
        let bench = bench();
        bench.begin().await;
        bench.api.set_open(false);
        bench.tell(Event::Services(Change::Replaced(vec![service("web")]))).await;
        bench.api.await_asked(creates).await;
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads_no_longer_drops_what_was_under_way_and_what_waited() {
        let bench = with_a_create_under_way().await;
        bench.lead.send_replace(Leadership::Standby { leader: Some("other".to_owned()) });
        bench.tell(Event::Services(Change::Deleted(service("web")))).await;
        bench.api.set_open(true);
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(bench.writes().len(), 1, "{:?}", bench.writes());
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_clean_end_waits_for_the_writes_under_way_and_begins_no_more() {
        let bench = with_a_create_under_way().await;
        bench.stop.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!bench.running.is_finished());
        bench.api.set_open(true);
        assert!(bench.running.await.unwrap());
        assert_eq!(bench.api.asked().iter().filter(|asked| asked.method != "GET").count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_a_server_that_does_not_answer_is_waited_for_five_seconds_and_no_longer() {
        let bench = with_a_create_under_way().await;
        let since = Instant::now();
        assert!(!bench.end().await, "what may still be written is said");
        assert!(since.elapsed() <= FAREWELL + Duration::from_secs(1), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_finished_before_more_is_begun() {
        let bench = bench();
        bench.begin().await;
        bench.api.set_open(false);
        let many = (0..100).map(|n| service(&format!("s{n}"))).collect();
        bench.tell(Event::Services(Change::Replaced(many))).await;
        bench.api.await_asked(creates).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.writes().len(), PARALLEL);
        bench.api.set_open(true);
        bench.api.await_asked(|asked| asked.path.contains("/status")).await;
        let writes = bench.writes();
        let begun = writes.iter().position(|write| write.contains("/status")).unwrap();
        assert!(begun < 2 * PARALLEL, "a status is written while most Services have no address yet: {begun}");
        bench.end().await;
    }
}
