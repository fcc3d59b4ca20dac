//! A blackout as its victim sees it: a client that asks every few milliseconds and remembers when it was answered.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::lan::Host;

/// Longer than any answer takes on a bridge in memory, shorter than any blackout.
const UNDER_WAY: Duration = Duration::from_millis(10);

/// A running measurement: one UDP datagram per period to an echo server, from one socket.
#[derive(Debug)]
pub struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Instant>>,
    answers: mpsc::Receiver<Instant>,
}

/// What a [`Meter`] saw.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When each answer came, in order.
    pub answers: Vec<Instant>,
}

/// A time without answers.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// The last answer before it.
    pub from: Instant,
    /// The first answer after it.
    pub to: Instant,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.to - self.from
    }
}

impl Meter {
    /// Starts asking `target` every `period` from `client`.
    pub fn start(client: &Host, target: SocketAddr, period: Duration) -> Result<Self> {
        let local: SocketAddr =
            if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = client.netns.run(move || {
            let socket = UdpSocket::bind(local)?;
            socket.connect(target)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        })?;
        let socket = socket.with_context(|| format!("a UDP socket to {target}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, answers) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("meter".to_owned())
            .spawn(move || ask(&socket, period, &stopped, &sender))?;
        Ok(Self { stop, thread, answers })
    }

    /// Waits for an answer that came after `since`, by more than what may still have been under way then.
    pub fn await_answer(&self, since: Instant, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer =
                self.answers.recv_timeout(left).with_context(|| format!("no answer within {patience:?}"))?;
            if answer > since + UNDER_WAY {
                return Ok(answer);
            }
        }
    }

    /// Ends it.
    pub fn stop(self) -> Result<Observed> {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.thread.join().map_err(|_| anyhow!("the meter's thread panicked"))?;
        Ok(Observed { answers })
    }
}

impl Observed {
    /// The longest time between two answers.
    pub fn longest_gap(&self) -> Option<Gap> {
        let pairs = self.answers.windows(2);
        pairs.filter_map(|pair| Some(Gap { from: *pair.first()?, to: *pair.last()? })).max_by_key(Gap::length)
    }
}

fn ask(
    socket: &UdpSocket,
    period: Duration,
    stop: &AtomicBool,
    answered: &mpsc::Sender<Instant>,
) -> Vec<Instant> {
    let mut answers = Vec::new();
    let mut next = Instant::now();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            // No route, no neighbour, port unreachable: all of them are the blackout being measured.
            let _ = socket.send(b"herald");
            next = now + period;
        }
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is a wait that ended early.
        let _ = ppoll(&mut waiting, Some(TimeSpec::from(next - now)), None);
        // Reading an error off the socket clears it; then comes what else is there.
        while socket.recv(&mut buffer).is_ok() {
            let now = Instant::now();
            answers.push(now);
            // Nobody may be listening.
            let _ = answered.send(now);
        }
    }
    answers
}
