//! The two rtnetlink sockets: one hears events, one asks. No meaning is given to what they bring.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::MonitorError;
use super::tables::DefaultRoute;

/// What the kernel puts into one datagram of a dump at most.
const DATAGRAM: usize = 64 * 1024;
/// Room for the events of some hundred pods at once; the kernel grants no more than `net.core.rmem_max`.
const EVENT_BUFFER: usize = 1 << 20;
/// How often a dump is asked for again that changes interrupted.
const DUMP_TRIES: usize = 8;

/// The kernel's announcements of changes to links, addresses and routes.
#[derive(Debug)]
pub(super) struct Events {
    socket: Socket,
    datagram: Vec<u8>,
}

/// What reading an event socket came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing there.
    Nothing,
    /// See [`Events::messages`].
    Messages,
    /// Some were lost.
    Overrun,
}

impl Events {
    pub(super) fn subscribe() -> Result<Self, MonitorError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(MonitorError::during("open the event socket"))?;
        socket.bind_auto().map_err(MonitorError::during("bind the event socket"))?;
        // A smaller buffer only overruns earlier.
        let _ = socket.set_rx_buf_sz(i32::try_from(EVENT_BUFFER).unwrap_or(i32::MAX));
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group).map_err(MonitorError::during("subscribe to events"))?;
        }
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Blocks until there is something.
    pub(super) fn wait(&mut self) -> Result<Received, MonitorError> {
        self.receive(0)
    }

    /// Does not block.
    pub(super) fn try_next(&mut self) -> Result<Received, MonitorError> {
        self.receive(libc::MSG_DONTWAIT)
    }

    fn receive(&mut self, flags: i32) -> Result<Received, MonitorError> {
        match receive(&self.socket, &mut self.datagram, flags) {
            Ok(true) => Ok(Received::Messages),
            Ok(false) => Ok(Received::Overrun),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(MonitorError::during("read events")(error)),
        }
    }

    /// The messages of the datagram received last: type and payload.
    pub(super) fn messages(&self) -> impl Iterator<Item = (u16, &[u8])> {
        messages(&self.datagram).map(|message| (message.kind, message.payload))
    }
}

/// Asks for what there is now.
#[derive(Debug)]
pub(super) struct Queries {
    socket: Socket,
    datagram: Vec<u8>,
    sequence: u32,
}

impl Queries {
    pub(super) fn open() -> Result<Self, MonitorError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(MonitorError::during("open the query socket"))?;
        socket.bind_auto().map_err(MonitorError::during("bind the query socket"))?;
        // Lets the kernel filter a dump by what its header says; without, we skip more.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM), sequence: 0 })
    }

    /// Calls `each` with the type and payload of a message for every link, then for every address.
    pub(super) fn links_and_addresses(
        &mut self,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), MonitorError> {
        for (operation, request) in [
            ("dump links", RouteNetlinkMessage::GetLink(LinkMessage::default())),
            ("dump addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())),
        ] {
            self.dump(&request, &mut each).map_err(MonitorError::during(operation))?;
        }
        Ok(())
    }

    pub(super) fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, MonitorError> {
        let mut routes = Vec::new();
        for address_family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header = RouteHeader {
                address_family,
                table: RouteHeader::RT_TABLE_MAIN,
                kind: RouteType::Unicast,
                ..RouteHeader::default()
            };
            self.dump(&RouteNetlinkMessage::GetRoute(request), &mut |_, payload| {
                routes.extend(DefaultRoute::parse(payload));
            })
            .map_err(MonitorError::during("dump routes"))?;
        }
        Ok(routes)
    }

    fn dump(&mut self, request: &RouteNetlinkMessage, each: &mut impl FnMut(u16, &[u8])) -> io::Result<()> {
        for _ in 0..DUMP_TRIES {
            if self.try_dump(request, each)? {
                return Ok(());
            }
        }
        // Whatever keeps changing is announced by events as well.
        Ok(())
    }

    /// Returns whether the dump is consistent.
    fn try_dump(
        &mut self,
        request: &RouteNetlinkMessage,
        each: &mut impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(request.clone())?;
        let mut consistent = true;
        loop {
            match receive(&self.socket, &mut self.datagram, 0) {
                Ok(whole) => consistent &= whole,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for message in messages(&self.datagram).filter(|message| message.sequence == self.sequence) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => return message.error().map(|()| consistent),
                    kind => each(kind, message.payload),
                }
            }
        }
    }

    fn send(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Message<'_> {
    /// The errno of an NLMSG_ERROR, negative on the wire; zero is an acknowledgement.
    fn error(&self) -> io::Result<()> {
        match self.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The messages of a datagram, up to the first that is not whole.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    const ALIGNMENT: usize = 4;
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(datagram).ok()?;
        let len = usize::try_from(buffer.length()).ok()?;
        let message = datagram.get(..len)?;
        datagram = datagram.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        let (kind, flags, sequence) = (buffer.message_type(), buffer.flags(), buffer.sequence_number());
        Some(Message { kind, flags, sequence, payload: message.get(HEADER_LEN..)? })
    })
}

/// Octets of a netlink message's header.
const HEADER_LEN: usize = 16;

/// One datagram; false if it was cut.
fn receive(socket: &Socket, datagram: &mut Vec<u8>, flags: i32) -> io::Result<bool> {
    datagram.clear();
    let (len, _) = socket.recv_from(datagram, flags | libc::MSG_TRUNC)?;
    Ok(len <= datagram.len())
}
