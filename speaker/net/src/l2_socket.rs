//! One packet socket per interface: receives what its filter lets pass, sends whole Ethernet frames.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, SockFilter, Socket, Type};

use herald_wire::hello;

use crate::filter::Program;

/// What may queue while the loop is busy, in octets: about 1,000 frames at the kernel's accounting. The kernel
/// grants twice `net.core.rmem_max` at most.
const RECEIVE_BUFFER: usize = 1 << 20;

/// An AF_PACKET socket bound to one interface.
///
/// From the first frame on it queues only what the filter lets pass: it is created for no protocol, which receives
/// nothing, and bound to all protocols once the filter is attached. Its own frames never come back.
#[derive(Debug)]
pub struct L2Socket {
    socket: Socket,
    ifindex: u32,
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
    /// Opens a socket on the interface, for hello frames and for these addresses of interest.
    pub fn open(ifindex: u32, interest: &[IpAddr]) -> Result<Self, OpenError> {
        let failed = |operation| {
            move |error: io::Error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted,
                Some(libc::ENODEV | libc::ENXIO) => OpenError::NoInterface { ifindex },
                _ => OpenError::Io { operation, ifindex, error },
            }
        };
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None);
        let this = Self { socket: socket.map_err(failed("socket"))?, ifindex };
        this.set_interest(interest).map_err(failed("SO_ATTACH_FILTER"))?;
        this.socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed("SO_RCVBUF"))?;
        this.ignore_outgoing().map_err(failed("PACKET_IGNORE_OUTGOING"))?;
        this.join_hello_group().map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
        this.bind().map_err(failed("bind"))?;
        Ok(this)
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Replaces the filter, in one step: no frame is judged by none or by half of it.
    pub fn set_interest(&self, interest: &[IpAddr]) -> io::Result<()> {
        let mut max = crate::filter::MAX_INTERVALS;
        loop {
            let program = Program::with_at_most(interest, max);
            let filter: Vec<SockFilter> = program
                .instructions()
                .iter()
                .map(|op| SockFilter::new(op.code, op.jt, op.jf, op.k))
                .collect();
            match self.socket.attach_filter(&filter) {
                // The kernel charges filters, the old and the new one, to net.core.optmem_max, which was 20 KB
                // before Linux 6.7: a coarser filter still keeps storms out.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && max > 1 => max /= 4,
                result => return result,
            }
        }
    }

    /// The next frame, cut to the buffer; `None` when there is none.
    ///
    /// `None` also when the interface went down: the interface monitor tells that, and it may come back.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        loop {
            return match (&self.socket).read(buffer) {
                Ok(len) => Ok(buffer.get(..len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                Err(error) => Err(error),
            };
        }
    }

    /// Sends a whole Ethernet frame.
    ///
    /// `WouldBlock` and ENOBUFS mean that the interface's queue is full, ENETDOWN that it is down: the frame is
    /// lost, as it may be on the wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Frames that passed the filter and found the receive buffer full, since the last call.
    pub fn take_drops(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = option_len::<libc::tpacket_stats>();
        // SAFETY: the descriptor is open, `statistics` is valid for writing `len` octets, both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
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

    /// Lets the interface receive the hello group, for as long as the socket is open.
    fn join_hello_group(&self) -> io::Result<()> {
        let mut address = [0; 8];
        for (to, from) in address.iter_mut().zip(hello::GROUP.octets()) {
            *to = from;
        }
        let membership = libc::packet_mreq {
            mr_ifindex: i32::try_from(self.ifindex).unwrap_or(-1),
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
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const *value).cast(),
                option_len::<T>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: short(libc::AF_PACKET),
            sll_protocol: short(libc::ETH_P_ALL).to_be(),
            sll_ifindex: i32::try_from(self.ifindex).unwrap_or(-1),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the descriptor is open; `address` is a whole sockaddr_ll and outlives the call.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                option_len::<libc::sockaddr_ll>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for L2Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
