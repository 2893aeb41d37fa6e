//! The simulated network: one kernel a host, a link for each direction between two of them, and the
//! faults of each link. Packets travel in steps of time.
//!
//! Invariant: a link keeps the order of packets, and everything depends on the seed alone.

pub(crate) mod connection;
pub(crate) mod socket;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use fastrand::Rng;
use turmoil_net::{
    EnterGuard, HostId, KernelConfig, Net, Packet, TcpFlags, TcpSegment, Transport, netstat,
};

use crate::time::Millis;

/// The port that everybody knows the registry by. Each start of it listens on one of its own, so
/// that connections to an earlier start are reset, as after a real restart.
pub(crate) const REGISTRY_PORT: u16 = 7510;
/// The registry's host.
pub const REGISTRY: usize = 0;
const FIRST_PORT: u16 = 10_000;
/// Steps without an acknowledgement after which a segment is sent again: half a second.
const RETRANSMIT_STEPS: u32 = 25;
/// Retransmissions after which a connection is given up: 16 s.
const RETRANSMIT_MAX: u32 = 32;
/// More than a window can announce: a slow reader never leaves its writer without a window.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// The faults of one direction between two hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing gets through.
    pub cut: bool,
    /// Packets wait until the fault ends, and then travel in order.
    pub held: bool,
    /// The share of packets that are lost.
    pub loss_percent: u8,
    pub delay_ms: Millis,
    /// Added to the delay at random.
    pub jitter_ms: Millis,
}

impl Link {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Default)]
struct DirectedLink {
    link: Link,
    /// Packets that the link holds.
    waiting: Vec<Packet>,
    /// The arrival of the packet before: no packet overtakes it.
    arrives_at: Millis,
}

pub(crate) struct Network {
    guard: EnterGuard,
    hosts: Vec<HostId>,
    links: Vec<DirectedLink>,
    /// By arrival and order of sending.
    flying: BTreeMap<(Millis, u64), Packet>,
    /// The latest acknowledgement that each end sent to each other end.
    acknowledged: HashMap<(SocketAddr, SocketAddr), Packet>,
    /// The port that the registry listens on now.
    port: u16,
    /// True where only the first host after the registry reaches it.
    pub(crate) is_gated: bool,
    random: Rng,
    sent: Vec<Packet>,
    now: Millis,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
}

fn address(host: usize) -> IpAddr {
    let host = u8::try_from(host + 1).expect("few hosts");
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

fn host_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => usize::from(address.octets()[3]) - 1,
        IpAddr::V6(_) => unreachable!("all addresses are of version 4"),
    }
}

/// The registry's address.
pub(crate) fn registry_address() -> SocketAddr {
    SocketAddr::new(address(REGISTRY), REGISTRY_PORT)
}

fn tcp(packet: &Packet) -> &TcpSegment {
    match &packet.payload {
        Transport::Tcp(segment) => segment,
        Transport::Udp(_) => unreachable!("nobody sends datagrams"),
    }
}

fn tcp_mut(packet: &mut Packet) -> &mut TcpSegment {
    match &mut packet.payload {
        Transport::Tcp(segment) => segment,
        Transport::Udp(_) => unreachable!("nobody sends datagrams"),
    }
}

fn ends(packet: &Packet) -> (SocketAddr, SocketAddr) {
    let segment = tcp(packet);
    let (source, target) = (segment.src_port, segment.dst_port);
    (SocketAddr::new(packet.src, source), SocketAddr::new(packet.dst, target))
}

/// A reset of the connection from `from` to `to`, as `to` sees it.
fn reset(from: SocketAddr, to: SocketAddr) -> Packet {
    let segment = TcpSegment {
        src_port: from.port(),
        dst_port: to.port(),
        seq: 0,
        ack: 0,
        flags: TcpFlags { rst: true, ..TcpFlags::default() },
        window: 0,
        payload: bytes::Bytes::new(),
    };
    Packet { src: from.ip(), dst: to.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}

impl Network {
    /// A network of hosts without faults. There is one a thread at a time.
    pub(crate) fn new(hosts: usize, random: Rng) -> Self {
        let config = KernelConfig::default()
            .recv_buf_cap(RECEIVE_BUFFER)
            .retx_threshold(RETRANSMIT_STEPS)
            .retx_max(RETRANSMIT_MAX);
        let mut net = Net::with_config(config);
        let ids = (0..hosts).map(|host| net.add_host(address(host))).collect();
        Self {
            guard: net.enter(),
            hosts: ids,
            links: (0..hosts * hosts).map(|_| DirectedLink::default()).collect(),
            flying: BTreeMap::new(),
            acknowledged: HashMap::new(),
            port: FIRST_PORT,
            is_gated: false,
            random,
            sent: Vec::new(),
            now: 0,
            packets: 0,
            lost: 0,
        }
    }

    /// Software from here on runs on this host.
    pub(crate) fn enter(&self, host: usize) {
        self.guard.set_current(self.hosts[host]);
    }

    fn directed_link(&mut self, from: usize, to: usize) -> &mut DirectedLink {
        let hosts = self.hosts.len();
        &mut self.links[from * hosts + to]
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[from * self.hosts.len() + to].link
    }

    /// Sets the faults of a link. Sends the packets that it held, if it holds none any more.
    pub(crate) fn set_link(&mut self, from: usize, to: usize, link: Link) {
        let directed = self.directed_link(from, to);
        directed.link = link;
        if !directed.link.held {
            for packet in mem::take(&mut directed.waiting) {
                self.send(from, to, packet);
            }
        }
    }

    /// The port on which the next start of the registry has to listen.
    pub(crate) fn next_port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// Sends the packets of this step on their way, and delivers those that arrive.
    pub(crate) fn travel(&mut self, now: Millis) {
        self.now = now;
        let mut sent = mem::take(&mut self.sent);
        self.guard.egress_all(&mut sent);
        for packet in sent.drain(..) {
            self.depart(packet);
        }
        self.sent = sent;
        // What arrival brings forth leaves with the next step.
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let packet = entry.remove();
            self.arrive(packet);
        }
    }

    fn depart(&mut self, mut packet: Packet) {
        let (from, to) = (host_of(packet.src), host_of(packet.dst));
        if from == REGISTRY {
            // Packets of an earlier start are dropped.
            if tcp(&packet).src_port != self.port {
                return;
            }
            tcp_mut(&mut packet).src_port = REGISTRY_PORT;
        }
        let segment = tcp(&packet);
        if segment.flags.ack && !segment.flags.rst {
            let segment = TcpSegment {
                payload: bytes::Bytes::new(),
                flags: TcpFlags { ack: true, ..TcpFlags::default() },
                ..segment.clone()
            };
            let bare = Packet { payload: Transport::Tcp(segment), ..packet.clone() };
            self.acknowledged.insert(ends(&packet), bare);
        }
        if segment.flags.rst {
            let (from, to) = ends(&packet);
            self.acknowledged.remove(&(from, to));
            self.acknowledged.remove(&(to, from));
        }
        self.send(from, to, packet);
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        self.packets += 1;
        let Link { cut, held, loss_percent, delay_ms, jitter_ms } = self.link(from, to).clone();
        let gated = self.is_gated && from.max(to) > REGISTRY + 1;
        if cut || gated || (loss_percent > 0 && self.random.u8(..100) < loss_percent) {
            self.lost += 1;
            return;
        }
        if held {
            self.directed_link(from, to).waiting.push(packet);
            return;
        }
        let jitter_ms = if jitter_ms > 0 { self.random.u64(..=jitter_ms) } else { 0 };
        let now = self.now;
        let link = self.directed_link(from, to);
        let arrives_at = (now + delay_ms + jitter_ms).max(link.arrives_at);
        link.arrives_at = arrives_at;
        self.flying.insert((arrives_at, self.packets), packet);
    }

    fn arrive(&mut self, mut packet: Packet) {
        let (from, to) = ends(&packet);
        let segment = tcp(&packet);
        let speaks = !segment.payload.is_empty() || segment.flags.fin || segment.flags.syn;
        if speaks && let Some(answer) = self.acknowledged.get(&(to, from)) {
            // A kernel does not acknowledge a segment that it has: a sender that repeats one missed
            // the acknowledgement, and would repeat it for ever.
            if (segment.seq.wrapping_sub(tcp(answer).ack) as i32) < 0 {
                let answer = answer.clone();
                self.send(host_of(answer.src), host_of(answer.dst), answer);
            }
        }
        if host_of(packet.dst) == REGISTRY {
            tcp_mut(&mut packet).dst_port = self.port;
        }
        self.guard.deliver(packet);
    }

    /// True while a packet is on its way from one host to another.
    pub(crate) fn is_travelling(&self, from: usize, to: usize) -> bool {
        let link = &self.links[from * self.hosts.len() + to];
        !link.waiting.is_empty() || link.arrives_at > self.now
    }

    /// Breaks the connections between the registry and a host, as a firewall that lost its memory.
    pub(crate) fn reset_connections(&mut self, host: usize) {
        for entry in netstat(address(host)).entries {
            if let Some(peer) = entry.peer {
                let there = SocketAddr::new(peer.ip(), self.port);
                self.guard.deliver(reset(peer, entry.local));
                self.guard.deliver(reset(entry.local, there));
            }
        }
    }

    /// Forgets all connections of a host without notice, as a loss of power does.
    pub(crate) fn forget_connections(&mut self, host: usize) {
        for entry in netstat(address(host)).entries {
            if let Some(peer) = entry.peer {
                self.guard.deliver(reset(peer, entry.local));
            }
        }
    }
}
