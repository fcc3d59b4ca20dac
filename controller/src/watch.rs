//! The watches: one per kind, all into one channel, each object reduced on its way to what decisions need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use herald_ipam::Version;
use herald_runtime::{
    Readiness,
    watch::{Change, watch},
};
use kube::{Api, Client, api::ListParams, runtime::watcher::Config};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    core::Event,
    objects::{
        address::{Address, AddressObject},
        advertisement::AdvertisementObject,
        endpoints::EndpointsObject,
        node::{NamespaceObject, NodeObject},
        pool::PoolObject,
        service::ServiceObject,
    },
};

/// What may wait in the channel: a watch that is ahead of the core waits as well.
const CHANNEL: usize = 1024;
/// Time limit of each request made here, and the pause before the list is begun again.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// Objects per page of that list: more than the watches ask for at once, as nothing is given out meanwhile.
const PAGE: u32 = 200;

/// Starts every watch but one. They end when the channel is closed or the set is dropped.
pub fn start(
    client: &Client,
    readiness: &Readiness,
    tasks: &mut JoinSet<()>,
) -> (mpsc::Receiver<Event>, EndpointsWatch) {
    let (events, receiver) = mpsc::channel(CHANNEL);
    let all = Config::default;

    let services: Api<ServiceObject> = Api::all(client.clone());
    let balanced = all().fields("spec.type=LoadBalancer");
    let services = watch(services, balanced, "services", readiness, Into::into);
    tasks.spawn(forward(services.map(Event::Services), events.clone()));

    let pools: Api<PoolObject> = Api::all(client.clone());
    let pools = watch(pools, all(), "ipaddresspools", readiness, Into::into);
    tasks.spawn(forward(pools.map(Event::Pools), events.clone()));

    let advertisements: Api<AdvertisementObject> = Api::all(client.clone());
    let advertisements = watch(advertisements, all(), "l2advertisements", readiness, Into::into);
    tasks.spawn(forward(advertisements.map(Event::Advertisements), events.clone()));

    let addresses: Api<AddressObject> = Api::all(client.clone());
    let addresses = watch(addresses, all(), "loadbalancerips", readiness, Address::try_from);
    let addresses = addresses.filter_map(async |change| readable(change)).map(Event::Addresses);
    tasks.spawn(forward(addresses, events.clone()));

    let namespaces: Api<NamespaceObject> = Api::all(client.clone());
    let namespaces = watch(namespaces, all(), "namespaces", readiness, Into::into);
    tasks.spawn(forward(namespaces.map(Event::Namespaces), events.clone()));

    let nodes: Api<NodeObject> = Api::all(client.clone());
    let nodes = watch(nodes, all(), "nodes", readiness, Into::into);
    tasks.spawn(forward(nodes.map(Event::Nodes), events.clone()));

    (receiver, EndpointsWatch::new(client.clone(), readiness.clone(), events))
}

impl fmt::Debug for EndpointsWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointsWatch").finish_non_exhaustive()
    }
}

/// The watch that is started only once it is needed.
pub struct EndpointsWatch {
    client: Client,
    readiness: Readiness,
    events: mpsc::Sender<Event>,
}

impl EndpointsWatch {
    /// One that tells `events`.
    pub fn new(client: Client, readiness: Readiness, events: mpsc::Sender<Event>) -> Self {
        Self { client, readiness, events }
    }

    /// Runs it until the channel is closed.
    pub async fn run(self) {
        let slices: Api<EndpointsObject> = Api::all(self.client);
        let slices = watch(slices, Config::default(), "endpointslices", &self.readiness, Into::into);
        forward(slices.map(Event::Endpoints), self.events).await;
    }
}

/// What there is when a leader begins.
#[derive(Debug)]
pub struct Present {
    /// The newest resourceVersion (rule B18).
    pub version: Version,
    /// What has a LoadBalancerIP as of that version.
    pub all: BTreeSet<IpAddr>,
    /// Those that were not known, or not in that version. Only these: among ten thousand they are few, and a second copy
    /// of all takes more room than all else.
    pub news: Vec<Address>,
}

impl Present {
    pub(crate) fn nothing() -> Self {
        Self { version: Version::default(), all: BTreeSet::new(), news: Vec::new() }
    }

    /// Takes in an object of the list.
    pub(crate) fn note(&mut self, object: Address, known: &BTreeMap<IpAddr, Version>) {
        self.all.insert(object.address);
        if known.get(&object.address).is_none_or(|known| *known < object.version) {
            self.news.push(object);
        }
    }
}

/// Reads what there is: a list from etcd's present state (rule B12), the former leader's last writes included. A watch
/// may lag behind them.
#[derive(Clone)]
pub struct Newest {
    client: Client,
    readiness: Readiness,
}

impl fmt::Debug for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newest").finish_non_exhaustive()
    }
}

impl Newest {
    const REASON: &str = "list of loadbalancerips";
    const ADVICE: &str = "if this lasts, are Herald's CRDs installed and its rights granted?";

    /// One that asks the server behind `client`.
    pub fn new(client: Client, readiness: Readiness) -> Self {
        Self { client, readiness }
    }

    /// Asks until there is an answer; readiness names it meanwhile. `known`: the versions that are known already.
    pub async fn read(self, known: BTreeMap<IpAddr, Version>) -> Present {
        self.readiness.missing(Self::REASON, "not read yet");
        let api: Api<AddressObject> = Api::all(self.client.clone());
        let mut said = String::new();
        loop {
            let trouble = match list(&api, &known).await {
                Ok(present) => {
                    self.forget();
                    return present;
                }
                Err(trouble) => trouble,
            };
            if trouble != said {
                let advice = Self::ADVICE;
                self.readiness
                    .missing(Self::REASON, format!("can't list loadbalancerips: {trouble}; {advice}"));
                tracing::warn!("can't list loadbalancerips: {trouble}; {advice}");
                said = trouble;
            }
            sleep(PAUSE).await;
        }
    }

    /// Nobody waits for it any more.
    pub fn forget(&self) {
        self.readiness.ready(Self::REASON);
    }
}

async fn list(api: &Api<AddressObject>, known: &BTreeMap<IpAddr, Version>) -> Result<Present, String> {
    let mut params = ListParams::default().limit(PAGE);
    let mut present = Present::nothing();
    loop {
        let page = match timeout(TIMEOUT, api.list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Err(herald_runtime::client::describe(&error)),
            Err(_) => return Err("no answer within 5 s".to_owned()),
        };
        for object in page.items.into_iter().map(Address::try_from).filter_map(read) {
            present.note(object, known);
        }
        if let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) {
            params = params.continue_token(&token);
            continue;
        }
        let version = page.metadata.resource_version.and_then(|text| text.parse().ok());
        present.version = Version(version.ok_or("the list has no resourceVersion")?);
        return Ok(present);
    }
}

async fn forward(changes: impl Stream<Item = Event>, events: mpsc::Sender<Event>) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        if events.send(change).await.is_err() {
            return;
        }
    }
}

/// The CRD lets no object pass whose address can't be read; one that was stored before there was such a rule is left
/// out, as it can mean no address.
fn read(address: Result<Address, herald_ipam::AddressError>) -> Option<Address> {
    address.inspect_err(|error| tracing::warn!(%error, "a LoadBalancerIP that can't be read is ignored")).ok()
}

fn readable(change: Change<Result<Address, herald_ipam::AddressError>>) -> Option<Change<Address>> {
    Some(match change {
        Change::Replaced(list) => Change::Replaced(list.into_iter().filter_map(read).collect()),
        Change::Applied(address) => Change::Applied(read(address)?),
        Change::Deleted(address) => Change::Deleted(read(address)?),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use herald_crds::LoadBalancerIP;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::{Asked, FakeApi, refusal};

    fn list(version: &str, more: &str, items: &[Value]) -> Value {
        json!({"kind": "LoadBalancerIPList", "apiVersion": "heraldlb.io/v1beta1",
            "metadata": {"resourceVersion": version, "continue": more}, "items": items})
    }

    fn object(text: &str) -> Value {
        json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": "any", "resourceVersion": "7"},
            "spec": {"address": text, "revision": 1},
        })
    }

    fn address(text: &str) -> Result<Address, herald_ipam::AddressError> {
        Address::try_from(serde_json::from_value::<LoadBalancerIP>(object(text)).unwrap())
    }

    fn texts(addresses: Vec<Address>) -> Vec<String> {
        addresses.into_iter().map(|address| address.address.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_is_asked_for_until_it_comes_whole_and_readiness_says_what_is_missing() {
        let answers = Mutex::new(vec![
            list("4711", "", &[object("10.0.0.2"), object("nonsense"), object("10.0.0.4")]),
            list("4711", "page 2", &[object("10.0.0.1"), object("10.0.0.3")]),
            refusal(410, "Expired", "the provided continue parameter is too old"),
            list("4710", "page 2", &[object("10.0.0.9")]),
            list("", "", &[]),
            refusal(404, "NotFound", "the server could not find the requested resource"),
        ]);
        let api = FakeApi::new(move |_: &Asked| answers.lock().unwrap().pop().expect("asked too often"));
        let readiness = Readiness::new();
        let known = [("10.0.0.2", 7), ("10.0.0.3", 6), ("10.0.0.4", 8), ("10.0.0.5", 5)]
            .map(|(address, version)| (address.parse().unwrap(), Version(version)));
        let reading = tokio::spawn(Newest::new(api.client(), readiness.clone()).read(known.into()));
        while api.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_millis(10)).await;
        let reasons = format!("{:?}", readiness.reasons());
        assert!(reasons.contains("CRDs installed") && reasons.contains("could not find"), "{reasons}");
        let present = reading.await.unwrap();
        assert_eq!(present.version, Version(4711), "a list without a version is no answer");
        let all: Vec<String> = present.all.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "what one list says");
        assert_eq!(texts(present.news), ["10.0.0.1", "10.0.0.3"], "what is known is not kept a second time");
        assert!(readiness.is_ready());
        let asked = api.asked();
        assert!(asked.iter().all(|asked| !asked.path.contains("resourceVersion=")), "{asked:?}");
        let second: Vec<bool> = asked.iter().map(|asked| asked.path.contains("continue=")).collect();
        assert_eq!(second, [false, false, false, true, false, true]);
    }

    #[test]
    fn an_address_that_cannot_be_read_is_left_out_and_the_others_are_not() {
        let all = Change::Replaced(vec![address("10.0.0.1"), address("nonsense"), address("fd00::1")]);
        let Some(Change::Replaced(read)) = readable(all) else { panic!("a list stays a list") };
        assert_eq!(texts(read), ["10.0.0.1", "fd00::1"]);
        assert!(readable(Change::Applied(address("nonsense"))).is_none());
        assert!(readable(Change::Deleted(address("nonsense"))).is_none());
    }

    #[tokio::test]
    async fn what_the_watches_tell_ends_with_the_channel() {
        let (events, receiver) = mpsc::channel(1);
        drop(receiver);
        let endless = futures::stream::repeat_with(|| Event::StandsBy);
        forward(endless, events).await;
    }
}
