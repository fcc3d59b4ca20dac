//! Many connections that stay open, each asked again and again: what an upgrade must not break.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::{Domain, Socket, Type};

use crate::lan::Host;

/// An answer that takes longer counts as a broken connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);

/// The next client port: none is ever used twice, and they lie below those that the kernel hands out. A connection
/// attempt that comes before kube-proxy knows the Service leaves an entry without translation in its node's connection
/// tracking for two minutes, and the next connection from the same port would be led astray by it.
static PORTS: AtomicU16 = AtomicU16::new(10_000);

/// Open HTTP connections, all of them asked in rounds by a thread.
#[derive(Debug)]
pub struct Connections {
    opened: usize,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Served>,
}

/// What became of [`Connections`].
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// How many were open at the beginning.
    pub opened: usize,
    /// How many broke: reset, closed, or without an answer for 5 s.
    pub broken: usize,
    /// How often all of them were asked.
    pub rounds: usize,
    /// The longest time from a question to its answer.
    pub slowest: Duration,
}

impl Connections {
    /// Opens `count` connections from `client`, waits until each was answered once, and goes on asking.
    pub fn open(client: &Host, address: IpAddr, port: u16, count: usize) -> Result<Self> {
        let target = SocketAddr::new(address, port);
        let first = PORTS.fetch_add(u16::try_from(count)?, Ordering::Relaxed);
        let open = move || -> Result<Vec<TcpStream>> {
            let connect = |port| connect(port, target).with_context(|| format!("from port {port}"));
            (first..).take(count).map(connect).collect()
        };
        let mut streams =
            client.netns.run(open)?.with_context(|| format!("opening {count} connections to {target}"))?;
        let mut served = Served { opened: count, ..Served::default() };
        ask_all(&mut streams, &mut served);
        ensure!(served.broken == 0, "{} of {count} new connections to {target} broke at once", served.broken);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("connections".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                ask_all(&mut streams, &mut served);
                std::thread::park_timeout(PAUSE);
            }
            served
        })?;
        Ok(Self { opened: count, stop, thread })
    }

    /// How many were opened.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// Asks a last time and closes them.
    pub fn close(self) -> Result<Served> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| anyhow!("the connections' thread panicked"))
    }
}

fn connect(port: u16, target: SocketAddr) -> Result<TcpStream> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.connect_timeout(&target.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks on every connection and forgets those that break.
fn ask_all(streams: &mut Vec<TcpStream>, served: &mut Served) {
    let before = streams.len();
    streams.retain_mut(|stream| {
        let asked = Instant::now();
        let answered = ask(stream).is_ok();
        served.slowest = served.slowest.max(asked.elapsed());
        answered
    });
    served.broken += before - streams.len();
    served.rounds += 1;
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    // The body is one line, the first that is not of the head.
    while !is_complete(&answer) {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    Ok(())
}

fn is_complete(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    head.is_some_and(|head| answer.len() > head + 4 && answer.ends_with(b"\n"))
}
