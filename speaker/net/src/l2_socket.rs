//! The packet sockets of one interface: receive what their filters let pass, send whole Ethernet frames.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, SockFilter, Socket, Type};

use herald_wire::{MacAddr, hello};

use crate::filter::{MAX_INTERVALS, Program};
use crate::poller::Source;

/// What may queue in each socket while the loop is busy, in octets. The kernel counts some 2 KB for a full frame and
/// grants twice `net.core.rmem_max` at most: some hundred frames by default.
const RECEIVE_BUFFER: usize = 1 << 20;

/// TC_PRIO_INTERACTIVE, the highest that needs no CAP_NET_ADMIN: in the first band of pfifo_fast, so that a hello or
/// an answer does not stand behind what the node's applications send.
const SEND_PRIORITY: u32 = 6;

/// AF_PACKET sockets bound to one interface: one for hellos, which therefore have a buffer that no flood of
/// questions can fill, and one for the rest.
///
/// From the first frame on they queue only what their filter lets pass: they are created for no protocol, which
/// receives nothing, and bound to all protocols once the filter is attached. Not to one protocol, because such
/// sockets stand behind traffic control, where a CNI's programs may drop what they don't know. Own frames never
/// come back.
#[derive(Debug)]
pub struct L2Socket {
    hellos: PacketSocket,
    others: PacketSocket,
    ifindex: u32,
}

/// Where the next frame is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// Hellos, and others when none waits.
    HellosFirst,
    /// Whatever is no hello.
    OthersOnly,
}

/// Whether a socket that gave this error on sending is bound to no interface any more, even if its interface is back.
pub fn is_unbound(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
}

/// A packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process lacks a capability.
    #[error(
        "packet sockets need the capability NET_RAW: add it to the container's \
         securityContext.capabilities, or run as root"
    )]
    NotPermitted,
    /// The interface has gone, or is no interface that frames can be sent on.
    #[error("there is no interface with index {ifindex} any more")]
    NoInterface {
        /// The index asked for.
        ifindex: u32,
    },
    /// Anything else.
    #[error("{operation} on the packet socket of interface {ifindex}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// For which interface.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

impl L2Socket {
    /// Opens the sockets of an interface, for hello frames and for these addresses of interest.
    pub fn open(ifindex: u32, interest: &[IpAddr]) -> Result<Self, OpenError> {
        let failed = |operation| {
            move |error: io::Error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted,
                Some(libc::ENODEV | libc::ENXIO) => OpenError::NoInterface { ifindex },
                _ => OpenError::Io { operation, ifindex, error },
            }
        };
        let socket = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None);
            socket.map(PacketSocket).map_err(failed("socket"))
        };
        let this = Self { hellos: socket()?, others: socket()?, ifindex };
        this.hellos.attach(&Program::hello()).map_err(failed("SO_ATTACH_FILTER"))?;
        this.set_interest(interest).map_err(failed("SO_ATTACH_FILTER"))?;
        this.hellos.join(ifindex, hello::GROUP).map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
        this.others.0.set_priority(SEND_PRIORITY).map_err(failed("SO_PRIORITY"))?;
        for socket in [&this.hellos, &this.others] {
            socket.0.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed("SO_RCVBUF"))?;
            socket.ignore_outgoing().map_err(failed("PACKET_IGNORE_OUTGOING"))?;
            socket.bind(ifindex).map_err(failed("bind"))?;
        }
        Ok(this)
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Replaces the filter, in one step: no frame is judged by none or by half of it.
    pub fn set_interest(&self, interest: &[IpAddr]) -> io::Result<()> {
        let mut max = MAX_INTERVALS;
        loop {
            match self.others.attach(&Program::with_at_most(interest, max)) {
                // The kernel charges filters, the old and the new one, to net.core.optmem_max, which was 20 KB
                // before Linux 6.7: a coarser filter still keeps storms out.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && max > 1 => max /= 4,
                result => return result,
            }
        }
    }

    /// The next frame, cut to the buffer, hellos before others; `None` when there is none.
    ///
    /// `None` also when the interface went down: the interface monitor tells that, and it may come back.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        self.receive_from(Queues::HellosFirst, buffer)
    }

    /// The next frame of these queues, as [`Self::receive`].
    pub fn receive_from<'b>(&self, queues: Queues, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let hello = match queues {
            Queues::HellosFirst => self.hellos.receive(buffer)?,
            Queues::OthersOnly => None,
        };
        let len = match hello {
            Some(len) => Some(len),
            None => self.others.receive(buffer)?,
        };
        Ok(len.and_then(|len| buffer.get(..len)))
    }

    /// Sends a whole Ethernet frame.
    ///
    /// `WouldBlock` and ENOBUFS mean that the interface's queue is full, ENETDOWN that it is down: the frame is
    /// lost, as it may be on the wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.others.0.send(frame).map(drop)
    }

    /// Frames that passed a filter and found the receive buffer full, since the last call.
    pub fn take_drops(&self) -> io::Result<u32> {
        Ok(self.hellos.take_drops()?.saturating_add(self.others.take_drops()?))
    }
}

impl Source for L2Socket {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.hellos.0.as_fd(), self.others.0.as_fd()].into_iter()
    }
}

#[derive(Debug)]
struct PacketSocket(Socket);

impl PacketSocket {
    fn attach(&self, program: &Program) -> io::Result<()> {
        let filter: Vec<SockFilter> =
            program.instructions().iter().map(|op| SockFilter::new(op.code, op.jt, op.jf, op.k)).collect();
        self.0.attach_filter(&filter)
    }

    /// The next frame's length.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match (&self.0).read(buffer) {
                Ok(len) => Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                Err(error) => Err(error),
            };
        }
    }

    fn take_drops(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = option_len::<libc::tpacket_stats>();
        // SAFETY: the descriptor is open, `statistics` is valid for writing `len` octets, both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut len,
            )
        };
        if result == 0 { Ok(statistics.tp_drops) } else { Err(io::Error::last_os_error()) }
    }

    fn ignore_outgoing(&self) -> io::Result<()> {
        self.set_option(libc::PACKET_IGNORE_OUTGOING, &1_i32)
    }

    /// Lets the interface receive a group, for as long as the socket is open.
    fn join(&self, ifindex: u32, group: MacAddr) -> io::Result<()> {
        let mut address = [0; 8];
        for (to, from) in address.iter_mut().zip(group.octets()) {
            *to = from;
        }
        let membership = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex).unwrap_or(-1),
            mr_type: short(libc::PACKET_MR_MULTICAST),
            mr_alen: 6,
            mr_address: address,
        };
        self.set_option(libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    fn set_option<T: Copy>(&self, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: the descriptor is open; `value` is a plain C value, valid for reading its own size, and outlives
        // the call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const *value).cast(),
                option_len::<T>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self, ifindex: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: short(libc::AF_PACKET),
            sll_protocol: short(libc::ETH_P_ALL).to_be(),
            sll_ifindex: i32::try_from(ifindex).unwrap_or(-1),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the descriptor is open; `address` is a whole sockaddr_ll and outlives the call.
        let result = unsafe {
            libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), option_len::<libc::sockaddr_ll>())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn option_len<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

/// One of libc's `int` constants, for a 16-bit field of the kernel's.
const fn short(constant: libc::c_int) -> u16 {
    let [low, high, ..] = constant.to_le_bytes();
    u16::from_le_bytes([low, high])
}
