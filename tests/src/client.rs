//! What a user's machine does with an address: ask for a page, open connections.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{lan::Host, site::Site, sniffer::Sniffer};

/// How long a question may stay unanswered: the kernel repeats it after a second, twice.
const PATIENCE: Duration = Duration::from_secs(10);
/// Far more than an answer takes.
const SECOND_ANSWER: Duration = Duration::from_millis(100);
/// A port that no Service of the lab has; what is sent there makes the kernel ask, no more.
const DISCARD: u16 = 9;

/// A page and how long it took from the first SYN to the last byte.
#[derive(Debug, Clone)]
pub struct Page {
    /// The body.
    pub body: String,
    /// Connect, request, answer.
    pub took: Duration,
}

impl Page {
    /// The node whose backend answered.
    pub fn node(&self) -> Option<&str> {
        self.field("node")
    }

    /// The address that the backend saw as the client's.
    pub fn client(&self) -> Option<IpAddr> {
        self.field("client")?.parse().ok()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.body.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Site {
    /// The node that the client's neighbour cache leads to for `address`: no status, only what was learned on the wire.
    pub fn holder_seen_by_client(&self, address: IpAddr) -> Result<String> {
        let entry = self.client().neighbour(address)?;
        let mac = entry
            .and_then(|entry| entry.lladdr)
            .with_context(|| format!("the client has no MAC for {address}"))?;
        let mac = mac.parse().map_err(|_| anyhow!("{mac} is not a MAC address"))?;
        Ok(self.lan().host_of(mac).with_context(|| format!("{mac} is nobody's on this LAN"))?.name)
    }
}

impl Site {
    /// Makes the client ask anew who has `address`, and names every host that answers.
    pub fn who_answers(&self, sniffer: &Sniffer, address: IpAddr) -> Result<BTreeSet<String>> {
        let asked = Instant::now();
        self.client().ask_for(address)?;
        sniffer.wait_for(asked, PATIENCE, |frame| frame.answers(address)).context("nobody answers")?;
        // A second answerer answers the same broadcast: only time shows that there is none.
        std::thread::park_timeout(SECOND_ANSWER);
        let seen = sniffer.seen();
        let answers = seen.iter().filter(|frame| frame.at >= asked && frame.answers(address));
        Ok(answers.map(|frame| frame.from.clone()).collect())
    }
}

impl Host {
    /// Has the kernel resolve `address` anew, as before a first packet.
    fn ask_for(&self, address: IpAddr) -> Result<()> {
        self.forget_neighbours()?;
        let local: SocketAddr =
            if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let sent = self.netns.run(move || UdpSocket::bind(local)?.send_to(b"who has", (address, DISCARD)))?;
        sent.with_context(|| format!("a datagram to {address}")).map(drop)
    }

    /// Asks a program of this host for `path` and gives the whole answer: head and body.
    pub fn ask_http(&self, target: SocketAddr, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        let asked = move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        self.netns.run(asked)?.with_context(|| format!("GET http://{target}{path} on {}", self.name))
    }

    /// The value of a sample in a program's `/metrics`, with its labels as they are printed; 0 where there is none yet.
    pub fn metric(&self, target: SocketAddr, sample: &str) -> Result<u64> {
        let metrics = self.ask_http(target, "/metrics")?;
        let found = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.map_or(Ok(0), |value| value.parse().with_context(|| format!("{sample} is {value}")))
    }

    /// Fetches `http://address:port/`, once.
    pub fn http_get(&self, address: IpAddr, port: u16) -> Result<Page> {
        let target = SocketAddr::new(address, port);
        self.netns
            .run(move || get(target, Duration::from_secs(2)))?
            .with_context(|| format!("GET http://{target}/"))
    }

    /// Fetches until it succeeds; for what takes effect some time after it was asked for.
    pub fn http_get_until_ok(&self, address: IpAddr, port: u16, patience: Duration) -> Result<Page> {
        self.http_get_again(address, port, Duration::from_millis(500), patience)
    }

    /// The same, giving up each attempt after `attempt`: a SYN that was lost is repeated by the kernel only after 1 s.
    pub fn http_get_again(
        &self,
        address: IpAddr,
        port: u16,
        attempt: Duration,
        patience: Duration,
    ) -> Result<Page> {
        let target = SocketAddr::new(address, port);
        let attempts = move || {
            let deadline = Instant::now() + patience;
            loop {
                match get(target, attempt) {
                    Err(_) if Instant::now() < deadline => pause(),
                    done => return done,
                }
            }
        };
        self.netns.run(attempts)?.with_context(|| format!("GET http://{target}/ for {patience:?}"))
    }
}

/// Refused at once means that kube-proxy has not got the endpoint yet: nothing signals when it has.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(2));
}

fn get(target: SocketAddr, timeout: Duration) -> Result<Page> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    stream.write_all(
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.ip()).as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = begun.elapsed();
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "answered {:?}", head.lines().next());
    Ok(Page { body: body.to_owned(), took })
}
