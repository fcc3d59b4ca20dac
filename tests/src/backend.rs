//! What a Service leads to: one backend per node, a tiny HTTP and UDP server on a routed pod address behind the node.
//!
//! The servers are tasks of the lab whose sockets live in the pod's namespace. They hang off their node's own interface,
//! so that a node without power takes its pods with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    task::AbortHandle,
};

use crate::{lan::Host, netns::Netns};

/// The port every backend serves on, whatever a Service calls it: HTTP over TCP, echo over UDP.
pub const BACKEND_PORT: u16 = 8080;

/// A backend behind one node.
#[derive(Debug)]
pub struct Backend {
    /// The node it belongs to.
    pub node: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    netns: Netns,
    tasks: Vec<AbortHandle>,
}

impl Backend {
    /// Makes the pod's namespace behind `node`, the `index`-th of the lab, and serves in it.
    pub(crate) fn start(runtime: &Handle, node: &Host, index: u8, netns: Netns) -> Result<Self> {
        node.netns.ip(&[
            &format!("link add pods type veth peer name eth0 netns {}", netns.name()),
            "link set pods up",
            &format!("addr add 10.244.{index}.1/24 dev pods"),
            &format!("addr add fd00:244:{index}::1/64 dev pods nodad"),
        ])?;
        netns.sysctl("ipv6/conf/default/accept_dad", "0")?;
        let v4 = Ipv4Addr::new(10, 244, index, 10);
        let v6: Ipv6Addr = format!("fd00:244:{index}::10").parse()?;
        netns.ip(&[
            "link set eth0 up",
            &format!("addr add {v4}/24 dev eth0"),
            &format!("addr add {v6}/64 dev eth0 nodad"),
            &format!("route add default via 10.244.{index}.1"),
            &format!("route add default via fd00:244:{index}::1"),
        ])?;
        let mut backend = Self { node: node.name.clone(), v4, v6, netns, tasks: Vec::new() };
        backend.serve(runtime)?;
        Ok(backend)
    }

    /// Its address of the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// The namespace of the pod.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    fn serve(&mut self, runtime: &Handle) -> Result<()> {
        let _context = runtime.enter();
        for address in [IpAddr::V4(self.v4), IpAddr::V6(self.v6)] {
            let socket = SocketAddr::new(address, BACKEND_PORT);
            let (tcp, udp) = self
                .netns
                .run(move || -> std::io::Result<_> {
                    let (tcp, udp) = (TcpListener::bind(socket)?, UdpSocket::bind(socket)?);
                    tcp.set_nonblocking(true)?;
                    udp.set_nonblocking(true)?;
                    Ok((tcp, udp))
                })?
                .with_context(|| format!("listening on {socket}"))?;
            let (tcp, udp) = (tokio::net::TcpListener::from_std(tcp)?, tokio::net::UdpSocket::from_std(udp)?);
            let name = self.node.clone();
            self.tasks.push(runtime.spawn(serve_http(tcp, name)).abort_handle());
            self.tasks.push(runtime.spawn(echo(udp)).abort_handle());
        }
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve_http(listener: tokio::net::TcpListener, node: String) {
    loop {
        // An error here is one connection's (reset before it was accepted), never the listener's.
        if let Ok((stream, client)) = listener.accept().await {
            tokio::spawn(answer(stream, format!("node={node} client={}\n", client.ip())));
        }
    }
}

/// One request, one answer, closed: nothing a test could wait on longer than it means to.
async fn answer(mut stream: TcpStream, body: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

async fn echo(socket: tokio::net::UdpSocket) {
    let mut datagram = [0; 2048];
    loop {
        // Errors are ICMP echoes of answers that found nobody; the next datagram is not theirs.
        if let Ok((length, client)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), client).await;
        }
    }
}
