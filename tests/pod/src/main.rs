//! What runs in the pods of the lab's full cluster, so that it needs no image from anywhere: `pod pause` keeps a pod's
//! namespaces, `pod serve` is a backend on port 8080.
//!
//! The backend answers every HTTP request with `node=NODE client=ADDRESS` (NODE from the environment) and keeps the
//! connection until it is asked to close; it echoes every UDP datagram. Both programs end at once when told to: as
//! process 1 of a container they would otherwise outlive SIGTERM by the whole grace period.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread::Builder,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Where the backend listens, for IPv6 and IPv4 alike.
const ADDRESS: (Ipv6Addr, u16) = (Ipv6Addr::UNSPECIFIED, 8080);
/// A connection's thread does nothing deep, and there may be thousands.
const STACK: usize = 64 * 1024;
/// Longer than any request of a client of the lab.
const LONGEST_REQUEST: usize = 8 * 1024;

fn main() -> Result<()> {
    let mut ending = SigSet::empty();
    ending.add(Signal::SIGTERM);
    ending.add(Signal::SIGINT);
    // Before any thread: they inherit it, so that only the wait below sees the signal.
    ending.thread_block()?;
    match std::env::args().nth(1).as_deref() {
        Some("pause") => {}
        Some("serve") => serve()?,
        _ => bail!("usage: pod pause|serve"),
    }
    ending.wait()?;
    Ok(())
}

fn serve() -> Result<()> {
    let node = std::env::var("NODE").unwrap_or_default();
    let tcp = TcpListener::bind(ADDRESS).context("listening for HTTP on port 8080")?;
    let udp = UdpSocket::bind(ADDRESS).context("listening for UDP on port 8080")?;
    Builder::new().name("http".to_owned()).spawn(move || accept(&tcp, &node))?;
    Builder::new().name("udp".to_owned()).spawn(move || echo(&udp))?;
    Ok(())
}

fn accept(listener: &TcpListener, node: &str) {
    // An error here is one connection's (reset before it was accepted), never the listener's.
    for stream in listener.incoming().flatten() {
        let node = node.to_owned();
        let worker = move || {
            // A client that goes away is no error of the backend's.
            let _ = answer(stream, &node);
        };
        // Without memory for one more thread the connection is closed, which its client sees.
        let _ = Builder::new().stack_size(STACK).spawn(worker);
    }
}

fn answer(mut stream: TcpStream, node: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let body = format!("node={node} client={}\n", stream.peer_addr()?.ip().to_canonical());
    let mut request = Vec::new();
    loop {
        let end = request.windows(4).position(|end| end == b"\r\n\r\n");
        let Some(end) = end else {
            let mut more = [0; 1024];
            let length = stream.read(&mut more)?;
            if length == 0 {
                return Ok(());
            }
            if request.len() > LONGEST_REQUEST {
                return Err(ErrorKind::InvalidData.into());
            }
            request.extend_from_slice(more.get(..length).unwrap_or_default());
            continue;
        };
        let head: Vec<u8> = request.drain(..end + 4).collect();
        let closes = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("connection: close");
        let connection = if closes { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes())?;
        if closes {
            return Ok(());
        }
    }
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    loop {
        // Errors are ICMP echoes of answers that found nobody; the next datagram is not theirs.
        if let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), client);
        }
    }
}
